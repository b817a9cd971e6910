"""Which channels of a network can be multiplied by a factor without changing what it computes.

A factor on an output channel of a layer can be taken back by the layers that read it, if everything in between
lets positive factors pass: ReLUs, pools, additions whose other side has the same factor, concatenations, reshapes.
Every channel gets a number; channels that must share their factor get the same one. Operators that only move values
are run on the numbers themselves, so that any reshape, shuffle, slice or padding is followed exactly.

Number 0 stands for zeros (padding), which any factor leaves alone; 1 for channels whose factor must stay 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.nn import functional as F

from kompakt.network.kinds import clamp_limits, kind_of, layer_of
from kompakt.network.network import Network
from kompakt.network.operators import arguments, is_operator

ZERO, FIXED = 0, 1
LAYERS = frozenset({"conv", "conv_transpose", "linear"})
MOVERS = frozenset({"reshape", "transpose", "slice", "split", "getitem", "expand"})
SAME = frozenset({"relu", "leaky_relu", "prelu", "identity", "dropout", "mul_scalar", "div_scalar"})
CHANNELWISE = frozenset({"max_pool", "avg_pool", "global_average_pool", "upsample"})


@dataclass(frozen=True, kw_only=True)
class ScalableLayer:
    """One layer with the numbers of its channels.

    Attributes:
        node: Its (only) call.
        layer: The layer.
        inputs: int64 (I,): the group of every input channel.
        outputs: int64 (O,): the group of every output channel.
    """

    node: Node
    layer: nn.Module
    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True, kw_only=True)
class ChannelGroups:
    """What :func:`channel_groups` finds.

    Attributes:
        count: How many groups there are; they are numbered 1 … count, and 0 is every channel that must stay.
        layers: All layers that could be scaled.
        edges: For every tensor between layers that holds a group, its dimension of channels and int64 (C,) groups.
        clipped: For tensors that are clipped (ReLU6), the node that clips: dimension, groups, lowest and highest value.
    """

    count: int
    layers: list[ScalableLayer]
    edges: dict[Node, tuple[int, Tensor]]
    clipped: dict[Node, tuple[int, Tensor, float, float]]


def channel_groups(network: Network) -> ChannelGroups:
    """Find the groups of channels that can be scaled together.

    Args:
        network: An inference-form network; it is run once on its example inputs.
    """
    with torch.no_grad():
        walk = _Walk(network)
        walk.run()
    return walk.result()


@dataclass
class _Numbers:
    """Union-find over channel numbers."""

    parent: list[int] = field(default_factory=lambda: [ZERO, FIXED])

    def fresh(self, count: int) -> Tensor:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return torch.arange(first, first + count, dtype=torch.float64)

    def root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number

    def unite(self, a: Tensor, b: Tensor) -> None:
        """Give the same number to channels of equal place; zeros agree with everything."""
        shape = torch.broadcast_shapes(a.shape, b.shape)  # type: ignore[no-untyped-call]
        pairs = torch.stack([a.expand(shape), b.expand(shape)]).reshape(2, -1)
        pairs = pairs[:, (pairs[0] != pairs[1]) & (pairs != ZERO).all(0)]
        if pairs.numel() == 0:
            return
        for left, right in torch.unique(pairs.long(), dim=1).T.tolist():
            roots = sorted((self.root(left), self.root(right)))
            self.parent[roots[1]] = roots[0]

    def unite_over(self, x: Tensor, dims: list[int]) -> Tensor:
        """Make numbers equal along some dimensions; returns them with these dimensions of size 1."""
        largest = x.amax(dims, keepdim=True)
        self.unite(x, largest)
        return largest

    def roots(self, x: Tensor) -> Tensor:
        table = torch.tensor([self.root(i) for i in range(len(self.parent))])
        return table[x.long()]


class _Walk:
    """One pass over the graph with numbers in place of values."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.numbers = _Numbers()
        self.env: dict[Node, Any] = {}
        self.real = _Recorder(network)
        self.real.run(*network.example_inputs(), enable_io_processing=False)
        self.calls = Counter(id(layer_of(n)) for n in network.graph.find_nodes(op="call_module"))
        self.owners = Counter(
            id(p)
            for module in set(nn.Module.modules(network))
            for p in module._parameters.values()
            if p is not None
        )
        self.found: list[tuple[Node, nn.Module, Tensor, Tensor]] = []
        self.clips: list[tuple[Node, float, float]] = []
        self.rules: dict[str, Callable[[Node], Any]] = {
            **dict.fromkeys(LAYERS, self._layer),
            **dict.fromkeys(MOVERS, self._move),
            **dict.fromkeys(SAME, lambda node: self.of(node.args[0])),
            **dict.fromkeys(CHANNELWISE, self._channelwise),
            **dict.fromkeys(("relu6", "clamp"), self._clip),
            **dict.fromkeys(("add", "sub"), self._join),
            **dict.fromkeys(("mul", "div"), self._product),
            "cat": self._cat,
            "pad": self._pad,
            "mean": self._mean,
        }

    def run(self) -> None:
        for node in self.network.graph.nodes:
            shape = self.real.shapes.get(node)
            rule = self.rules.get(kind_of(node))
            found = rule(node) if rule is not None else None
            if found is None:
                self._freeze(node)
                found = None if shape is None else torch.full(shape, FIXED, dtype=torch.float64)
            self.env[node] = found

    def of(self, argument: Any) -> Tensor | None:
        """Numbers of a tensor; None for what is no single tensor."""
        found = self.env.get(argument) if isinstance(argument, Node) else None
        return found if isinstance(found, Tensor) else None

    def _freeze(self, node: Node) -> None:
        for source in node.all_input_nodes:
            held = self.env.get(source)
            for x in held if isinstance(held, tuple | list) else (held,):
                if isinstance(x, Tensor):
                    self.numbers.unite(x, torch.tensor(float(FIXED), dtype=x.dtype))

    def _layer(self, node: Node) -> Tensor | None:
        layer, x = layer_of(node), self.of(node.args[0]) if node.args else None
        shape = self.real.shapes.get(node)
        if layer is None or x is None or shape is None or len(node.all_input_nodes) > 1:
            return None
        weight = layer._parameters.get("weight")
        tied = weight is None or any(
            self.owners[id(p)] > 1 for p in layer._parameters.values() if p is not None
        )
        linear = isinstance(layer, nn.Linear)
        if tied or self.calls[id(layer)] > 1 or (not linear and x.dim() != weight.dim()):  # type: ignore[union-attr]
            return None
        axis = x.dim() - 1 if linear else 1
        entering = self.numbers.unite_over(x, [d for d in range(x.dim()) if d != axis]).flatten()
        leaving = self.numbers.fresh(shape[axis])
        self.found.append((node, layer, entering, leaving))
        view = [1] * len(shape)
        view[axis] = -1
        return leaving.reshape(view).expand(shape)

    def _move(self, node: Node) -> Any:
        if node.op != "call_function" or self.env.get(node.args[0]) is None:  # type: ignore[arg-type]
            return None
        return node.target(*self._arguments(node.args), **self._arguments(node.kwargs))  # type: ignore[operator]

    def _arguments(self, found: Any) -> Any:
        def one(node: Node) -> Any:
            held = self.env.get(node)
            return self.real.others.get(node) if held is None else held

        return fx.node.map_arg(found, one)

    def _cat(self, node: Node) -> Tensor | None:
        parts = node.args[0]
        if not isinstance(parts, list | tuple) or any(self.of(p) is None for p in parts):
            return None
        moved = self._move_all(node)
        return moved if isinstance(moved, Tensor) else None

    def _move_all(self, node: Node) -> Any:
        return node.target(*self._arguments(node.args), **self._arguments(node.kwargs))  # type: ignore[operator]

    def _pad(self, node: Node) -> Tensor | None:
        x = self.of(node.args[0])
        if x is None or not is_operator(node):
            return None
        found = arguments(node)
        given = found.get("value")
        if str(found.get("mode", "constant")) != "constant" or given not in (None, 0, 0.0):
            return None
        amounts = [int(a) for a in self._arguments(found["pad"])]
        return F.pad(x, amounts, value=float(ZERO))

    def _channelwise(self, node: Node) -> Tensor | None:
        x, shape = self.of(node.args[0]), self.real.shapes.get(node)
        if x is None or shape is None or x.dim() < 3 or len(shape) != x.dim():
            return None
        if shape[:2] != tuple(x.shape[:2]):
            return None
        one = self.numbers.unite_over(x, list(range(2, x.dim())))
        return one.expand(shape)

    def _mean(self, node: Node) -> Tensor | None:
        x = self.of(node.args[0])
        dims = arguments(node).get("dim") if is_operator(node) else None
        if x is None or not dims:
            return None
        one = self.numbers.unite_over(x, [int(d) for d in dims])
        shape = self.real.shapes[node]
        return one.expand(shape) if one.dim() == len(shape) else one.reshape(shape)

    def _clip(self, node: Node) -> Tensor | None:
        x = self.of(node.args[0])
        low, high = clamp_limits(node) if is_operator(node) else (0.0, 6.0)
        low, high = float("-inf") if low is None else low, float("inf") if high is None else high
        if x is None or not low <= 0.0 <= high:
            return None
        if (low, high) != (0.0, float("inf")):
            self.clips.append((node, low, high))
        return x

    def _join(self, node: Node) -> Tensor | None:
        a, b = (self.of(argument) for argument in node.args[:2])
        if a is None or b is None:
            return None
        self.numbers.unite(a, b)
        return torch.maximum(a, b)

    def _product(self, node: Node) -> Tensor | None:
        """One side keeps its factors where the other's is 1 for sure; a divisor's must be."""
        a, b = (self.of(argument) for argument in node.args[:2])
        if a is None or b is None:
            return None
        if bool((self.numbers.roots(b) == FIXED).all()):
            return a.expand(self.real.shapes[node])
        if kind_of(node) == "mul" and bool((self.numbers.roots(a) == FIXED).all()):
            return b.expand(self.real.shapes[node])
        return None

    def result(self) -> ChannelGroups:
        """The groups, numbered anew without gaps."""
        outputs = [out for *_, out in self.found]
        used = torch.unique(self.numbers.roots(torch.cat(outputs))) if outputs else torch.zeros(0)
        kept = [int(number) for number in used.tolist() if number > FIXED]
        table = torch.zeros(len(self.numbers.parent), dtype=torch.int64)
        table[kept] = torch.arange(1, len(kept) + 1)

        def final(x: Tensor) -> Tensor:
            return table[self.numbers.roots(x)]

        layers = [
            ScalableLayer(node=node, layer=layer, inputs=final(i), outputs=final(o))
            for node, layer, i, o in self.found
        ]
        edges = {}
        for node in self.env:
            placed = _by_channel(node, self.of(node), final)
            if placed is not None:
                edges[node] = placed
        clipped = {
            node: (*edges[node], low, high) for node, low, high in self.clips if node in edges
        }
        return ChannelGroups(count=len(kept), layers=layers, edges=edges, clipped=clipped)


def _by_channel(
    node: Node, x: Tensor | None, final: Callable[[Tensor], Tensor]
) -> tuple[int, Tensor] | None:
    """The dimension of channels of a tensor and their groups; None where it holds no group, or no such dimension."""
    if x is None or x.dim() < 2 or x.numel() == 0:
        return None
    groups = final(x)
    if not bool(groups.any()):
        return None
    for axis in (1, x.dim() - 1):
        others = [d for d in range(x.dim()) if d != axis]
        if torch.equal(groups.amax(others), groups.amin(others)):
            return axis, groups.amax(others)
    return None


class _Recorder(fx.Interpreter):
    """Runs the network and keeps the shape of every tensor, and every value that is none."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.shapes: dict[Node, tuple[int, ...]] = {}
        self.others: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        else:
            self.others[n] = result
        return result


__all__ = ["ChannelGroups", "ScalableLayer", "channel_groups"]
