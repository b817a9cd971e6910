"""Operators a quantized network is written with, beyond quantize and dequantize.

``kompakt::dynamic_linear`` is the whole of a dynamically quantized linear layer. Its float result is what ONNX
``DynamicQuantizeLinear`` → ``MatMulInteger`` → scale → add computes: the range of the *whole* activation tensor decides
the scale of every row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kompakt.numerics.affine import dynamic_qparams

LARGEST_PRODUCT = 255 * 128
"""The largest magnitude of a uint8 code less its zero point, times an int8 weight code."""


def dynamic_linear(x: Tensor, codes_IO: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:
    """A linear layer whose input is quantized to uint8 with the range it has right now.

    Args:
        x: float32, shape (..., I).
        codes_IO: int8 weight codes, shape (I, O), zero point 0.
        scale_O: float32 weight scales, shape (O,).
        bias_O: float32, shape (O,), or None.

    Returns:
        float32, shape (..., O).
    """
    scale, zero_point = dynamic_qparams(x)
    codes = torch.clamp(torch.round(x / scale) + zero_point, 0, 255) - zero_point
    # Sums of integers below 2²⁴ are exact in float32, whatever their order; longer ones need float64.
    wide = codes_IO.shape[0] * LARGEST_PRODUCT >= 2**24
    dtype = torch.float64 if wide else torch.float32
    sums = torch.matmul(codes.to(dtype), codes_IO.to(dtype)).float()
    result = sums * (scale * scale_O)
    return result if bias_O is None else result + bias_O


def _dynamic_linear_fake(
    x: Tensor, codes_IO: Tensor, scale_O: Tensor, bias_O: Tensor | None
) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes_IO.shape[1]))


def _register() -> None:
    if hasattr(torch.ops.kompakt, "dynamic_linear"):
        return
    name = "kompakt::dynamic_linear"
    schema = "(Tensor x, Tensor codes_IO, Tensor scale_O, Tensor? bias_O) -> Tensor"
    torch.library.define(name, schema)
    torch.library.impl(name, "CompositeExplicitAutograd", dynamic_linear)
    torch.library.register_fake(name, _dynamic_linear_fake)


_register()
