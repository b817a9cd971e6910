"""Gives every tensor in a graph its stable dotted name: the site.

A layer has the name it has in the model; an operator is named after the module whose ``forward`` it
is in, plus what it does; a second call of the same module or operator gets a number. Names do not
depend on anything but the model's code, so a scheme or report made today still fits tomorrow.
"""

from __future__ import annotations

import operator
from collections import Counter

from torch import Tensor, fx

from kompakt.network.dropout import ScaledDotProductAttention
from kompakt.network.operators import operator_name
from kompakt.network.stack import module_path, module_type

_ACTIVATION_FILES = ("activation", "pooling", "flatten", "padding", "upsampling", "pixelshuffle")


def name_sites(graph: fx.Graph) -> None:
    """Set ``node.meta["site"]`` on every node that has none."""
    naming = _Naming()
    for node in graph.nodes:
        if node.op != "output" and "site" not in node.meta:
            node.meta["site"] = naming.name(node)


def site_for(graph: fx.Graph, wanted: str) -> str:
    """``wanted``, or ``wanted_1``, ``wanted_2`` … when that site exists already."""
    taken = {node.meta.get("site") for node in graph.nodes}
    site, number = wanted, 0
    while site in taken:
        number += 1
        site = f"{wanted}_{number}"
    return site


class _Naming:
    """Counts how often each name was asked for."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.taken: set[str] = set()

    def name(self, node: fx.Node) -> str:
        """A name no other node has."""
        wanted, mark = self._wanted(node)
        count = self.calls[wanted]
        self.calls[wanted] += 1
        name = wanted if count == 0 else f"{wanted}{mark}{count}"
        while name in self.taken:
            name = f"{name}_"
        self.taken.add(name)
        return name

    def _wanted(self, node: fx.Node) -> tuple[str, str]:
        if node.op in ("placeholder", "get_attr", "call_module"):
            return str(node.target), "@"
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            return f"{node.args[0].meta['site']}.{node.args[1]}", "_"
        word = operator_name(node).rpartition(".")[2] or getattr(node.target, "__name__", "value")
        path = module_path(node, keep_call=True)
        if _is_activation(node):
            return module_path(node), "@"
        word = {"scaled_dot_product_attention": "attention"}.get(word, word.strip("_"))
        return (f"{path}.{word}" if path else word), "_"


def _is_activation(node: fx.Node) -> bool:
    """Whether the operator is what a parameterless leaf module such as ``nn.ReLU`` does."""
    if not module_path(node) or not isinstance(node.meta.get("val"), Tensor):
        return False
    package, _, name = module_type(node).rpartition(".")
    if (
        name == ScaledDotProductAttention.__name__
        and package == ScaledDotProductAttention.__module__
    ):
        return True
    prefix, _, file = package.rpartition(".")
    return (
        prefix == "torch.nn.modules" and file in _ACTIVATION_FILES and name != "MultiheadAttention"
    )
