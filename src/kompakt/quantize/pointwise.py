"""Functions of one number between two layers: found in the graph, whatever operators they are made of.

A GELU may be one operator or the five of its formula; what counts is that every value depends on one value of the
layer before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.network.operators import operator_name

KINDS = frozenset(
    {
        *(
            "relu",
            "relu6",
            "leaky_relu",
            "sigmoid",
            "tanh",
            "gelu",
            "silu",
            "hardswish",
            "identity",
        ),
        *("hardsigmoid", "clamp", "mul", "mul_scalar", "add", "add_scalar", "sub", "sub_scalar"),
        *("div", "div_scalar", "dropout"),
    }
)
OPERATORS = frozenset({"aten.erf", "aten.pow", "aten.exp", "aten.neg"})


@dataclass(frozen=True, kw_only=True)
class Pointwise:
    """A layer and the function of one number behind it.

    Attributes:
        layer: The call of a linear layer.
        bias: The addition of a stored bias behind it, or None.
        nodes: The function's operators in graph order; the last one is its result.
    """

    layer: Node
    bias: Node | None
    nodes: tuple[Node, ...]

    @property
    def start(self) -> Node:
        """The node whose values the function is given."""
        return self.bias or self.layer


def pointwise_before(network: Network, end: Node) -> Pointwise | None:
    """The linear layer whose outputs alone decide the values of ``end``, one by one; None where there is none."""
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    found: set[Node] = set()
    starts: set[Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node in found or node in starts or _is_number(network, node):
            continue
        if _is_biased(network, node) or kind_of(node) == "linear":
            starts.add(node)
        elif kind_of(node) in KINDS or operator_name(node) in OPERATORS:
            found.add(node)
            waiting.extend(node.all_input_nodes)
        else:
            return None
    if len(starts) != 1 or not found:
        return None
    start = starts.pop()
    biased = _is_biased(network, start)
    layer = start.args[0] if biased else start
    inside = {*found, start}
    leaks = [n for n in (*found, start) if n is not end and not set(n.users) <= inside]
    if leaks or not isinstance(layer, Node) or (biased and len(layer.users) != 1):
        return None
    nodes = tuple(sorted(found, key=order.__getitem__))
    return Pointwise(layer=layer, bias=start if biased else None, nodes=nodes)


def apply_pointwise(network: Network, function: Pointwise, x: Tensor) -> Tensor:
    """The function of every value of ``x``; same shape."""
    run = fx.Interpreter(network)
    run.env[function.start] = x
    for node in function.nodes:
        for source in node.all_input_nodes:
            if source not in run.env:
                run.env[source] = run.run_node(source)
        run.env[node] = run.run_node(node)
    result: Tensor = run.env[function.nodes[-1]]
    return result


def join_bias_(network: Network, function: Pointwise) -> Node:
    """Move a bias that is added behind the layer into the layer, in place; returns the layer's call."""
    if function.bias is None:
        return function.layer
    layer = network.get_submodule(str(function.layer.target))
    stored = _stored_bias(network, function.bias)
    assert stored is not None
    layer.bias = nn.Parameter(stored.detach().clone().reshape(-1), requires_grad=False)
    function.bias.replace_all_uses_with(function.layer)
    function.layer.meta.pop("onnx", None)
    network.graph.erase_node(function.bias)
    return function.layer


def _is_number(network: Network, node: Node) -> bool:
    return node.op == "get_attr" and _constant(network, node).numel() == 1


def _is_biased(network: Network, node: Node) -> bool:
    return _stored_bias(network, node) is not None


def _stored_bias(network: Network, node: Node) -> Tensor | None:
    """What an addition adds to each output of a linear layer without a bias of its own."""
    if kind_of(node) != "add" or len(node.args) != 2:
        return None
    layer, stored = node.args
    if not isinstance(layer, Node) or not isinstance(stored, Node) or stored.op != "get_attr":
        return None
    if kind_of(layer) != "linear" or layer.op != "call_module":
        return None
    module = network.get_submodule(str(layer.target))
    constant = _constant(network, stored)
    fits = constant.numel() == constant.shape[-1:].numel() == getattr(module, "out_features", -1)
    return constant if fits and getattr(module, "bias", None) is None else None


def _constant(network: Network, node: Node) -> Tensor:
    owner, _, name = str(node.target).rpartition(".")
    value: Tensor = getattr(network.get_submodule(owner), name)
    return value


__all__: Sequence[str] = ["Pointwise", "apply_pointwise", "join_bias_", "pointwise_before"]
