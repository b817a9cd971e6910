"""A network as a TFLite file, by the forms of its layers and operators; see ``litert_emitter``."""

from __future__ import annotations

import importlib.metadata
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

import kompakt.targets.litert_moving_forms  # noqa: F401  (registers forms)
from kompakt.errors import TargetError
from kompakt.network import tree
from kompakt.network.network import Network, holds_tensor
from kompakt.network.operators import arguments, operator_name, value
from kompakt.quantize.place import is_quantizer_call
from kompakt.targets.litert_emitter import (
    Emitter,
    Form,
    Grid,
    NoForm,
    Order,
    TensorRow,
    Value,
    channels_last,
    dtype_name,
    plain,
)
from kompakt.targets.litert_layer_forms import Skipped, is_absorbed, layer_form
from kompakt.targets.litert_operator_forms import FORMS
from kompakt.targets.litert_schema import pack
from kompakt.targets.litert_session import CODES


@dataclass(frozen=True, kw_only=True)
class TfliteFile:
    """A written file and what is known about its tensors.

    Attributes:
        content: The bytes.
        codes: For each site, the name of the tensor that holds its codes.
        orders: For tensors that are not stored in the network's order, the order they are in.
        operators: How often each operator occurs.
    """

    content: bytes
    codes: dict[str, str]
    orders: dict[str, Order]
    operators: dict[str, int]


def emit_tflite(network: Network, *, integer_io: bool = False, last_io: bool = False) -> TfliteFile:
    """Write a frozen (or untouched float) network as TFLite.

    Args:
        network: Its quantizers, if any, have ranges and its treated layers are frozen.
        integer_io: Inputs and outputs hold codes where a quantizer follows or precedes them.
        last_io: Images come in and go out with their channels last.

    Raises:
        TargetError: K401 when an operator has no form in TFLite.
    """
    with torch.no_grad():
        return _Walk(network, integer_io=integer_io, last_io=last_io).file()


class _Walk:
    def __init__(self, network: Network, *, integer_io: bool, last_io: bool) -> None:
        self.network, self.e = network, Emitter(network)
        self.integer_io, self.last_io = integer_io, last_io
        specs = (*network.input_specs, *network.output_specs)
        self.e.reserved.update(spec.name for spec in specs)
        self.orders: dict[str, Order] = {}

    def file(self) -> TfliteFile:
        inputs = iter(self.network.input_specs)
        fed = []
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                fed.append(self._input(node, next(inputs).name))
            elif node.op != "output" and node not in self.e.values:
                self._call(node)
        outputs = [v.tensor for v in self._outputs()]
        e = self.e
        names = {
            site: e.tensors[index].name + (CODES if index in outputs else "")
            for site, index in e.codes.items()
        }
        tool = f"kompakt {importlib.metadata.version('kompakt')}"
        # Firmware calls the only graph there is; applications and other tools ask for a signature.
        signature = "" if self.integer_io else "serving_default"
        content = pack(e.tensors, e.operators, fed, outputs, tool, signature)
        counts: dict[str, int] = {}
        for row in e.operators:
            counts[row.name] = counts.get(row.name, 0) + 1
        return TfliteFile(
            content=content, codes=names, orders=self._orders(names), operators=counts
        )

    def _input(self, node: fx.Node, name: str) -> int:
        e, fake = self.e, value(node)
        e.stem = name
        grid = e.grid_behind(node) if self.integer_io else None
        order = channels_last(fake.dim()) if self._swaps(fake) else plain(fake.dim())
        e.reserved.discard(name)
        made = e.new(fake.shape, order, grid=grid, dtype=dtype_name(fake.dtype), name=name)
        e.values[node] = made
        self._note(made)
        return made.tensor

    def _swaps(self, fake: Tensor) -> bool:
        return self.last_io and fake.dim() == 4 and fake.is_floating_point()

    def _call(self, node: fx.Node) -> None:
        e = self.e
        e.stem = str(node.meta.get("site", node.name))
        if is_absorbed(node):
            e.values[node] = Skipped()
            return
        try:
            form, given = self._form_of(node)
            result = form(e, node, given)
        except NoForm as missing:
            raise TargetError(
                "K401",
                f"writing {e.stem} for LiteRT",
                where=str(node.target),
                why=str(missing),
                help="replace the operator in the model, or choose another target",
            ) from missing
        e.values[node] = result
        if node in e.fused:
            e.values[e.fused[node]] = result

    def _note(self, made: Value) -> None:
        self.e.orders.setdefault(made.tensor, made.order)

    def _form_of(self, node: fx.Node) -> tuple[Form, dict[str, Any]]:
        if node.op == "get_attr":
            return _stored, {}
        if node.op == "call_module":
            if not node.args:
                raise NoForm(f"{node.name} is called by keywords")
            layer = self.network.get_submodule(str(node.target))
            return layer_form(layer), {"input": node.args[0], **node.kwargs}
        if node.target is operator.getitem:
            return _item, {}
        name = operator_name(node)
        if name in FORMS:
            return FORMS[name], arguments(node)
        if not isinstance(value(node), Tensor):
            return _size, {}
        raise NoForm(f"there is no form for {name or node.target}")

    def _outputs(self) -> list[Value]:
        e = self.e
        leaves = tree.flatten(self.network.graph.output_node().args[0])[0]
        taken = {index for index, row in enumerate(e.tensors) if row.content is not None}
        taken |= {e.values[n].tensor for n in self.network.graph.nodes if n.op == "placeholder"}
        made = []
        for leaf, spec in zip(
            (leaf for leaf in leaves if holds_tensor(leaf)), self.network.output_specs, strict=True
        ):
            found = self._output(leaf, taken)
            taken.add(found.tensor)
            e.tensors[found.tensor].name = spec.name
            self._note(found)
            made.append(found)
        return made

    def _output(self, leaf: fx.Node, taken: set[int]) -> Value:
        e, fake = self.e, value(leaf)
        order = channels_last(fake.dim()) if self._swaps(fake) else plain(fake.dim())
        found = e.get(leaf, order)
        if not (self.integer_io and is_quantizer_call(self.network, leaf)):
            found = e.as_float(found)
        if found.tensor not in taken:
            return found
        row = e.tensors[found.tensor]
        twin = TensorRow(e.fresh("copy"), row.shape, row.signature, row.dtype, row.quantization)
        copy = Value(e.row(twin), found.order, found.grid, found.dtype)
        sizes = list(row.signature or row.shape)
        e.reshape(found, copy, [None if n < 0 else n for n in sizes])
        return copy

    def _orders(self, codes: dict[str, str]) -> dict[str, Order]:
        wanted = {*codes.values(), *(s.name for s in self.network.input_specs)}
        wanted |= {s.name for s in self.network.output_specs}
        named = {self.e.tensors[index].name: order for index, order in self.e.orders.items()}
        return {
            name: order
            for name, order in named.items()
            if name in wanted and order != plain(len(order))
        }


def _stored(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    found: Any = e.network
    for part in str(node.target).split("."):
        found = getattr(found, part)
    if not isinstance(found, Tensor):
        raise NoForm(f"{node.target} is no tensor")
    return e.stored(str(node.target), found)


def _item(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    source, index = node.args
    assert isinstance(source, fx.Node)
    whole = e.values[source]
    if not isinstance(whole, list) or not isinstance(index, int):
        raise NoForm("an item of something that is no list")
    found = whole[index]
    assert isinstance(found, Value)
    return found


def _size(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Skipped:
    """A symbolic size: shapes are read from what the network recorded, not computed in the file."""
    return Skipped()


__all__ = ["Grid", "TfliteFile", "emit_tflite"]
