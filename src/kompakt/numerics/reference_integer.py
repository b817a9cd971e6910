"""The referee for integer layers: what ONNX Runtime's 8-bit kernels compute, in numpy.

Each function states the one order of float32 operations that reproduces the real kernel in every
code; the tests run the real kernel beside it. Codes are ``uint8`` or ``int8`` arrays and results
have the dtype of their input. *even* rounds halves to even; every product and sum below is rounded
to float32, except inside *fma*, which is rounded once.

==================== =============================================================================
layer                code before saturation
==================== =============================================================================
conv, linear         ``even(float(acc) · ((s_x · s_w) / s_y)) + z_y``, ``acc`` exact with int32 bias
linear, float output ``float(acc) · (s_x · s_w)``, then ``+ bias``, not fused
add                  ``even(fma(a, r_a, fma(b, r_b, f)))`` with ``r = s / s_y`` and
                     ``f = z_y − fma(r_a, z_a, r_b · z_b)``
multiply             ``even(((a − z_a) · (b − z_b)) · ((s_a · s_b) / s_y) + z_y)``
concat, leaky relu   ``even(((a − z_a) · s_a) / s_y) + z_y``: dequantized and quantized again
global average pool  ``even(float(acc) · (s_x / (s_y · n))) + z_y``
average pool         ``even(((Σ (a − z_x) · s_x) / n) / s_y + z_y)``, summed in reading order
==================== =============================================================================

``add`` is the form of x86 processors with FMA (every one with AVX2); there *a* is the operand that
does not broadcast. Others differ in the last bit before rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from kompakt.errors import NumericsError
from kompakt.numerics.reference import Array, Float32, fused_multiply_add


class Grid(NamedTuple):
    """The scale and zero point of a per-tensor quantized tensor."""

    scale: float
    zero_point: int


def conv2d(
    x: Array,
    weight: Array,
    bias: NDArray[np.int32] | None = None,
    *,
    zero_point: int = 0,
    weight_zero_point: ArrayLike = 0,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    accumulator: DTypeLike = np.int32,
) -> NDArray[np.int64]:
    """Exact integer convolution.

    Args:
        x: Codes (N, C, H, W).
        weight: Codes (O, C / groups, kh, kw).
        bias: (O,) in steps of ``s_x · s_w``.
        zero_point: Zero point of ``x``; padding has the value 0, that is this code.
        weight_zero_point: One zero point, or one an output channel.
        stride: Vertical and horizontal stride.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal dilation.
        groups: Number of channel groups.
        accumulator: Integer type the real kernel accumulates in.

    Returns:
        Accumulators (N, O, H', W').

    Raises:
        NumericsError: K307 when a result does not fit ``accumulator``.
    """
    top, left, bottom, right = padding
    x_nchw = x.astype(np.int64) - zero_point
    x_nchw = np.pad(x_nchw, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out, per_group, kh, kw = weight.shape
    w_oihw = weight.astype(np.int64) - np.asarray(weight_zero_point).reshape(-1, 1, 1, 1)
    span = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
    patches = np.lib.stride_tricks.sliding_window_view(x_nchw, span, axis=(2, 3))
    patches = patches[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    batch, _, height, width = patches.shape[:4]
    patches = patches.reshape(batch, groups, per_group, height, width, kh, kw)
    w_goihw = w_oihw.reshape(groups, out // groups, per_group, kh, kw)
    result = np.einsum("ngchwij,gocij->ngohw", patches, w_goihw, optimize=True)
    result = result.reshape(batch, out, height, width)
    if bias is not None:
        result = result + bias.astype(np.int64).reshape(1, -1, 1, 1)
    return fitting(result, accumulator)


def linear(
    x: Array,
    weight: Array,
    bias: NDArray[np.int32] | None = None,
    *,
    zero_point: int = 0,
    weight_zero_point: ArrayLike = 0,
    accumulator: DTypeLike = np.int32,
) -> NDArray[np.int64]:
    """Exact integer matrix product ``(x − z_x) @ (w − z_w)ᵀ + bias``.

    Args:
        x: Codes (..., I).
        weight: Codes (O, I).
        bias: (O,) in steps of ``s_x · s_w``.
        zero_point: Zero point of ``x``.
        weight_zero_point: One zero point, or one an output.
        accumulator: Integer type the real kernel accumulates in.

    Returns:
        Accumulators (..., O).

    Raises:
        NumericsError: K307 when a result does not fit ``accumulator``.
    """
    w_oi = weight.astype(np.int64) - np.asarray(weight_zero_point).reshape(-1, 1)
    result = (x.astype(np.int64) - zero_point) @ w_oi.T
    if bias is not None:
        result = result + bias.astype(np.int64)
    return fitting(result, accumulator)


def fitting(result: NDArray[np.int64], accumulator: DTypeLike) -> NDArray[np.int64]:
    """The result itself, or K307 when it does not fit the accumulator's integer type."""
    limits = np.iinfo(np.dtype(accumulator))
    if result.size and (result.min() < limits.min or result.max() > limits.max):
        worst = max(int(result.max()), -int(result.min()))
        raise NumericsError(
            "K307",
            f"an integer sum of magnitude {worst}",
            why=f"a {limits.bits}-bit accumulator holds at most {limits.max}",
        )
    return result


def multiplier(scale_x: ArrayLike, scale_w: ArrayLike, scale_y: ArrayLike) -> Float32:
    """``(s_x · s_w) / s_y``: product first, each step in float32."""
    product = np.asarray(scale_x, np.float32) * np.asarray(scale_w, np.float32)
    return np.asarray(product / np.asarray(scale_y, np.float32), np.float32)


def requantize(
    acc: Array, multiplier: ArrayLike, zero_point: int, dtype: DTypeLike, axis: int | None = None
) -> Array:
    """``even(float(acc) · multiplier) + zero_point``, saturated.

    Args:
        acc: Integer accumulators.
        multiplier: float32, one, or one an index of ``axis``.
        zero_point: Zero point of the result.
        dtype: ``uint8`` or ``int8``.
        axis: Channel axis of ``acc``; needed when there are several multipliers.
    """
    factor = np.asarray(multiplier, np.float32)
    if factor.size > 1 and axis is not None:
        shape = [1] * acc.ndim
        shape[axis] = -1
        factor = factor.reshape(shape)
    return _saturate(np.rint(acc.astype(np.float32) * factor) + np.float32(zero_point), dtype)


def dequantize_accumulator(
    acc: Array, scale_x: ArrayLike, scale_w: ArrayLike, bias: Array | None = None
) -> Float32:
    """``float(acc) · (s_x · s_w) [+ bias]``: a linear layer with float output."""
    scale = np.asarray(scale_x, np.float32) * np.asarray(scale_w, np.float32)
    result = acc.astype(np.float32) * scale
    return result if bias is None else result + bias.astype(np.float32)


def add(a: Array, grid_a: Grid, b: Array, grid_b: Grid, grid: Grid) -> Array:
    """Quantized, broadcasting addition (``QLinearAdd``) as x86 processors with FMA do it."""
    if _first_broadcasts(a.shape, b.shape):
        a, grid_a, b, grid_b = b, grid_b, a, grid_a
    ratio_a = np.float32(grid_a.scale) / np.float32(grid.scale)
    ratio_b = np.float32(grid_b.scale) / np.float32(grid.scale)
    zeros = fused_multiply_add(
        ratio_a, np.float32(grid_a.zero_point), ratio_b * np.float32(grid_b.zero_point)
    )
    fixed = np.float32(grid.zero_point) - zeros
    partial = fused_multiply_add(b.astype(np.float32), ratio_b, fixed)
    return _saturate(np.rint(fused_multiply_add(a.astype(np.float32), ratio_a, partial)), a.dtype)


def multiply(a: Array, grid_a: Grid, b: Array, grid_b: Grid, grid: Grid) -> Array:
    """Quantized multiplication (``QLinearMul``) with broadcasting."""
    factor = multiplier(grid_a.scale, grid_b.scale, grid.scale)
    product = _centred(a, grid_a) * _centred(b, grid_b)
    return _saturate(np.rint(product * factor + np.float32(grid.zero_point)), a.dtype)


def regrid(x: Array, grid_x: Grid, grid: Grid, *, negative_slope: float = 1.0) -> Array:
    """The same numbers on another grid: concatenation (``QLinearConcat``) and leaky ReLU.

    Args:
        x: Codes.
        grid_x: Their grid.
        grid: The grid of the result.
        negative_slope: Factor of negative numbers: leaky ReLU's slope.
    """
    real = _centred(x, grid_x) * np.float32(grid_x.scale)
    real = np.where(real < 0, real * np.float32(negative_slope), real)
    codes = np.rint(real / np.float32(grid.scale)) + np.float32(grid.zero_point)
    return _saturate(codes, x.dtype)


def concat(parts: list[tuple[Array, Grid]], grid: Grid, axis: int) -> Array:
    """Quantized concatenation: every part on the grid of the result."""
    return np.concatenate([regrid(codes, part, grid) for codes, part in parts], axis)


def global_average_pool(x: Array, grid_x: Grid, grid: Grid) -> Array:
    """Mean over all axes from the third on, kept at length 1 (``QLinearGlobalAveragePool``)."""
    axes = tuple(range(2, x.ndim))
    count = int(np.prod(x.shape[2:]))
    acc = (x.astype(np.int64) - grid_x.zero_point).sum(axes, keepdims=True)
    divisor = np.float32(grid.scale) * np.float32(count)
    return requantize(acc, np.float32(grid_x.scale) / divisor, grid.zero_point, x.dtype)


def average_pool2d(
    x: Array,
    grid_x: Grid,
    grid: Grid,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    count_include_pad: bool = False,
) -> Array:
    """Windowed mean (``QLinearAveragePool``): dequantized, summed in float32 in reading order.

    Args:
        x: Codes (N, C, H, W).
        grid_x: Their grid.
        grid: The grid of the result.
        kernel: Window height and width.
        stride: Vertical and horizontal stride.
        padding: Top, left, bottom, right.
        count_include_pad: Whether padding counts in the mean's denominator.
    """
    top, left, bottom, right = padding
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))
    real = np.pad(_centred(x, grid_x) * np.float32(grid_x.scale), edges)
    counts = np.pad(np.ones_like(x, np.float32), edges, constant_values=float(count_include_pad))
    height = (real.shape[2] - kernel[0]) // stride[0] + 1
    width = (real.shape[3] - kernel[1]) // stride[1] + 1
    total = np.zeros((*x.shape[:2], height, width), np.float32)
    count = np.zeros_like(total)
    for i, j in np.ndindex(*kernel):
        rows = slice(i, i + height * stride[0], stride[0])
        columns = slice(j, j + width * stride[1], stride[1])
        total += real[:, :, rows, columns][:, :, :height, :width]
        count += counts[:, :, rows, columns][:, :, :height, :width]
    codes = total / count / np.float32(grid.scale) + np.float32(grid.zero_point)
    return _saturate(np.rint(codes), x.dtype)


def _centred(x: Array, grid: Grid) -> Float32:
    return x.astype(np.float32) - np.float32(grid.zero_point)


def _saturate(codes: Array, dtype: DTypeLike) -> Array:
    limits = np.iinfo(np.dtype(dtype))
    return np.clip(codes, limits.min, limits.max).astype(dtype)


def _first_broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether the first operand is the one repeated along the innermost axis that differs."""
    for back in range(1, max(len(a), len(b)) + 1):
        length_a = a[-back] if back <= len(a) else 1
        length_b = b[-back] if back <= len(b) else 1
        if length_a != 1 or length_b != 1:
            return length_a == 1
    return False
