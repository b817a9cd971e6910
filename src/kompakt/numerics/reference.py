"""The referee for numbers: quantization written again in numpy, sharing no code with the rest.

Slow, obvious and independent of torch. The tests compare every fast path with it bit for bit, and
it is itself compared with the real ONNX Runtime. Integer layers are in
:mod:`kompakt.numerics.reference_integer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kompakt.numerics.granularity import Granularity, PerChannel, PerGroup, PerTensor

Array = NDArray[Any]
Float32 = NDArray[np.float32]


def fused_multiply_add(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Float32:
    """``a · b + c`` of float32 numbers, rounded once, as the processor's FMA instruction does.

    The product is exact in float64; the sum is rounded to odd there, so that the second rounding,
    to float32, gives what a single one would (Boldo and Melquiond, 2008).
    """
    product = np.asarray(a, np.float32).astype(np.float64) * np.asarray(b, np.float32)
    addend = np.asarray(c, np.float32).astype(np.float64)
    total = np.asarray(product + addend)
    rest = total - product
    error = (product - (total - rest)) + (addend - rest)
    bits = total.view(np.int64)
    step = np.where((error > 0) == (total > 0), 1, -1)
    inexact = (error > 0) | (error < 0)
    odd = np.where(inexact & (bits & 1 == 0), bits + step, bits)
    return np.asarray(odd.view(np.float64).astype(np.float32))


def divide_even(x: Float32, scale: Float32, zero_point: Float32, qmin: int, qmax: int) -> Float32:
    """``even(x / s) + zp``: ONNX Runtime."""
    return np.asarray(np.rint(x / scale) + zero_point)


def reciprocal_even(
    x: Float32, scale: Float32, zero_point: Float32, qmin: int, qmax: int
) -> Float32:
    """``even(x · (1/s)) + zp``: LiteRT's optimised kernels, torch's fake-quantize."""
    return np.rint(x * (np.float32(1) / scale)) + zero_point


def divide_away(x: Float32, scale: Float32, zero_point: Float32, qmin: int, qmax: int) -> Float32:
    """``away(x / s) + zp``: LiteRT's reference kernels."""
    ratio = x / scale
    # A float32 has 24 significant bits, so adding 0.5 is exact in float64 wherever it matters.
    away = np.copysign(np.floor(np.abs(ratio).astype(np.float64) + 0.5), ratio)
    return np.asarray(away.astype(np.float32) + zero_point)


def affine_even(x: Float32, scale: Float32, zero_point: Float32, qmin: int, qmax: int) -> Float32:
    """``even(fma(x, a, b)) + qmin`` over the range the codes span: OpenVINO."""
    lo = (np.float32(qmin) - zero_point) * scale
    hi = (np.float32(qmax) - zero_point) * scale
    a = np.float32(qmax - qmin) / (hi - lo)
    return np.rint(fused_multiply_add(x, a, -lo * a)) + np.float32(qmin)


def reciprocal_offset_even(
    x: Float32, scale: Float32, zero_point: Float32, qmin: int, qmax: int
) -> Float32:
    """``even(fma(x, 1/s, zp))``: torch.quantize_per_tensor on x86."""
    return np.rint(fused_multiply_add(x, np.float32(1) / scale, zero_point))


ROUNDINGS: dict[str, Callable[[Float32, Float32, Float32, int, int], Float32]] = {
    "divide_even": divide_even,
    "reciprocal_even": reciprocal_even,
    "divide_away": divide_away,
    "affine_even": affine_even,
    "reciprocal_offset_even": reciprocal_offset_even,
}


def quantize(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike,
    qmin: int,
    qmax: int,
    granularity: Granularity,
    rounding: str = "divide_even",
) -> NDArray[np.int32]:
    """Codes of ``x``, saturated to ``[qmin, qmax]``.

    Args:
        x: Finite numbers, taken as float32.
        scale: float32 of shape ``granularity.parameter_shape(x.shape)``.
        zero_point: Integers of the same shape.
        qmin: Smallest code.
        qmax: Largest code.
        granularity: Which elements share a scale.
        rounding: A name of :data:`ROUNDINGS`.

    Returns:
        int32 codes of the shape of ``x``.
    """
    x = np.asarray(x, np.float32)
    step = lay_over(np.asarray(scale, np.float32), x.shape, granularity)
    zero = lay_over(np.asarray(zero_point, np.float32), x.shape, granularity)
    with np.errstate(over="ignore"):
        codes = ROUNDINGS[rounding](x, step, zero, qmin, qmax)
    return np.clip(codes, qmin, qmax).astype(np.int32)


def dequantize(
    codes: Array, scale: ArrayLike, zero_point: ArrayLike, granularity: Granularity
) -> Float32:
    """``(codes − zero_point) · scale`` in float32."""
    step = lay_over(np.asarray(scale, np.float32), codes.shape, granularity)
    zero = lay_over(np.asarray(zero_point, np.int64), codes.shape, granularity)
    return (codes.astype(np.int64) - zero).astype(np.float32) * step


def choose_qparams(
    lo: ArrayLike, hi: ArrayLike, qmin: int, qmax: int
) -> tuple[Float32, NDArray[np.int32]]:
    """Affine scale and zero point for ranges, without the special cases of degenerate ranges."""
    low = np.minimum(np.asarray(lo, np.float32), np.float32(0))
    high = np.maximum(np.asarray(hi, np.float32), np.float32(0))
    scale = np.asarray((high - low) / np.float32(qmax - qmin), np.float32)
    zero_point = np.rint(np.clip(np.float32(qmin) - low / scale, qmin, qmax))
    return scale, zero_point.astype(np.int32)


def dynamic_qparams(x: ArrayLike) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of ONNX ``DynamicQuantizeLinear``."""
    x = np.asarray(x, np.float32)
    lo, hi = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    scale = np.float32(1) if lo == hi else (hi - lo) / np.float32(255)
    with np.errstate(over="ignore"):
        zero_point = np.rint(np.clip(np.float32(0) - lo / scale, 0, 255))
    return np.float32(scale), np.uint8(zero_point)


def lay_over(parameter: Array, shape: tuple[int, ...], granularity: Granularity) -> Array:
    """A parameter indexed once for every element of a tensor of that shape."""
    if isinstance(granularity, PerTensor):
        return np.broadcast_to(parameter.reshape(()), shape)
    index = np.indices(shape, sparse=True)
    if isinstance(granularity, PerChannel):
        return np.broadcast_to(parameter[index[granularity.axis]], shape)
    if isinstance(granularity, PerGroup):
        axis = granularity.axis % len(shape)
        at = tuple(i // granularity.size if k == axis else i for k, i in enumerate(index))
        return np.broadcast_to(parameter[at], shape)
    return np.broadcast_to(parameter, shape)


def round_to_float(
    x: ArrayLike, *, mantissa_bits: int, smallest_exponent: int, largest: float
) -> Float32:
    """The nearest number a small float format holds, ties to even, saturated at ``largest``.

    Args:
        x: Finite numbers.
        mantissa_bits: Stored mantissa bits: 10 for fp16, 7 for bf16, 3 for e4m3, 2 for e5m2.
        smallest_exponent: Exponent of the smallest normal number: -14, -126, -6, -14.
        largest: Largest finite value.
    """
    wide = np.asarray(x, np.float32).astype(np.float64)
    _, exponent = np.frexp(wide)
    step = np.ldexp(1.0, np.maximum(exponent - 1, smallest_exponent) - mantissa_bits)
    rounded: Float32 = np.clip(np.rint(wide / step) * step, -largest, largest).astype(np.float32)
    return rounded
