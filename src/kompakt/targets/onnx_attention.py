"""Scaled dot-product attention in plain operators.

The exporter's own form of ``scaled_dot_product_attention`` finds out shapes at run time, with a dozen small
operators for each attention. Where neither causal masks nor grouped heads are involved, two matrix products and
a softmax do.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
_ATTENTION = aten.scaled_dot_product_attention.default
_PARAMETERS = (
    "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
)  # fmt: skip


def expand_attention_(flat: GraphModule) -> GraphModule:
    """Replace every plain attention call by matrix products and a softmax, in place."""
    for node in list(flat.graph.nodes):
        if node.op == "call_function" and node.target is _ATTENTION:
            call = {**dict(zip(_PARAMETERS, node.args, strict=False)), **node.kwargs}
            if not (call.get("is_causal") or call.get("enable_gqa")):
                with flat.graph.inserting_before(node):
                    node.replace_all_uses_with(_expanded(flat, node, call))
                flat.graph.erase_node(node)
    flat.recompile()
    return flat


def _expanded(flat: GraphModule, node: Node, call: dict[str, Any]) -> Node:
    def run(target: Any, *args: Any) -> Node:
        made = flat.graph.call_function(target, args)
        made.meta["site"] = node.meta.get("site", node.name)
        return made

    query, mask, scale = call["query"], call.get("attn_mask"), call.get("scale")
    width = query.meta["val"].shape[-1]
    factor = float(scale) if scale is not None else 1.0 / math.sqrt(width)
    keys = run(aten.transpose.int, call["key"], -1, -2)
    scores = run(aten.matmul.default, run(aten.mul.Tensor, query, factor), keys)
    if mask is None:
        return run(aten.matmul.default, run(aten.softmax.int, scores, -1), call["value"])
    if mask.meta["val"].dtype == torch.bool:
        hidden = run(aten.scalar_tensor.default, float("-inf"))
        shown = run(aten.scalar_tensor.default, 0.0)
        mask = run(aten.where.self, mask, shown, hidden)
    weights = run(aten.softmax.int, run(aten.add.Tensor, scores, mask), -1)
    # A row whose every key is hidden attends to nothing: PyTorch gives 0 there, not NaN.
    nothing = run(aten.scalar_tensor.default, 0.0)
    weights = run(aten.where.self, run(aten.isnan.default, weights), nothing, weights)
    return run(aten.matmul.default, weights, call["value"])
