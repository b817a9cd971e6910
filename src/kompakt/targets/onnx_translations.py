"""How kompakt's own operators are written in ONNX.

Each function takes ONNX values and writes standard operators of opset 21 (weights in 4 bits and 16-bit codes need
it). They are handed to ``torch.onnx.export`` as its custom translation table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset21 as op

import kompakt.network.ops
import kompakt.numerics.ops
import kompakt.quantize.operators  # noqa: F401  (all three register operators)
from kompakt.numerics.ops import PER_TENSOR
from kompakt.targets.onnx_rnn import translate_rnn


def _quantize(
    x: Any, scale: Any, zero_point: Any, qmin: int, qmax: int, axis: int = PER_TENSOR
) -> Any:
    if axis == PER_TENSOR:
        return op.QuantizeLinear(x, scale, zero_point)
    return op.QuantizeLinear(x, scale, zero_point, axis=axis)


def _dequantize(codes: Any, scale: Any, zero_point: Any, axis: int = PER_TENSOR) -> Any:
    # ONNX knows no zero point for int32 codes (biases).
    inputs = (codes, scale) if _is_int32(codes) else (codes, scale, zero_point)
    if axis == PER_TENSOR:
        return op.DequantizeLinear(*inputs)
    return op.DequantizeLinear(*inputs, axis=axis)


def _is_int32(value: Any) -> bool:
    return getattr(value, "dtype", None) == ir.DataType.INT32


def _dequantize_blocked(codes: Any, scale: Any, zero_point: Any, axis: int, block: int) -> Any:
    if zero_point is None:
        return op.DequantizeLinear(codes, scale, axis=axis, block_size=block)
    return op.DequantizeLinear(codes, scale, zero_point, axis=axis, block_size=block)


def _dynamic_linear(x: Any, codes_IO: Any, scale_O: Any, bias_O: Any = None) -> Any:
    codes, scale, zero_point = op.DynamicQuantizeLinear(x)
    sums = op.Cast(op.MatMulInteger(codes, codes_IO, zero_point), to=ir.DataType.FLOAT.value)
    result = op.Mul(sums, op.Mul(scale, scale_O))
    return result if bias_O is None else op.Add(result, bias_O)


def _global_average_pool(x: Any) -> Any:
    return op.GlobalAveragePool(x)


def _hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    # Plain constants: the exporter's own form casts them, and ONNX Runtime then does not fuse the clip.
    low, high = (op.Constant(value_float=float(v)) for v in (min_val, max_val))
    return op.Clip(x, low, high)


def translations() -> dict[Any, Callable[..., Any]]:
    """The custom translation table for ``torch.onnx.export``."""
    ops = torch.ops.kompakt
    return {
        ops.quantize.default: _quantize,
        ops.dequantize.default: _dequantize,
        ops.dequantize_blocked.default: _dequantize_blocked,
        ops.dynamic_linear.default: _dynamic_linear,
        ops.global_average_pool.default: _global_average_pool,
        ops.rnn.default: translate_rnn,
        torch.ops.aten.hardtanh.default: _hardtanh,
    }
