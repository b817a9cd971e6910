"""Finds the weights behind weight arguments that are computed in the graph, and products with a
weight.

``nn.MultiheadAttention`` cuts one in-projection into two for cross-attention; GPT-2 multiplies with
``addmm`` and a weight stored the other way round; a tied output head is ``x @ embedding.T``. All of
these are linear layers to a user, so here a slice of a parameter becomes a parameter of its own,
and a product with a two-dimensional parameter becomes ``aten.linear``, which later becomes an
``nn.Linear``. Nothing is copied where a view does, so results stay equal to the bit.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from kompakt.network.layer_rules import LAYER_RULES
from kompakt.network.operators import arguments, fake_result, operator_name
from kompakt.network.program import Traced

_CUTS = frozenset(
    (
        "aten.split",
        "aten.split_with_sizes",
        "aten.chunk",
        "aten.slice",
        "aten.select",
        "aten.narrow",
        "aten.unbind",
    )
)
_TURNS = frozenset(("aten.t", "aten.transpose", "aten.permute", "aten.numpy_T", "aten.mT"))


def resolve_weights(traced: Traced) -> None:
    """Turn products with a parameter into ``aten.linear`` and cut parameters into parameters, in
    place.
    """
    for node in list(traced.graph.nodes):
        _as_linear(traced, node)
    if traced.transposed:
        first, count = traced.transposed[0], len(traced.transposed)
        more = f" and {count - 1} more" if count > 1 else ""
        traced.notes.append(f"'{first}'{more}: stored transposed, as nn.Linear stores its weight")
    for node in list(traced.graph.nodes):
        rule = LAYER_RULES.get(operator_name(node))
        if rule is None:
            continue
        for name in rule.weights:
            given = arguments(node).get(name)
            if isinstance(given, fx.Node) and given.op != "get_attr":
                made = _own_parameter(traced, given)
                if made is not None:
                    node.replace_input_with(given, made)


def _as_linear(traced: Traced, node: fx.Node) -> None:
    """Rewrite ``addmm(bias, x, W)``, ``x @ W`` with a two-dimensional parameter W as a linear
    layer.
    """
    name = operator_name(node)
    if name == "aten.addmm" and not node.kwargs:
        bias, x, weight = node.args
        if not (isinstance(bias, fx.Node) and bias.op == "get_attr" and _rank(bias) == 1):
            return
    elif name in ("aten.matmul", "aten.mm"):
        (x, weight), bias = node.args, None
    else:
        return
    if (
        not isinstance(weight, fx.Node)
        or not isinstance(x, fx.Node)
        or _rank(weight) != 2
        or _rank(x) < 2
    ):
        return
    turned = _turned(traced, weight)
    if turned is None:
        return
    with traced.graph.inserting_before(node):
        made = traced.graph.call_function(torch.ops.aten.linear.default, (x, turned, bias))
    made.meta.update(node.meta)
    node.replace_all_uses_with(made)
    traced.graph.erase_node(node)


def _turned(traced: Traced, weight: fx.Node) -> fx.Node | None:
    """The node holding the transpose of ``weight``, when ``weight`` comes straight from a
    parameter.
    """
    if operator_name(weight) in _TURNS and _is_parameter(traced, weight.args[0]):
        return weight.args[0]  # type: ignore[return-value]
    if not _is_parameter(traced, weight) or len(weight.users) != 1:
        return None
    parameter = traced.tensors[str(weight.target)]
    if _is_tied(traced, str(weight.target), parameter):
        return None
    traced.tensors[str(weight.target)] = nn.Parameter(
        parameter.detach().t(), requires_grad=parameter.requires_grad
    )
    weight.meta["val"] = fake_result(torch.ops.aten.t.default, weight)
    traced.transposed.append(str(weight.target))
    return weight


def _is_tied(traced: Traced, name: str, parameter: Tensor) -> bool:
    return any(tensor is parameter and other != name for other, tensor in traced.tensors.items())


def _is_parameter(traced: Traced, node: Any) -> bool:
    return (
        isinstance(node, fx.Node)
        and node.op == "get_attr"
        and isinstance(traced.tensors[str(node.target)], nn.Parameter)
    )


def _own_parameter(traced: Traced, node: fx.Node) -> fx.Node | None:
    """A ``get_attr`` node for a new parameter that holds the piece of a parameter ``node``
    computes.
    """
    steps = [node]
    while operator_name(steps[-1]) in _CUTS or steps[-1].target is operator.getitem:
        steps.append(steps[-1].args[0])  # type: ignore[arg-type]
    source = steps[-1]
    if len(steps) == 1 or not _is_parameter(traced, source):
        return None
    whole = traced.tensors[str(source.target)]
    piece: Any = whole.detach()
    for step in reversed(steps[:-1]):
        piece = step.target(piece, *step.args[1:], **step.kwargs)  # type: ignore[operator]
    name = _piece_name(traced, str(source.target), piece)
    traced.tensors.setdefault(name, nn.Parameter(piece.clone(), requires_grad=whole.requires_grad))
    with traced.graph.inserting_before(node):
        made = traced.graph.create_node("get_attr", name)
    made.meta["val"] = node.meta["val"]
    return made


def _piece_name(traced: Traced, source: str, piece: Tensor) -> str:
    """``in_proj_0_weight`` for the first piece cut from ``in_proj_weight``; the same piece has the
    same name.
    """
    owner, _, attribute = source.rpartition(".")
    ending = next((word for word in ("weight", "bias") if attribute.endswith(f"_{word}")), "")
    stem = attribute.removesuffix(f"_{ending}") if ending else attribute
    pieces = traced.pieces.setdefault(source, {})
    key = (int(piece.storage_offset()), tuple(piece.shape))
    word = "_".join(part for part in (stem, str(len(pieces)), ending) if part)
    return pieces.setdefault(key, f"{owner}.{word}" if owner else word)


def _rank(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.ndim if isinstance(value, Tensor) else -1
