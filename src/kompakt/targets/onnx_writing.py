"""A network as an ONNX model, by the forms of its layers and operators; see ``onnx_emitter``."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from kompakt.errors import TargetError
from kompakt.network import tree
from kompakt.network.network import Network, holds_tensor
from kompakt.network.onnx import source_of
from kompakt.network.operators import arguments, operator_name
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerGroup
from kompakt.quantize.layers import Treated
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.redundant import redundant_activations
from kompakt.targets import onnx_operator_forms, onnx_pool_forms
from kompakt.targets.onnx_emitter import OPSET, Emitter, Form, NoForm
from kompakt.targets.onnx_forms import FORMS
from kompakt.targets.onnx_layer_forms import layer_form
from kompakt.targets.onnx_shape_forms import size_arithmetic
from kompakt.targets.onnx_verbatim import Home, goes_home

_FILL_THE_TABLE = (onnx_operator_forms, onnx_pool_forms)
_SIZES = {operator.add: "Add", operator.sub: "Sub", operator.mul: "Mul", operator.floordiv: "Div"}


def emit_onnx(network: Network) -> ir.Model:
    """Write a frozen (or untouched float) network as ONNX, node by node.

    Args:
        network: Its quantizers, if any, have ranges and its treated layers are frozen.

    Raises:
        NoForm: A call has no form here.
    """
    source = source_of(network)
    home = None if source is None else Home(source, needed_opset(network))
    e = Emitter(network) if home is None else Emitter(network, home.opset)
    redundant = redundant_activations(network)
    specs = iter(network.input_specs)
    for node in network.graph.nodes:
        if node.op == "placeholder":
            e.input(node, next(specs).name)
            if home is not None:
                home.values[str(e.values[node].name)] = e.values[node]
        elif node in redundant:
            e.values[node] = e.values[node.args[0]]
        elif node.op != "output":
            e.emit(node, *_form_of(network, node, home))
    outputs = list(_outputs(e))
    if home is not None and home.opset == home.source.opset and not _is_treated(network):
        home.keep_the_rest(e)
    return e.model(outputs) if home is None else _as_it_was(e.model(outputs), home)


def _is_treated(network: Network) -> bool:
    return any(isinstance(m, Quantizer | Treated) for m in nn.Module.modules(network))


def needed_opset(network: Network) -> int:
    """The lowest opset that can hold a network's formats: 13 for codes of 8 bits, 21 for others, else 1."""
    formats = [m.format for m in nn.Module.modules(network) if isinstance(m, Quantizer)]
    treated = [m.treatment for m in nn.Module.modules(network) if isinstance(m, Treated)]
    formats += [get_format(str(t.weight)) for t in treated]
    grouped = any(isinstance(t.granularity, PerGroup) for t in treated)
    if grouped or any(f.is_small_float or (f.bits != 8 and f.kind == "int") for f in formats):
        return OPSET
    return 13 if formats else 1


def _as_it_was(model: ir.Model, home: Home) -> ir.Model:
    """The model with everything of the file that is not its graph."""
    before = home.model
    model.functions.update(before.functions)
    for domain, version in before.opset_imports.items():
        model.graph.opset_imports.setdefault(domain, version)
    model.metadata_props.update(before.metadata_props)
    model.doc_string, model.graph.doc_string = before.doc_string, before.graph.doc_string
    model.graph.name, model.domain = before.graph.name, before.domain
    model.producer_name, model.producer_version = before.producer_name, before.producer_version
    model.model_version = before.model_version
    model.ir_version = max(int(before.ir_version or 0), 10 if home.opset >= 21 else 8)
    return model


def _form_of(
    network: Network, node: fx.Node, home: Home | None = None
) -> tuple[Form, dict[str, Any]]:
    """The form of a call and the call's arguments by name."""
    if home is not None:
        origin = goes_home(network, node)
        if origin is not None:
            return lambda e, n, a: home.write(e, n, origin), {}
        if "constant" in node.meta:
            name = str(node.meta["constant"])
            return lambda e, n, a: home.constant(e, name), {}
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
        _release(e, spec.name, made)
        made.name = spec.name
        yield made


def _release(e: Emitter, name: str, owner: ir.Value) -> None:
    """Give another name to any other value that has the name of an output."""
    for node in e.nodes:
        for value in node.outputs:
            if value.name == name and value is not owner:
                value.name = e.fresh(f"{name}_before")


def emitted_or_none(network: Network) -> ir.Model | None:
    """The network as ONNX, or None when one of its calls has no form.

    Raises:
        TargetError: K401 when it was imported: what came from a file can only be written here.
    """
    try:
        with torch.no_grad():
            return emit_onnx(network)
    except NoForm as error:
        if source_of(network) is None:
            return None
        raise TargetError("K401", "writing the imported network", why=str(error)) from error
