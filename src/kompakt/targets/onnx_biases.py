"""Integer biases for layers that are called more than once.

A bias code has the scale ``input_scale · weight_scale``. A layer called with several input scales therefore has other
bias codes at each call, and its one float bias is rounded here, call by call.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)


def round_biases(model: ir.Model) -> None:
    """Round the float bias of every ``Conv`` and ``Gemm`` between codes to int32, in place."""
    for node in list(model.graph):
        if node.op_type not in ("Conv", "Gemm") or len(node.inputs) < 3:
            continue
        x, weight, bias = (_decoded(node.inputs[0]), _decoded(node.inputs[1]), node.inputs[2])
        if x is None or weight is None or bias is None or bias.const_value is None:
            continue
        scale = _constant(x.inputs[1]) * _constant(weight.inputs[1])
        codes = np.rint(bias.const_value.numpy() / scale).astype(np.int32)
        name = f"{node.outputs[0].name}.bias"
        rounded = ir.node(
            "DequantizeLinear",
            [
                _initializer(model, f"{name}_codes", codes),
                _initializer(model, f"{name}_scale", np.broadcast_to(scale, codes.shape).copy()),
            ],
            attributes={"axis": 0},
            outputs=[ir.Value(name=name, shape=bias.shape, type=bias.type)],
        )
        model.graph.insert_before(node, rounded)
        node.replace_input_with(2, rounded.outputs[0])


def _decoded(value: ir.Value | None) -> ir.Node | None:
    """The node that decodes these 8-bit codes, or None for anything else."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    if node.attributes.get_int("block_size", 0):
        return None
    codes = node.inputs[0]
    return node if codes is not None and codes.dtype in _EIGHT_BITS else None


def _constant(value: ir.Value | None) -> NDArray[np.float32]:
    assert value is not None
    assert value.const_value is not None
    numbers: NDArray[np.float32] = value.const_value.numpy()
    return numbers


def _initializer(model: ir.Model, name: str, numbers: NDArray[np.generic]) -> ir.Value:
    tensor = ir.Tensor(numbers, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value
