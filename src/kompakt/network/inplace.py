"""Replaces operators that change a tensor in place by ones that return a new tensor.

A quantizer or an observer on an edge must see the tensor as it was at that edge, not as it became
later. PyTorch's own functionalisation would also decompose batch norm and drop dropout, so this
pass does only this one thing: the in-place operator becomes its out-of-place twin, and every later
reader of the changed value reads the result. A write through a slice or a selected row becomes a
scatter into the whole. Where other views of the same memory are read later, or a buffer of the
model itself is changed, the operator stays as it is and a note says so.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import fx

from kompakt.network.failure import user_line
from kompakt.network.operators import (
    Overload,
    arguments,
    fake_result,
    is_operator,
    operator_name,
    returns_view,
    written_arguments,
)
from kompakt.network.program import Traced

_PASS_THROUGH = frozenset(
    (
        "aten.dropout",
        "aten.feature_dropout",
        "aten.alpha_dropout",
        "aten.feature_alpha_dropout",
        "aten.alias",
        "aten.detach",
        "aten.contiguous",
        "aten.type_as",
    )
)
_SCATTER = {
    "aten.select": torch.ops.aten.select_scatter.default,
    "aten.slice": torch.ops.aten.slice_scatter.default,
}


def functionalise(traced: Traced) -> None:
    """Rewrite every in-place operator of ``traced`` that can be rewritten; note the others."""
    _Functionalising(traced).run()


class _Functionalising:
    """One walk over the graph in execution order.

    ``memory[n]`` is the node whose memory ``n`` shares (itself when it has its own). ``parent[n]``
    is the node that ``n`` is a view of. ``order[n]`` is when ``n`` runs; nodes made here run with
    the one they replace.
    """

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.memory: dict[fx.Node, fx.Node] = {}
        self.parent: dict[fx.Node, fx.Node] = {}
        self.order = {node: i for i, node in enumerate(traced.graph.nodes)}

    def run(self) -> None:
        for node in list(self.traced.graph.nodes):
            self._remember(node)
            if self._is_idle(node):
                node.replace_all_uses_with(node.args[0])
                self.traced.graph.erase_node(node)
                continue
            written = written_arguments(node.target) if is_operator(node) else []
            if written and not self._rewrite(node, written):
                self._note(node)

    def _remember(self, node: fx.Node) -> None:
        shares = (
            returns_view(node.target)
            or operator_name(node) in _PASS_THROUGH
            or bool(written_arguments(node.target))
        )
        is_item = node.op == "call_function" and not is_operator(node)
        sources = node.all_input_nodes
        if (shares or is_item) and sources:
            self.parent[node] = sources[0]
            self.memory[node] = self.memory.get(sources[0], sources[0])
        else:
            self.memory[node] = node

    def _is_idle(self, node: fx.Node) -> bool:
        """Whether this copies a buffer onto itself, as the exporter does after a change."""
        if operator_name(node) != "aten.copy_":
            return False
        target, source = node.args[0], node.args[1]
        return (
            isinstance(target, fx.Node)
            and isinstance(source, fx.Node)
            and target.op == "get_attr"
            and self.memory.get(source) is target
            and is_operator(source)
            and bool(written_arguments(source.target))
        )

    def _rewrite(self, node: fx.Node, written: list[str]) -> bool:
        found = arguments(node)
        changed = found[written[0]]
        target = _twin(node.target)
        if len(written) != 1 or target is None or not isinstance(changed, fx.Node):
            return False
        if self.memory[changed].op == "get_attr":
            return False
        whole = self._affected(changed, node)
        if whole is None:
            return False
        with self.traced.graph.inserting_before(node):
            result = self._call(node, target, node.args, node.kwargs)
            self._scatter(node, changed, result, whole)
        node.replace_all_uses_with(result)
        self.traced.graph.erase_node(node)
        return True

    def _affected(self, changed: fx.Node, node: fx.Node) -> list[fx.Node] | None:
        """The views from ``changed`` up to the outermost one that is read later; None when others
        are read, too.
        """
        chain = [changed]
        while chain[-1] in self.parent:
            chain.append(self.parent[chain[-1]])
        read = [
            other
            for other, owner in self.memory.items()
            if owner is self.memory[changed] and other is not node and self._read_later(other, node)
        ]
        if any(other not in chain for other in read):
            return None
        length = max((chain.index(other) for other in read), default=0)
        links = chain[:length]
        if all(operator_name(link) in (*_SCATTER, *_PASS_THROUGH) for link in links):
            return chain[: length + 1]
        return None

    def _read_later(self, other: fx.Node, node: fx.Node) -> bool:
        return any(self.order.get(user, -1) > self.order[node] for user in other.users)

    def _scatter(
        self, node: fx.Node, changed: fx.Node, result: fx.Node, whole: list[fx.Node]
    ) -> None:
        self._read_from_now_on(node, changed, result)
        piece = result
        for view, base in itertools.pairwise(whole):
            name = operator_name(view)
            if name in _SCATTER:
                args = (base, piece, *view.args[1:])
                piece = self._call(node, _SCATTER[name], args, view.kwargs)
            self._read_from_now_on(node, base, piece)

    def _read_from_now_on(self, node: fx.Node, old: fx.Node, new: fx.Node) -> None:
        """Let everything that runs after ``node`` read ``new`` instead of ``old``."""
        for user in list(old.users):
            if self.order[user] > self.order[node]:
                user.replace_input_with(old, new)

    def _call(
        self, node: fx.Node, target: Overload, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> fx.Node:
        made = self.traced.graph.call_function(target, args, kwargs)
        made.meta.update(node.meta)
        made.meta["val"] = fake_result(target, *args, **kwargs)
        self.memory[made] = made
        self.order[made] = self.order[node]
        if returns_view(target):
            self.memory[made] = self.memory[made.all_input_nodes[0]]
            self.parent[made] = made.all_input_nodes[0]
        return made

    def _note(self, node: fx.Node) -> None:
        owner = self.memory[node]
        what = (
            f"the buffer '{owner.target}'"
            if owner.op == "get_attr"
            else "memory that is read elsewhere"
        )
        where = user_line(str(node.meta.get("stack_trace", ""))) or str(node.target)
        self.traced.notes.append(f"{where} changes {what} in place, and stays so in the network")


def _twin(target: Any) -> Overload | None:
    """The out-of-place operator with the same arguments, or None."""
    packet_name = str(target.overloadpacket).rpartition(".")[2]
    namespace = getattr(torch.ops, target.namespace)
    packet = getattr(namespace, packet_name.rstrip("_"), None)
    if packet is None or not packet_name.endswith("_"):
        return None
    for overload in (target._overloadname, "default"):
        twin = getattr(packet, overload, None)
        if isinstance(twin, Overload) and not written_arguments(twin) and _same_names(twin, target):
            return twin
    return None


def _same_names(first: Overload, second: Overload) -> bool:
    names = [[a.name for a in op._schema.arguments] for op in (first, second)]
    return names[0] == names[1] or len(names[0]) == len(names[1])
