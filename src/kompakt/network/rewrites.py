"""Rewrites that do not change what a network computes, only how it is written.

Each takes a Network and returns a new one; the network passed in is not touched. Removing dropout
and identities and naming the global average pool are exact to the bit; folding a batch norm into
the layer before it changes the order of float operations and is exact to about 1e-6 (relative).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from kompakt.network import ops
from kompakt.network.dropout import ScaledDotProductAttention
from kompakt.network.folding import fold_batch_norms
from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.network import Network
from kompakt.network.operators import (
    arguments,
    fake_result,
    is_operator,
    operator_name,
    remove_dead_nodes,
    value,
    written_arguments,
)
from kompakt.network.sites import site_for

__all__ = [
    "fold_batch_norm",
    "inference_form",
    "remove_dropout",
    "remove_identity",
    "use_global_average_pool",
]

_FULL = 1 << 62
_REGISTERED = ops.global_average_pool


def fold_batch_norm(network: Network) -> Network:
    """Fold every batch norm into the convolution, transposed convolution or linear layer before it.

    A pair is left alone when the layer's output is read elsewhere, or the layer or the batch norm
    is called twice.
    """
    return _rewritten(network, fold_batch_norms)


def remove_dropout(network: Network) -> Network:
    """Remove dropout, which does nothing in eval mode; attention dropout is set to zero."""
    return _rewritten(network, _drop_dropout)


def remove_identity(network: Network) -> Network:
    """Remove operators that return their input: detach, clone, contiguous, full slices, conversions
    to the same type.
    """
    return _rewritten(network, _drop_identity)


def use_global_average_pool(network: Network) -> Network:
    """Write a mean over all spatial dimensions, in any spelling, as
    ``kompakt::global_average_pool``.

    A mean without ``keepdim`` becomes the pool and a reshape behind it.
    """
    return _rewritten(network, _name_global_pools)


def inference_form(network: Network) -> Network:
    """All rewrites of this file: the form in which a network is quantized and deployed."""

    def all_of_them(copied: Network) -> None:
        for rewrite in (_drop_dropout, _drop_identity, fold_batch_norms, _name_global_pools):
            rewrite(copied)

    return _rewritten(network, all_of_them)


def _rewritten(network: Network, rewrite: Callable[[Network], None]) -> Network:
    copied = copy.deepcopy(network)
    rewrite(copied)
    remove_dead_nodes(copied.graph)
    remove_unused_layers(copied)
    copied.recompile()
    return copied


def remove_unused_layers(network: Network) -> None:
    """Delete layers, parameters and buffers that no node names any more."""
    used = {str(n.target) for n in network.graph.nodes if n.op in ("call_module", "get_attr")}
    for name, module in list(nn.Module.named_modules(network, remove_duplicate=False)):
        inside = any(name == u or name.startswith(f"{u}.") for u in used)
        leads = any(u.startswith(f"{name}.") for u in used)
        if name and not inside and not leads:
            path, _, attribute = name.rpartition(".")
            parent = _submodule(network, path)
            if parent is not None:
                parent._modules.pop(attribute, None)
        elif not inside:
            for group in (module._parameters, module._buffers):
                for attribute in list(group):
                    full = f"{name}.{attribute}" if name else attribute
                    if full not in used:
                        del group[attribute]
                        module._non_persistent_buffers_set.discard(attribute)


def _submodule(network: Network, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None


def _drop_dropout(network: Network) -> None:
    for node in list(network.graph.nodes):
        layer = layer_of(node)
        if isinstance(layer, ScaledDotProductAttention):
            _without_dropout(node, layer)
        elif kind_of(node) == "dropout":
            _bypass(node)


def _without_dropout(node: fx.Node, layer: ScaledDotProductAttention) -> None:
    """Write an attention layer as the plain operator."""
    mask = node.args[3] if len(node.args) > 3 else None
    settings = dict(layer.settings)
    args = (*node.args[:3], mask, 0.0, settings.pop("is_causal", False))
    with node.graph.inserting_before(node):
        target = torch.ops.aten.scaled_dot_product_attention.default
        plain = node.graph.call_function(target, args, settings)
    plain.meta.update(node.meta)
    node.replace_all_uses_with(plain)
    node.graph.erase_node(node)


def _drop_identity(network: Network) -> None:
    nodes = list(network.graph.nodes)
    if any(is_operator(node) and written_arguments(node.target) for node in nodes):
        return  # a copy that an in-place operator then changes is no identity
    for node in nodes:
        if node.target is torch.ops.aten.view.default:
            # Without a contiguous() before it the same view may need a copy, which reshape makes.
            node.target = torch.ops.aten.reshape.default
    for node in list(network.graph.nodes):
        if kind_of(node) == "identity" or _is_full_slice(node):
            _bypass(node)


def _is_full_slice(node: fx.Node) -> bool:
    if operator_name(node) != "aten.slice":
        return False
    found = arguments(node)
    end = found["end"]
    return (
        found["start"] in (None, 0)
        and (end is None or (isinstance(end, int) and end >= _FULL))
        and found["step"] == 1
    )


def _bypass(node: fx.Node) -> None:
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    node.graph.erase_node(node)


def _name_global_pools(network: Network) -> None:
    for node in list(network.graph.nodes):
        keepdim = _global_pool_keepdim(node)
        if keepdim is not None:
            _replace_by_pool(node, keepdim)


def _global_pool_keepdim(node: fx.Node) -> bool | None:
    """Whether this global average pool keeps its dimensions; None when the node is not one."""
    name = operator_name(node)
    if name.startswith("aten.adaptive_avg_pool"):
        batched = value(node.args[0]).ndim == int(name[-2]) + 2
        return True if kind_of(node) == "global_average_pool" and batched else None
    if name != "aten.mean":
        return None
    found = arguments(node)
    tensor, dims = value(node.args[0]), found.get("dim")
    if not isinstance(tensor, Tensor) or tensor.ndim < 3 or not isinstance(dims, (list, tuple)):
        return None
    spatial = sorted(d % tensor.ndim for d in dims) == list(range(2, tensor.ndim))
    return bool(found["keepdim"]) if spatial and found.get("dtype") is None else None


def _replace_by_pool(node: fx.Node, keepdim: bool) -> None:
    graph, x = node.graph, node.args[0]
    with graph.inserting_before(node):
        pool = _call(graph, torch.ops.kompakt.global_average_pool.default, (x,), node)
        result = pool
        if not keepdim:
            result = _call(graph, torch.ops.aten.flatten.using_ints, (pool, 1), node)
            result.meta["site"] = site_for(graph, f"{node.meta['site']}.flatten")
    node.replace_all_uses_with(result)
    pool.meta["site"] = node.meta["site"]
    graph.erase_node(node)


def _call(graph: fx.Graph, target: Any, args: tuple[Any, ...], origin: fx.Node) -> fx.Node:
    made = graph.call_function(target, args)
    made.meta.update({k: v for k, v in origin.meta.items() if k != "site"})
    made.meta["val"] = fake_result(target, *args)
    return made
