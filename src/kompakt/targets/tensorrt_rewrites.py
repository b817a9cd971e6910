"""Small rewrites of an exported model that give weights and biases the form TensorRT's ONNX parser reads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_CODES = (ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN)


def float_biases(model: ir.Model) -> None:
    """Store integer biases as the float numbers they stand for: the parser decodes no int32."""
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear":
            continue
        codes, scale = (_constant(value) for value in node.inputs[:2])
        if codes is None or scale is None or codes.dtype != np.int32:
            continue
        name = f"{node.outputs[0].name}.float"
        decoded = codes.astype(np.float32) * np.asarray(scale, np.float32)
        replacement = _initializer(model, name, decoded)
        ir.convenience.replace_all_uses_with(node.outputs[0], replacement)
        model.graph.remove(node, safe=True)
    _drop_unused(model)


def decode_weights(model: ir.Model) -> None:
    """Turn ``Cast → Mul`` of constant codes into ``DequantizeLinear``, the one form integers are read in."""
    for node in list(model.graph):
        if node.op_type != "Mul" or any(value is None for value in node.inputs):
            continue
        cast, reshape = (value.producer() if value else None for value in node.inputs)
        if (
            cast is None
            or reshape is None
            or (cast.op_type, reshape.op_type) != ("Cast", "Reshape")
        ):
            continue
        codes, scale = cast.inputs[0], reshape.inputs[0]
        shape = _constant(reshape.inputs[1])
        if codes is None or codes.const_value is None or codes.dtype not in _CODES:
            continue
        if scale is None or shape is None:
            continue
        axis = int(np.argmin(shape)) if scale.shape is not None and len(scale.shape) else 0
        decoded = ir.node("DequantizeLinear", [codes, scale], attributes={"axis": axis})
        decoded.name = f"{codes.name}/DequantizeLinear"
        decoded.outputs[0].name = f"{codes.name}.decoded"
        decoded.outputs[0].shape, decoded.outputs[0].type = codes.shape, scale.type
        model.graph.insert_before(node, decoded)
        ir.convenience.replace_all_uses_with(node.outputs[0], decoded.outputs[0])
        model.graph.remove(node, safe=True)
        for unused in (cast, reshape):
            if not list(unused.outputs[0].uses()):
                model.graph.remove(unused, safe=True)
    _drop_unused(model)


def _constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def _initializer(model: ir.Model, name: str, numbers: NDArray[np.generic]) -> ir.Value:
    tensor = ir.Tensor(np.ascontiguousarray(numbers), name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value


def _drop_unused(model: ir.Model) -> None:
    handed_out = {id(value) for value in model.graph.outputs}
    for name, value in list(model.graph.initializers.items()):
        if not list(value.uses()) and id(value) not in handed_out:
            del model.graph.initializers[name]
