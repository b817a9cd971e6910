"""An ONNX file as a Network.

Nodes with weights become layers under the node's (or its output's) name, known operators ATen calls, and every other
node an :class:`~kompakt.network.onnx.opaque.OpaqueNode`. Each call remembers the node it came from
(:class:`~kompakt.network.onnx.origin.Origin`), so the file can be written back with everything that was not treated
as it was. The result is run beside ONNX Runtime on an example: what differs is never returned silently.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from kompakt.errors import CaptureError, KompaktError
from kompakt.network import tree
from kompakt.network.interface import Interface, TensorSpec
from kompakt.network.network import Network
from kompakt.network.onnx.calls import FORMS, SEVERAL
from kompakt.network.onnx.example import checked_example
from kompakt.network.onnx.facts import Facts
from kompakt.network.onnx.fixing import with_fixed_inputs
from kompakt.network.onnx.layers import Layer, layer_from
from kompakt.network.onnx.names import Names, identifier
from kompakt.network.onnx.opaque import OpaqueNode, one_node_model
from kompakt.network.onnx.origin import Origin
from kompakt.network.onnx.reader import Call, NodeReader, item, sequence_of
from kompakt.network.onnx.shapes import Shapes
from kompakt.network.onnx.source import OnnxSource
from kompakt.network.onnx.untrusted import checked_file

QUANTIZED = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
        *("QLinearMatMul", "MatMulInteger", "ConvInteger", "MatMulNBits", "QGemm", "QAttention"),
        *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool"),
        *("QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"),
        *("GatherBlockQuantized", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
        *("DynamicQuantizeLSTM", "QEmbedLayerNormalization", "MatMulBnb4", "FakeQuantize"),
    }
)


def import_onnx(
    path: str | Path,
    example_inputs: Mapping[str, Any] | None = None,
    *,
    fixed: Mapping[str, float] | None = None,
) -> Network:
    """Read an ONNX file as a :class:`Network`.

    The file is not trusted: :func:`~kompakt.network.onnx.untrusted.checked_file` looks at it first, and what is read
    is the private copy that was looked at.

    Args:
        path: The model file; weights in files beside it are mapped, not copied.
        example_inputs: Arrays or tensors by input name, for checking the network against ONNX Runtime. Without
            them small inputs are made up.
        fixed: Inputs to turn into constants, with their values; an ``If`` they decide becomes the branch taken.

    Raises:
        CaptureError: K121 when the file is quantized already, K122 when it has no tensors to work on, K123 when the
            network does not compute what ONNX Runtime computes, K124 when the example does not run, K125 for an
            input that cannot be fixed, K140–K146 when the file is damaged or hostile.
    """
    copy = checked_file(Path(path))
    source = OnnxSource.read(copy.path, copy)
    try:
        return _network_of(source, example_inputs, fixed or {})
    except (KompaktError, MemoryError):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise CaptureError("K122", f"importing {source.name}", why=why) from error


def _network_of(
    source: OnnxSource, example_inputs: Mapping[str, Any] | None, fixed: Mapping[str, float]
) -> Network:
    if fixed:
        source = with_fixed_inputs(source, fixed)
    facts = Facts(source)
    refuse_quantized(facts.model, source.name)
    importer = _Importer(source, facts)
    return checked_example(importer.run(), source, example_inputs, importer.shapes)


def refuse_quantized(model: ir.Model, name: str) -> None:
    """Raise K121 when a model holds quantized operators already."""
    found = Counter(n.op_type for n in model.graph.all_nodes() if n.op_type in QUANTIZED)
    if found:
        listed = ", ".join(f"{count} {op}" for op, count in found.most_common(3))
        raise CaptureError(
            "K121",
            f"compressing {name}",
            why=f"it is quantized already: it holds {listed}",
            help=f"give the float model it was made from; `kompakt measure {name} --data D` measures it as it is",
        )


class _Importer:
    """Builds one network."""

    def __init__(self, source: OnnxSource, facts: Facts) -> None:
        self.source, self.facts = source, facts
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.values: dict[str, fx.Node] = {}
        self.shapes = Shapes(facts)
        self.names = Names()
        self.tied: dict[tuple[str, bool], nn.Parameter] = {}
        self.opaque: Counter[str] = Counter()

    def run(self) -> Network:
        inputs = list(self.facts.model.graph.inputs)
        signature = _signature(inputs)
        for value, parameter in zip(inputs, signature.parameters, strict=True):
            if self.facts.dtype(value) is None:
                raise CaptureError(
                    "K122", f"the input {value.name!r} of {self.source.name}", why="it is no tensor"
                )
            node = self.graph.placeholder(parameter)
            self._note(node, value, site=str(value.name))
        for onnx_node in self.facts.model.graph:
            self._add(onnx_node)
        outputs = [self._output(value) for value in self.facts.model.graph.outputs]
        self.graph.output(outputs)
        return self._network(signature, inputs, outputs)

    # One node

    def _add(self, node: ir.Node) -> None:
        if all(o.name in self.facts.constants for o in node.outputs if o.name):
            return  # known now: written back when somebody reads it
        reader = NodeReader(node, self.facts, _Readable(self))
        layer = layer_from(reader)
        if layer is not None:
            self._add_layer(reader, layer)
            return
        standard = node.domain in ("", "ai.onnx")
        form = FORMS.get(node.op_type) if standard else None
        typed = all(self.facts.dtype(o) is not None for o in node.outputs if o.name)
        call = form(reader) if form is not None and typed else None
        if call is not None:
            self._add_call(node, call)
        else:
            self._add_opaque(node)

    def _add_layer(self, n: NodeReader, layer: Layer) -> None:
        path = self.names.path(n.node)
        for attribute, (name, tensor) in layer.tensors.items():
            self._fill(layer.module, attribute, name, tensor, layer.parameters[name][1])
        _add_module(self.root, path, layer.module.eval())
        argument = n.x(layer.argument)
        assert argument is not None
        call = self.graph.call_module(path, (argument,))
        self._finish(n.node, call, [str(n.given(layer.argument).name)], layer.parameters, path)  # type: ignore[union-attr]

    def _fill(
        self, module: nn.Module, attribute: str, name: str, tensor: Tensor, transposed: bool
    ) -> None:
        if attribute in module._buffers:
            module._buffers[attribute] = tensor
            return
        key = (name, transposed)
        if key not in self.tied:
            self.tied[key] = nn.Parameter(tensor)
        module._parameters[attribute] = self.tied[key]

    def _add_call(self, node: ir.Node, call: Call) -> None:
        made = self.graph.call_function(call.target, call.args, call.kwargs)
        by_node = {id(n): name for name, n in self.values.items()}
        read = [by_node[id(n)] for n in sequence_of([call.args, call.kwargs])]
        self._finish(node, made, read, {}, self.names.path(node))

    def _add_opaque(self, node: ir.Node) -> None:
        content, names = one_node_model(node, self.facts, self.source)
        path = self.names.path(node)
        count = sum(bool(o.name) for o in node.outputs)
        _add_module(self.root, path, OpaqueNode(content, names, node.op_type, count))
        readable = _Readable(self)
        call = self.graph.call_module(path, tuple(readable[name] for name in names))
        self.opaque[node.op_type] += 1
        self._finish(node, call, names, {}, path)

    def _finish(
        self,
        node: ir.Node,
        call: fx.Node,
        arguments: list[str],
        parameters: Mapping[str, tuple[str, bool]],
        site: str,
    ) -> None:
        outputs = [o for o in node.outputs if o.name]
        call.meta["onnx"] = Origin(
            outputs=tuple(str(o.name or "") for o in node.outputs),
            arguments=tuple(arguments),
            parameters=dict(parameters),
            op_type=node.op_type,
        )
        several = len(outputs) > 1 or node.op_type in SEVERAL
        if not several:
            self._note(call, outputs[0], site)
            return
        call.meta.update(site=site, val=[self.shapes.fake(o) for o in outputs])
        for place, output in enumerate(outputs):
            part = item(call, place)
            made = self.graph.call_function(part.target, part.args)
            self._note(made, output, f"{site}.{place}")

    def _note(self, node: fx.Node, value: ir.Value, site: str) -> None:
        node.meta.update(site=site, val=self.shapes.fake(value))
        self.values[str(value.name)] = node

    def constant(self, name: str) -> fx.Node | None:
        """A constant as a buffer that calls can read, or None when it is not known."""
        value = self.facts.model.graph.initializers.get(name)
        content = self.facts.constants.get(name)
        if content is None:
            content = None if value is None else self.facts.constant(value)
        if content is None or content.dtype.kind not in "fiub":
            return None
        tensor = torch.from_numpy(content.copy(order="C"))
        attribute = self.names.attribute(name)
        self.root.register_buffer(attribute, tensor)
        node = self.graph.get_attr(attribute)
        node.meta.update(site=attribute, val=self.shapes.fake_constant(tensor), constant=name)
        self.values[name] = node
        return node

    def _output(self, value: ir.Value) -> fx.Node:
        node = self.values.get(str(value.name)) or self.constant(str(value.name))
        if node is None or not isinstance(node.meta.get("val"), Tensor):
            raise CaptureError(
                "K122", f"the output {value.name!r} of {self.source.name}", why="it is no tensor"
            )
        return node

    # The whole

    def _network(
        self, signature: inspect.Signature, inputs: list[ir.Value], outputs: list[fx.Node]
    ) -> Network:
        structure = tree.flatten(dict.fromkeys(signature.parameters, 0))[1]
        names = [str(o.name) for o in self.facts.model.graph.outputs]
        result: Any = outputs[0] if len(outputs) == 1 else dict(zip(names, outputs, strict=True))
        specs = tuple(self._spec(v) for v in inputs)
        interface = Interface(
            signature=signature,
            input_structure=structure,
            constants={},
            leaf_names=tuple(signature.parameters),
            input_specs=specs,
            output_structure=tree.flatten(result)[1],
            output_specs=tuple(self._spec(v) for v in self.facts.model.graph.outputs),
            ranges={},
            example=(),
            original_class=f"ONNX file {self.source.name}",
            notes=self._notes(),
        )
        network = Network(self.root.eval(), self.graph, interface)
        network.meta["onnx"] = self.source
        return network

    def _spec(self, value: ir.Value) -> TensorSpec:
        dtype = self.facts.dtype(value)
        assert dtype is not None
        return TensorSpec(str(value.name), self.shapes.named(value), dtype)

    def _notes(self) -> tuple[str, ...]:
        if not self.opaque:
            return ()
        listed = ", ".join(f"{count} {op}" for op, count in self.opaque.most_common())
        return (f"kept as they are and run by ONNX Runtime: {listed}",)


class _Readable(dict[str, fx.Node]):
    """The fx nodes of values by name; constants come into being when they are read."""

    def __init__(self, importer: _Importer) -> None:
        super().__init__()
        self.importer = importer

    def get(self, name: str, default: Any = None) -> Any:
        """The node, or ``default``."""
        found = self.importer.values.get(name)
        return found or self.importer.constant(name) or default

    def __missing__(self, name: str) -> fx.Node:
        found = self.get(name)
        if found is None:
            raise CaptureError(
                "K122",
                f"the value {name!r} of {self.importer.source.name}",
                why="nothing in the graph makes it",
            )
        assert isinstance(found, fx.Node)
        return found


def _signature(inputs: list[ir.Value]) -> inspect.Signature:
    names: list[str] = []
    for place, value in enumerate(inputs):
        name = identifier(str(value.name), f"input_{place}")
        name = (
            f"input_{name[1:]}"
            if re.match("n[0-9]", name) and not str(value.name).startswith("n")
            else name
        )
        while name in names:
            name += "_"
        names.append(name)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def _add_module(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root._modules[parent]  # type: ignore[assignment]
    root.add_module(name, module)
