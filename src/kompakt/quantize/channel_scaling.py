"""Dividing the channels of a tensor by factors inside the layers that make it, so that no operator is added.

What makes the tensor is found by walking back through operators that treat every channel alike: a layer norm or a
linear layer takes the factors into its weight and bias, a product into the weights of one side, attention into the
values it averages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.quantize.linear_groups import parameter_owners

TOLERANCE = 1e-3
"""Largest error of the divided tensor, relative to its norm; a walk that mixed channels up is far off."""
_ALIKE = frozenset({"relu", "leaky_relu", "identity", "dropout"})
_MOVERS = frozenset({"reshape", "transpose"})
_NORMS = frozenset({"layer_norm", "norm"})
_LAYERS = (nn.Linear,)


@dataclass(frozen=True, kw_only=True)
class Makers:
    """What makes the channels of a tensor.

    Attributes:
        layers: Paths of layers whose weight and bias have one row (or one value) for each channel.
        constants: Names of stored tensors with one value for each channel.
        moved: Whether channels were moved on the way, so that their order is to be checked.
    """

    layers: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()
    moved: bool = False

    def __or__(self, other: Makers) -> Makers:
        return Makers(
            layers=self.layers | other.layers,
            constants=self.constants | other.constants,
            moved=self.moved or other.moved,
        )


def makers_of(network: Network, source: Node) -> Makers | None:
    """The layers that can divide the channels of a tensor by factors; None where there are none.

    Args:
        network: The network.
        source: The node that makes the tensor; all its readers are to get the divided one.
    """
    called = Counter(
        str(n.target) for n in network.graph.nodes if n.op in ("call_module", "get_attr")
    )
    owners = parameter_owners(network)
    value = source.meta.get("val")
    channels = value.shape[-1] if isinstance(value, Tensor) else None

    def owned(node: Node) -> bool:
        layer = network.get_submodule(str(node.target))
        weight = getattr(layer, "weight", None)
        return (
            isinstance(weight, Tensor)
            and len(weight) == channels
            and called[str(node.target)] == owners[id(weight)] == 1
        )

    def walk(node: Node) -> Makers | None:
        if node is not source and len(node.users) != 1:
            return None
        kind = kind_of(node)
        if kind == "linear" or kind in _NORMS:
            mine = node.op == "call_module" and owned(node)
            return Makers(layers=frozenset({str(node.target)})) if mine else None
        if node.op == "get_attr":
            fits = _fits(network, node, channels) and called[str(node.target)] == 1
            return Makers(constants=frozenset({str(node.target)})) if fits else None
        return _through(node, kind, walk)

    return walk(source)


def _through(node: Node, kind: str, walk: Callable[[Node], Makers | None]) -> Makers | None:
    """What makes the channels of an operator's result."""
    inputs = [a for a in node.args if isinstance(a, Node)]
    if kind in _ALIKE:
        return walk(inputs[0])
    if kind == "add" and len(inputs) == 2:
        both = [walk(a) for a in inputs]
        return both[0] | both[1] if both[0] is not None and both[1] is not None else None
    if kind == "mul" and len(inputs) == 2:
        return walk(inputs[1]) or walk(inputs[0])
    moved = {"attention": 2, "matmul": 1}.get(kind, 0 if kind in _MOVERS else None)
    if moved is None or len(inputs) <= moved:
        return None
    found = walk(inputs[moved])
    return None if found is None else found | Makers(moved=True)


def fold_(
    network: Network,
    source: Node,
    makers: Makers,
    factors: Tensor,
    sample: tuple[Sequence[Tensor], Tensor],
) -> bool:
    """Divide the channels of a tensor by factors in what makes it, in place.

    Args:
        network: The network.
        source: The node that makes the tensor.
        makers: Its makers, see :func:`makers_of`.
        factors: float32 (C,).
        sample: One batch, and the value of ``source`` on it. Where channels were moved on the way it is looked at
            whether the result is right.

    Returns:
        Whether it was; else nothing was changed.
    """
    inputs, expected = sample
    before = list(_tensors(network, makers))
    for owner, name, tensor in before:
        shape = [-1] + [1] * (tensor.dim() - 1) if isinstance(owner, _LAYERS) else [-1]
        divided = tensor.detach() / factors.reshape(shape)
        if isinstance(tensor, nn.Parameter):
            divided = nn.Parameter(divided, requires_grad=tensor.requires_grad)
        setattr(owner, name, divided)
    if makers.moved and not _is_divided(network, source, inputs, expected, factors):
        for owner, name, tensor in before:
            setattr(owner, name, tensor)
        return False
    for node in network.graph.nodes:
        if node.op == "get_attr" and str(node.target) in makers.constants:
            node.meta.pop("constant", None)  # it is no longer that of the file
    return True


def _tensors(network: Network, makers: Makers) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for path in sorted(makers.layers):
        layer = network.get_submodule(path)
        for name in ("weight", "bias"):
            if isinstance(getattr(layer, name, None), Tensor):
                yield layer, name, getattr(layer, name)
    for target in sorted(makers.constants):
        yield _stored(network, target)


def _is_divided(
    network: Network, source: Node, inputs: Sequence[Tensor], expected: Tensor, factors: Tensor
) -> bool:
    run = fx.Interpreter(network)
    run.args_iter = iter(inputs)
    with torch.no_grad():
        for node in network.graph.nodes:
            run.env[node] = run.run_node(node)
            if node is source:
                break
        error = (run.env[source] * factors - expected).norm()
    return bool(error <= TOLERANCE * expected.norm())


def _fits(network: Network, node: Node, channels: object) -> bool:
    _, _, stored = _stored(network, str(node.target))
    return stored.is_floating_point() and stored.numel() == channels == stored.shape[-1:].numel()


def _stored(network: Network, target: str) -> tuple[nn.Module, str, Tensor]:
    path, _, name = target.rpartition(".")
    owner = network.get_submodule(path)
    stored: Tensor = getattr(owner, name)
    return owner, name, stored


__all__ = ["Makers", "fold_", "makers_of"]
