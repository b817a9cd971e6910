"""An ONNX graph as the rules for TensorRT look at it: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
PASSING = frozenset({"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})
"""Operators that only move numbers; weights may go through them on their way to a layer."""


class Graph:
    """One graph of a model, without the graphs inside its nodes.

    Args:
        model: The model; weights in other files are not read.
        graph: The graph.
    """

    def __init__(self, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
        self.nodes: list[NodeProto] = list(graph.node)
        self.opset = {o.domain: int(o.version) for o in model.opset_import}
        self.inputs = {value.name for value in graph.input}
        self.outputs = [value.name for value in graph.output]
        self.stored: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self.made_by: dict[str, NodeProto] = {}
        self.read_by: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.output:
                self.made_by[name] = node
            for name in dict.fromkeys(node.input):
                self.read_by[name].append(node)
            if node.op_type == "Constant" and node.output:
                for a in node.attribute:
                    if a.name == "value":
                        self.stored[node.output[0]] = a.t
        self.ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in _described(graph)}

    def of_type(self, *kinds: str) -> Iterator[NodeProto]:
        """The standard operators of these types, in the file's order."""
        return (n for n in self.nodes if n.op_type in kinds and not n.domain)

    def maker(self, name: str) -> NodeProto | None:
        """The node that makes a tensor; None for inputs and stored tensors."""
        return self.made_by.get(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a stored tensor."""
        tensor = self.stored.get(name)
        return None if tensor is None else tuple(tensor.dims)

    def element(self, name: str) -> int | None:
        """The element type of a stored tensor."""
        tensor = self.stored.get(name)
        return None if tensor is None else int(tensor.data_type)

    def numbers(self, name: str) -> NDArray[np.float64] | None:
        """The numbers of a stored tensor; None when there is none here, or it is in another file."""
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return np.asarray(numpy_helper.to_array(tensor)).astype(np.float64)
        except (TypeError, ValueError):
            return None

    def is_constant(self, name: str, depth: int = 64) -> bool:
        """Whether a tensor follows from stored ones alone."""
        if name in self.stored:
            return True
        node = self.maker(name)
        if node is None or not depth:
            return False
        return all(self.is_constant(i, depth - 1) for i in node.input if i)

    def codes_type(self, node: NodeProto) -> int | None:
        """The element type of the codes a Q or DQ makes or reads; None when the file does not say."""
        if len(node.input) > 2 and node.input[2]:
            known = self.element(node.input[2])
            if known is not None:
                return known
        if node.op_type == QUANTIZE:
            return int(attribute(node, "output_dtype", 0)) or TensorProto.UINT8
        source = self.maker(node.input[0])
        if source is not None and source.op_type == QUANTIZE:
            return self.codes_type(source)
        return self.element(node.input[0])

    def decoder(self, name: str) -> NodeProto | None:
        """The DQ a tensor comes from, past operators that only move numbers; None when there is none."""
        node = self.maker(name)
        for _ in range(64):
            if node is None or node.op_type == DEQUANTIZE:
                return node
            if node.op_type not in PASSING:
                return None
            node = self.maker(node.input[0])
        return None

    def decodes_weight(self, node: NodeProto) -> bool:
        """Whether a DQ decodes stored codes, or codes that are made of stored numbers."""
        return self.is_constant(node.input[0])

    def quantized_source(self, name: str) -> str | None:
        """The tensor that was quantized where this one is a decoded pair of it."""
        decode = self.decoder(name)
        encode = self.maker(decode.input[0]) if decode is not None else None
        if encode is None or encode.op_type != QUANTIZE:
            return None
        return str(encode.input[0])


def _described(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for values in (graph.input, graph.value_info, graph.output):
        yield from (v for v in values if v.type.tensor_type.HasField("shape"))


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


__all__ = ["DEQUANTIZE", "PASSING", "QUANTIZE", "Graph", "attribute"]
