"""Nodes that have no form in PyTorch: each runs in ONNX Runtime, alone, and goes home verbatim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError
from kompakt.network.onnx.facts import Facts
from kompakt.network.onnx.source import OnnxSource


class OpaqueNode(nn.Module):
    """One ONNX node, run by ONNX Runtime.

    Args:
        content: A model of this node alone, serialized.
        inputs: Names of its inputs, in the order of the call's arguments.
        op_type: Its operator, for messages.
        outputs: How many values it returns.
    """

    kind = "opaque"

    def __init__(self, content: bytes, inputs: Sequence[str], op_type: str, outputs: int) -> None:
        super().__init__()
        self.content, self.inputs, self.op_type = content, tuple(inputs), op_type
        self.outputs = outputs
        self._session: Any = None

    def forward(self, *values: Any) -> Any:
        """Run the node on tensors; returns one value, or a tuple."""
        fed = {name: _to_runtime(value) for name, value in zip(self.inputs, values, strict=True)}
        session = self._loaded()
        try:
            results = [_from_runtime(r) for r in session.run(None, fed)]
        except Exception as error:
            raise self._refused(error) from error
        return results[0] if self.outputs == 1 else tuple(results)

    def _loaded(self) -> Any:
        if self._session is None:
            import onnxruntime

            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = 1
            settings.log_severity_level = 4
            try:
                self._session = onnxruntime.InferenceSession(
                    self.content, settings, providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise self._refused(error) from error
        return self._session

    def _refused(self, error: Exception) -> CaptureError:
        why = str(error).splitlines()[0]
        return CaptureError("K120", f"running the ONNX operator {self.op_type}", why=why)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return self.op_type


def _to_runtime(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    # numpy makes 0-d arrays 1-d when asked for contiguous ones.
    array = value.detach().numpy()
    return np.ascontiguousarray(array).reshape(array.shape)


def _from_runtime(value: Any) -> Any:
    return torch.from_numpy(np.array(value, order="C")) if _is_numeric(value) else value


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def one_node_model(node: ir.Node, facts: Facts, source: OnnxSource) -> tuple[bytes, list[str]]:
    """A model of one node, and the names of what it reads at run time (outer values of subgraphs included)."""
    proto = ir.to_proto(node)
    read = list(dict.fromkeys([*(n for n in proto.input if n), *free_names(proto)]))
    values = {str(v.name): v for v in _known_values(node, facts)}
    fixed, fed = [], []
    for name in read:
        value = values.get(name)
        content = facts.constants.get(name)
        if content is None and value is not None and value.const_value is not None:
            content = facts.constant(value)
        if content is None:
            fed.append(name)
        else:
            fixed.append(onnx.numpy_helper.from_array(content.copy(order="C"), name))
    inputs = [_value_info(name, values.get(name)) for name in fed]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "opaque", inputs, outputs, initializer=fixed)
    whole = source.proto()
    model = onnx.helper.make_model(
        graph, opset_imports=list(whole.opset_import), functions=list(whole.functions)
    )
    model.ir_version = max(8, min(whole.ir_version, 13))
    return model.SerializeToString(), fed


def _known_values(node: ir.Node, facts: Facts) -> Iterator[ir.Value]:
    yield from (v for v in node.inputs if v is not None)
    for graph_node in facts.model.graph:
        yield from graph_node.outputs
    yield from facts.model.graph.inputs
    yield from facts.model.graph.initializers.values()


def _value_info(name: str, value: ir.Value | None) -> onnx.ValueInfoProto:
    if value is None or value.type is None:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    info = ir.to_proto(value)
    # Sizes are only known for one batch: the runtime finds them out itself.
    if info.type.HasField("tensor_type"):
        info.type.tensor_type.ClearField("shape")
    return info


def free_names(proto: onnx.NodeProto) -> list[str]:
    """Names that the subgraphs of a node read from outside, in order."""
    found: dict[str, None] = {}
    for attribute in proto.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else []
        for graph in [*graphs, *attribute.graphs]:
            own = {v.name for v in (*graph.input, *graph.initializer)}
            for node in graph.node:
                for name in (*node.input, *free_names(node)):
                    if name and name not in own:
                        found[name] = None
                own.update(node.output)
            for value in graph.output:
                if value.name not in own:
                    found[value.name] = None
    return list(found)
