"""The layers of a network as a table: what each is, holds and costs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from kompakt.network.cost import SizeReader, macs_of, storage_of
from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.network import Network


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One layer, one product of activations, or one loose parameter.

    Attributes:
        name: Dotted name; for operators without parameters, their site.
        kind: One of :data:`kompakt.network.kinds.KINDS`.
        module_type: Class name of the layer, the operator's name, or ``Parameter``.
        nodes: Names of the graph nodes: several when a layer is called more than once.
        parameters: Number of parameters (a tied parameter counts in each layer that holds it).
        bytes: What they take in memory.
        macs: Multiply-accumulate operations for one sample, all calls together.
        input_shape: Shape of the (first) input of the first call; dynamic dimensions by name.
        output_shape: Shape of the (first) output of the first call.
    """

    name: str
    kind: str
    module_type: str
    nodes: tuple[str, ...]
    parameters: int
    bytes: int
    macs: int
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Totals:
    """A whole network: parameters (tied ones once), their bytes, and MACs for one sample."""

    parameters: int
    bytes: int
    macs: int


def layers(network: Network) -> list[LayerInfo]:
    """Every layer, product and loose parameter of ``network``, in execution order."""
    sizes = SizeReader(network)
    groups: dict[str, list[fx.Node]] = {}
    for node in network.graph.nodes:
        name = _row_name(node, sizes)
        if name:
            groups.setdefault(name, []).append(node)
    return [_row(name, nodes, sizes) for name, nodes in groups.items()]


def totals(network: Network) -> Totals:
    """Sums over the whole network."""
    sizes = SizeReader(network)
    parameters = list(nn.Module.parameters(network))
    return Totals(
        parameters=sum(p.numel() for p in parameters),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
        macs=sum(macs_of(node, sizes) for node in network.graph.nodes),
    )


def _row_name(node: fx.Node, sizes: SizeReader) -> str:
    if node.op == "call_module":
        return str(node.target)
    if node.op == "get_attr":
        return str(node.target) if isinstance(_attribute(node), nn.Parameter) else ""
    if node.op == "call_function" and macs_of(node, sizes) > 0:
        return str(node.meta["site"])
    return ""


def _row(name: str, nodes: list[fx.Node], sizes: SizeReader) -> LayerInfo:
    first = nodes[0]
    layer = layer_of(first)
    holder = layer if layer is not None else _holder(first)
    parameters, size_bytes = storage_of(holder)
    source = next(iter(first.all_input_nodes), None)
    return LayerInfo(
        name=name,
        kind=kind_of(first),
        module_type=_type_name(first, layer),
        nodes=tuple(node.name for node in nodes),
        parameters=parameters,
        bytes=size_bytes,
        macs=sum(macs_of(node, sizes) for node in nodes),
        input_shape=sizes.named(source) if source is not None else (),
        output_shape=sizes.named(first),
    )


def _type_name(node: fx.Node, layer: nn.Module | None) -> str:
    if layer is not None:
        return type(layer).__name__
    if node.op == "get_attr":
        return "Parameter"
    return str(getattr(node.target, "overloadpacket", node.target))


def _holder(node: fx.Node) -> nn.Module:
    """A module with the loose parameter of a ``get_attr`` node, or with nothing."""
    attribute = _attribute(node) if node.op == "get_attr" else None
    return nn.ParameterList([attribute] if isinstance(attribute, nn.Parameter) else [])


def _attribute(node: fx.Node) -> object:
    owner = node.graph.owning_module
    path, _, name = str(node.target).rpartition(".")
    return getattr(owner.get_submodule(path), name) if owner is not None else None
