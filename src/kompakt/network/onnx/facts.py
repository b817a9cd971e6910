"""What is known about the values of an ONNX graph before it runs: element types, shapes, constants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from kompakt.network.onnx.source import OnnxSource

FOLDED = frozenset(
    {
        *("Shape", "Gather", "Concat", "Unsqueeze", "Squeeze", "Slice", "Cast", "Identity"),
        *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Floor", "Ceil", "Range", "ConstantOfShape"),
        *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not"),
        *("Reshape", "ReduceProd", "Min", "Max", "Equal", "Where", "Transpose", "Expand", "Size"),
    }
)
"""Operators that compute sizes; only these are evaluated while importing."""
FOLD_LIMIT = 4096
"""Elements above which nothing is evaluated: a file must not be able to make importing expensive."""

DTYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}

Array = NDArray[Any]
Shape = tuple[int | str | None, ...]


class Facts:
    """Types, shapes and constants of one file.

    Args:
        source: The file.

    Attributes:
        model: Its graph, with inferred shapes; initializers are not among the inputs.
        constants: Values known now, by name, without the large weights.
    """

    def __init__(self, source: OnnxSource) -> None:
        proto = source.proto()
        self.opset = source.opset
        self.constants: dict[str, Array] = {}
        inferred = _inferred(proto)
        for _ in range(3):  # a folded shape lets inference see further
            model = ir.from_proto(inferred)
            ir.external_data.set_base_dir(model.graph, source.folder)
            before = len(self.constants)
            self._fold(model)
            if len(self.constants) == before:
                break
            inferred = _inferred(_with_constants(proto, self.constants))
        self.model = model
        for name in list(model.graph.initializers):
            value = model.graph.initializers[name]
            if value in model.graph.inputs:
                model.graph.inputs.remove(value)

    def dtype(self, value: ir.Value) -> torch.dtype | None:
        """Element type, or None for what is no tensor PyTorch knows."""
        return DTYPES.get(value.dtype) if value.dtype is not None else None

    def shape(self, value: ir.Value) -> Shape | None:
        """Sizes; a dynamic one is its name or None. None when not even the rank is known."""
        if value.shape is None:
            return None
        return tuple(d if isinstance(d, int) else d.value for d in value.shape)

    def constant(self, value: ir.Value | None) -> Array | None:
        """The content of an initializer or of a value that was computed while importing."""
        if value is None:
            return None
        if value.name in self.constants:
            return self.constants[str(value.name)]
        tensor = value.const_value
        return None if tensor is None else tensor.numpy()

    def _fold(self, model: ir.Model) -> None:
        for node in model.graph:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                content = ir.convenience.get_const_tensor(node.outputs[0])
                if content is not None and content.dtype in DTYPES:
                    self.constants[str(node.outputs[0].name)] = content.numpy()
            elif node.op_type in FOLDED and node.domain in ("", "ai.onnx"):
                self._evaluate(node)

    def _evaluate(self, node: ir.Node) -> None:
        name = str(node.outputs[0].name)
        if name in self.constants or len(node.outputs) != 1:
            return
        if node.op_type == "Shape":
            found = _sizes(node, self.shape(node.inputs[0]) if node.inputs[0] else None)
            if found is not None:
                self.constants[name] = found
            return
        given = [None if v is None else self.constant(v) for v in node.inputs]
        if any(v is not None and g is None for v, g in zip(node.inputs, given, strict=True)):
            return
        if sum(g.size for g in given if g is not None) > FOLD_LIMIT or not _is_small(node, given):
            return
        result = _run(node, given, self.opset)
        if result is not None and result.size <= FOLD_LIMIT:
            self.constants[name] = result


def _sizes(node: ir.Node, shape: Shape | None) -> Array | None:
    if shape is None:
        return None
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    wanted = shape[start:end]
    known = all(isinstance(size, int) for size in wanted)
    return np.array(wanted, np.int64) if known else None


def _is_small(node: ir.Node, given: Sequence[Array | None]) -> bool:
    """Whether the result of an operator that invents sizes stays small."""
    first = given[0] if given else None
    if node.op_type == "ConstantOfShape" and first is not None:
        return bool(np.prod(np.abs(first.astype(np.float64))) <= FOLD_LIMIT)
    if node.op_type == "Expand" and len(given) > 1 and given[1] is not None:
        return bool(np.prod(np.abs(given[1].astype(np.float64))) <= FOLD_LIMIT)
    if node.op_type == "Range" and all(g is not None for g in given):
        start, limit, step = (float(g) for g in given if g is not None)
        return bool(step) and abs((limit - start) / step) <= FOLD_LIMIT
    # Whatever broadcasts: small inputs along different axes make a large result.
    there = [g for g in given if g is not None]
    axes = itertools.zip_longest(*(reversed(g.shape) for g in there), fillvalue=1)
    broadcast = math.prod(max(sizes) for sizes in axes)
    return bool(broadcast <= max(FOLD_LIMIT, sum(int(g.size) for g in there)))


def _run(node: ir.Node, given: Sequence[Array | None], opset: int) -> Array | None:
    proto = ir.to_proto(node)
    feeds = {name: g for name, g in zip(proto.input, given, strict=True) if g is not None}
    inputs = [
        onnx.helper.make_tensor_value_info(
            n, onnx.helper.np_dtype_to_tensor_dtype(g.dtype), g.shape
        )
        for n, g in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=proto.output[0])]
    graph = onnx.helper.make_graph([proto], "one", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        result: Any = next(iter(onnx.reference.ReferenceEvaluator(model).run(None, feeds)))
    except Exception:  # noqa: BLE001  (what cannot be evaluated now runs later, in ONNX Runtime)
        return None
    return np.asarray(result)


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # noqa: BLE001  (shapes stay unknown; such values are handled as opaque)
        return proto


def _with_constants(proto: onnx.ModelProto, constants: dict[str, Array]) -> onnx.ModelProto:
    """The model with the nodes that make known values replaced by initializers, for shape inference only."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    kept = [n for n in changed.graph.node if not set(n.output) & set(constants)]
    made = {name for n in changed.graph.node for name in n.output} & set(constants)
    del changed.graph.node[:]
    changed.graph.node.extend(kept)
    changed.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(constants[name], order="C"), name)
        for name in sorted(made)
    )
    return changed
