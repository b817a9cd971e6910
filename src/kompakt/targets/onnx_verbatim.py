"""Nodes of an imported file, written back as they were.

A call that came from an ONNX node (see ``network.onnx``) is written as that very node: operator, attributes,
subgraphs, names and metadata stay; only its inputs are connected to what the network now computes. Nodes that the
network does not hold (constants, shape arithmetic known while importing) are brought along when somebody reads them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from torch import Tensor, fx, nn

from kompakt.errors import TargetError
from kompakt.network.network import Network
from kompakt.network.onnx import OnnxSource, Origin, origin_of
from kompakt.quantize.layers import Treated
from kompakt.targets.onnx_emitter import Emitter

CONVERSION_SECONDS = 120


class Home:
    """The file an imported network goes back to.

    Args:
        source: The file.
        opset: The version of the standard operators to write; the file's own, or a higher one.
    """

    def __init__(self, source: OnnxSource, opset: int) -> None:
        self.source = source
        self.model = _raised(source, opset) if opset > source.opset else source.model()
        self.opset = max(opset, source.opset)
        self.model.graph.outputs.clear()  # values move to the new graph
        self.values: dict[str, ir.Value] = {}
        self._producers = {
            str(output.name): node for node in self.model.graph for output in node.outputs
        }
        self._initializers: dict[str, ir.Value] = {}

    def write(self, e: Emitter, node: fx.Node, origin: Origin) -> Any:
        """Write the node a call came from; returns its value, or a list of values."""
        first = next(name for name in origin.outputs if name)
        arguments: list[fx.Node] = []
        fx.node.map_arg((node.args, node.kwargs), arguments.append)
        read = {
            name: e.values[argument]
            for name, argument in zip(origin.arguments, arguments, strict=True)
        }
        read |= self._parameters(e, node, origin)
        made = self._bring(e, first, read)
        self._add_bias(e, node, origin, made)
        outputs = [o for o in made.outputs if o.name]
        for output in outputs:
            self.values[str(output.name)] = output
        several = isinstance(node.meta.get("val"), list)
        return outputs if several else outputs[0]

    def initializer(self, e: Emitter, name: str) -> ir.Value:
        """A constant of the file, under its own name."""
        if name not in self._initializers:
            given = self.model.graph.initializers[name]
            self._initializers[name] = ir.Value(
                name=name, shape=given.shape, type=given.type, const_value=given.const_value
            )
            e.initializers[name] = self._initializers[name]
        return self._initializers[name]

    def constant(self, e: Emitter, name: str) -> ir.Value:
        """A constant of the file: an initializer, or what a node makes of others."""
        if name in self.model.graph.initializers:
            return self.initializer(e, name)
        if name not in self.values:
            self._bring(e, name, {})
        return self.values[name]

    def keep_the_rest(self, e: Emitter) -> None:
        """Keep the file's initializers that no node reads."""
        for name in self.model.graph.initializers:
            if name not in e.initializers:
                self.initializer(e, name)

    def _bring(self, e: Emitter, output: str, read: Mapping[str, ir.Value]) -> ir.Node:
        """Move the node that makes a value into the new graph, and what it reads before it."""
        node = self._producers[output]
        for place, value in enumerate(node.inputs):
            if value is not None and value.name:
                node.replace_input_with(place, self._resolve(e, value, read))
        for inner, place, value in list(_outer_reads(node)):
            inner.replace_input_with(place, self._resolve(e, value, read))
        if node.graph is not None:
            node.graph.remove(node)
        e.nodes.append(node)
        for made in node.outputs:
            self.values.setdefault(str(made.name), made)
        return node

    def _resolve(self, e: Emitter, value: ir.Value, read: Mapping[str, ir.Value]) -> ir.Value:
        name = str(value.name)
        if name in read:
            return read[name]
        if name in self.values:
            return self.values[name]
        if name in self.model.graph.initializers:
            return self.initializer(e, name)
        if name not in self._producers:
            raise TargetError(
                "K401", f"writing {self.source.name}", why=f"nothing makes the value {name!r}"
            )
        made = self._bring(e, name, {})
        return next(o for o in made.outputs if o.name == name)

    def _parameters(self, e: Emitter, node: fx.Node, origin: Origin) -> dict[str, ir.Value]:
        """The current weights of a layer, under the names they have in the file."""
        if not origin.parameters:
            return {}
        layer = e.network.get_submodule(str(node.target))
        found = {}
        for name, (attribute, transposed) in origin.parameters.items():
            tensor: Tensor = getattr(layer, attribute)
            found[name] = e.tensor(name, tensor, transposed=transposed)
        return found

    def _add_bias(self, e: Emitter, node: fx.Node, origin: Origin, made: ir.Node) -> None:
        """Give the node the bias its layer got from a batch norm behind it."""
        if node.op != "call_module":
            return
        layer = e.network.get_submodule(str(node.target))
        bias = getattr(layer, "bias", None)
        had = any(attribute == "bias" for attribute, _ in origin.parameters.values())
        if (
            isinstance(bias, Tensor)
            and not had
            and made.op_type in ("Conv", "ConvTranspose", "Gemm")
        ):
            made.resize_inputs(3)
            made.replace_input_with(2, e.tensor(f"{node.target}.bias", bias))


def goes_home(network: Network, node: fx.Node) -> Origin | None:
    """The origin of a call that is written as the node it came from; None for one that is written anew."""
    origin = origin_of(node)
    if origin is None or node.op != "call_module":
        return origin
    layer = network.get_submodule(str(node.target))
    if isinstance(layer, Treated) and layer.stage != "off":
        return None
    # A product has no place for a bias that a batch norm left behind.
    grown = origin.op_type == "MatMul" and isinstance(layer, nn.Linear) and layer.bias is not None
    return None if grown else origin


def _outer_reads(node: ir.Node) -> Iterator[tuple[ir.Node, int, ir.Value]]:
    """Where the subgraphs of a node read values from outside: inner node, place, value."""
    own: set[int] = set()
    inner = []
    for attribute in node.attributes.values():
        for graph in _graphs(attribute):
            own |= {id(v) for v in graph.inputs} | {id(v) for v in graph.initializers.values()}
            for part in graph.all_nodes():
                inner.append(part)
                own |= {id(o) for o in part.outputs}
                for deeper in part.attributes.values():
                    for subgraph in _graphs(deeper):
                        own |= {id(v) for v in subgraph.inputs}
                        own |= {id(v) for v in subgraph.initializers.values()}
    for part in inner:
        for place, value in enumerate(part.inputs):
            if value is not None and value.name and id(value) not in own:
                yield part, place, value


def _graphs(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []


_CONVERT = """
import sys, onnx, onnx.version_converter
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[4]), int(sys.argv[4])))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
model = onnx.load(sys.argv[1], load_external_data=False)
named = {i.name for i in model.graph.initializer}
kept = [v for v in model.graph.input if v.name not in named]
model.ir_version = max(model.ir_version, 8)
converted = onnx.version_converter.convert_version(model, int(sys.argv[3]))
kept = [v for v in converted.graph.input if v.name not in {i.name for i in converted.graph.initializer}]
del converted.graph.input[:]
converted.graph.input.extend(kept)
open(sys.argv[2], "wb").write(converted.SerializeToString())
"""


def _raised(source: OnnxSource, opset: int) -> ir.Model:
    """The file with its standard operators in a newer version.

    onnx's converter crashes on some malformed files, so it runs in a process of its own.
    """
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(source.content)
        memory = (2 << 30) + 20 * len(source.content)
        run = subprocess.run(
            [sys.executable, "-c", _CONVERT, str(before), str(after), str(opset), str(memory)],
            capture_output=True,
            text=True,
            timeout=CONVERSION_SECONDS,
            check=False,
        )
        if run.returncode or not after.exists():
            lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
            raise TargetError(
                "K406",
                f"raising {source.name} from opset {source.opset} to {opset}",
                why=lines[-1],
                help=f"export the model again with opset {opset}",
            )
        model = ir.from_proto(onnx.load_model_from_string(after.read_bytes()))
    ir.external_data.set_base_dir(model.graph, source.folder)
    return model
