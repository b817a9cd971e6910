"""A network as an ONNX model, by the forms of its layers and operators; see ``onnx_emitter``."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx

from kompakt.network import tree
from kompakt.network.network import Network, holds_tensor
from kompakt.network.operators import arguments, operator_name
from kompakt.quantize.redundant import redundant_activations
from kompakt.targets.onnx_emitter import Emitter, Form, NoForm
from kompakt.targets.onnx_layer_forms import layer_form
from kompakt.targets.onnx_operator_forms import FORMS, size_arithmetic

_SIZES = {operator.add: "Add", operator.sub: "Sub", operator.mul: "Mul", operator.floordiv: "Div"}


def emit_onnx(network: Network) -> ir.Model:
    """Write a frozen (or untouched float) network as ONNX, node by node.

    Args:
        network: Its quantizers, if any, have ranges and its treated layers are frozen.

    Raises:
        NoForm: A call has no form here.
    """
    e = Emitter(network)
    redundant = redundant_activations(network)
    specs = iter(network.input_specs)
    for node in network.graph.nodes:
        if node.op == "placeholder":
            e.input(node, next(specs).name)
        elif node in redundant:
            e.values[node] = e.values[node.args[0]]
        elif node.op != "output":
            e.emit(node, *_form_of(network, node))
    return e.model(list(_outputs(e)))


def _form_of(network: Network, node: fx.Node) -> tuple[Form, dict[str, Any]]:
    """The form of a call and the call's arguments by name."""
    if node.op == "get_attr":
        return _stored, {}
    if node.op == "call_module":
        if not node.args:
            raise NoForm(f"{node.name} is called by keywords")
        layer = network.get_submodule(str(node.target))
        return layer_form(layer), {"input": node.args[0], **node.kwargs}
    if node.target is operator.getitem:
        return _item, {}
    if node.target in _SIZES:
        return size_arithmetic(_SIZES[node.target]), {}
    name = operator_name(node)
    if name not in FORMS:
        raise NoForm(f"no form for {name or node.target}")
    return FORMS[name], arguments(node)


def _stored(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    found: Any = e.network
    for part in str(node.target).split("."):
        found = getattr(found, part)
    if not isinstance(found, Tensor):
        raise NoForm(f"{node.target} is no tensor")
    return e.tensor(str(node.target), found)


def _item(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    source, index = node.args
    assert isinstance(source, fx.Node)
    whole = e.values[source]
    if not isinstance(whole, list) or not isinstance(index, int):
        raise NoForm("an item of something that is no list")
    return whole[index]


def _outputs(e: Emitter) -> Iterator[ir.Value]:
    """The outputs by the network's names; an input or a value handed out twice gets a copy."""
    leaves = tree.flatten(e.network.graph.output_node().args[0])[0]
    taken: set[int] = {id(v) for v in e.initializers.values()}
    for leaf, spec in zip(
        (leaf for leaf in leaves if holds_tensor(leaf)), e.network.output_specs, strict=True
    ):
        made = e.values[leaf]
        if made.producer() is None or id(made) in taken:
            copy = ir.node("Identity", [made])
            copy.outputs[0].shape, copy.outputs[0].type = made.shape, made.type
            e.nodes.append(copy)
            made = copy.outputs[0]
        taken.add(id(made))
        made.name = spec.name
        yield made


def emitted_or_none(network: Network) -> ir.Model | None:
    """The network as ONNX, or None when one of its calls has no form."""
    try:
        with torch.no_grad():
            return emit_onnx(network)
    except NoForm:
        return None
