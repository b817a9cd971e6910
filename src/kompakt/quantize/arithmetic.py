"""How integer kernels scale their exact sums to codes, by name.

The sums themselves are the same integers everywhere; what differs between runtimes is the multiplication with the
real factor (input scale · weight scale / output scale) and the rounding behind it.

* ``float32``: the sum as float32 times a float32 factor, halves to even: ONNX Runtime.
* ``onednn``: scaled to real numbers, where the bias is added, then by the reciprocal of the output scale; the zero
  point comes before the rounding: PyTorch's quantized layers.
* ``xnnpack``: as ``float32``, with every bias among the sums, and additions and leaky ReLUs in fixed point: ExecuTorch
  and LiteRT's default kernels.
* ``fixed_point``: the factor as a 31-bit integer and a shift, rounded twice, halves away from zero: the reference
  kernels of TensorFlow Lite, TensorFlow Lite for Microcontrollers and, for Cortex-M, CMSIS-NN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kompakt.numerics.fused import fused_multiply_add


@dataclass(frozen=True)
class Operand:
    """Codes (int32) with their scale (float32 scalar) and zero point (integer scalar)."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def centred(self) -> Tensor:
        """Codes minus zero point, int64."""
        return self.codes.to(torch.int64) - self.zero_point.to(torch.int64)


@dataclass(frozen=True)
class Factors:
    """What the sums of a kernel are worth.

    Attributes:
        input: float32 scale of the input codes.
        weight: float32 scale of the weights, broadcastable to the sums; None without weights.
        count: What the sums are divided by.
    """

    input: Tensor
    weight: Tensor | None = None
    count: int = 1

    @property
    def scale(self) -> Tensor:
        """The value of 1 in the sums, float32."""
        scale = self.input if self.weight is None else self.input * self.weight
        return scale if self.count == 1 else scale / self.count

    def exact(self) -> Tensor:
        """The same in float64, but for the division."""
        scale = self.input.double()
        return scale if self.weight is None else scale * self.weight.double()


class Arithmetic(Protocol):
    """One way to make codes; all methods return whole numbers, zero point included, not yet clamped.

    Attributes:
        integer_bias: Whether the bias of a linear layer is always among its sums.
        float_bias: Whether every bias is added to the scaled sums.
        averages_codes: Whether averages over windows are those of codes, rounded to codes of the same scale.
    """

    integer_bias: bool
    float_bias: bool
    averages_codes: bool

    def sums(self, sums: Tensor, factors: Factors, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of integer sums."""

    def addition(self, a: Operand, b: Operand, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of the sum of two tensors of codes."""

    def product(self, a: Operand, b: Operand, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of the product of two tensors of codes."""

    def leaky(self, x: Operand, slope: float, scale: Tensor, zero_point: Tensor) -> Tensor | None:
        """Codes of a leaky ReLU of codes; None where the kernel computes it in float."""


class Float32:
    """One float32 factor, halves to even."""

    integer_bias = float_bias = averages_codes = False

    def sums(self, sums: Tensor, factors: Factors, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of integer sums."""
        scaled = sums.to(torch.float32) * (factors.scale / scale)
        return scaled.round_().add_(int(zero_point))

    def addition(self, a: Operand, b: Operand, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of the sum of two tensors of codes."""
        # ONNX Runtime's AVX2 kernel: two fused multiply-adds on a precomputed constant.
        ra, rb = a.scale / scale, b.scale / scale
        za, zb = a.zero_point.float(), b.zero_point.float()
        fixed = zero_point.float() - fused_multiply_add(ra, za, rb * zb)
        inner = fused_multiply_add(b.codes.float(), rb, fixed)
        return torch.round(fused_multiply_add(a.codes.float(), ra, inner))

    def product(self, a: Operand, b: Operand, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of the product of two tensors of codes."""
        products = a.centred().float() * b.centred().float()
        return torch.round(products * (a.scale * b.scale / scale) + zero_point.float())

    def leaky(self, x: Operand, slope: float, scale: Tensor, zero_point: Tensor) -> Tensor | None:
        """Nothing: it is computed in float."""
        return None


class OneDnn(Float32):
    """Two factors one after the other, with the bias between them, and the zero point before the rounding."""

    float_bias = True

    def sums(self, sums: Tensor, factors: Factors, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of integer sums."""
        scaled = sums.to(torch.float32) * factors.scale * scale.reciprocal()
        return scaled.add_(int(zero_point)).round_()


class Xnnpack(Float32):
    """As in float32, but for additions (factors of 21 bits, halves up) and leaky ReLUs (slopes with 8 bits)."""

    integer_bias = averages_codes = True

    def addition(self, a: Operand, b: Operand, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of the sum of two tensors of codes."""
        ratios = [(x.scale / scale).double() for x in (a, b)]
        # The larger factor gets 21 bits: its leading one stands at bit 20.
        shift = 21 - int(torch.frexp(torch.maximum(*ratios)).exponent)
        factors = [torch.round(ratio * 2.0**shift).to(torch.int64) for ratio in ratios]
        total = a.centred() * factors[0] + b.centred() * factors[1]
        return ((total + (1 << (shift - 1))) >> shift) + int(zero_point)

    def leaky(self, x: Operand, slope: float, scale: Tensor, zero_point: Tensor) -> Tensor | None:
        """Codes of a leaky ReLU of codes."""
        positive = x.scale / scale
        slopes = [torch.round(256 * s).to(torch.int64) for s in (positive, positive * slope)]
        centred = x.centred()
        scaled = centred * torch.where(centred < 0, slopes[1], slopes[0])
        return ((scaled + 128) >> 8) + int(zero_point)


class FixedPoint:
    """A 31-bit multiplier and a shift, rounded twice."""

    integer_bias = averages_codes = True
    float_bias = False
    SUM_SHIFT = 20

    def sums(self, sums: Tensor, factors: Factors, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of integer sums."""
        multiplier, shift = as_fixed_point(factors.exact() / scale.double())
        if factors.count > 1:
            multiplier, shift = _divided(multiplier, shift, factors.count)
        return multiply(sums.to(torch.int64), multiplier, shift) + int(zero_point)

    def addition(self, a: Operand, b: Operand, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of the sum of two tensors of codes."""
        twice = 2 * torch.maximum(a.scale, b.scale).double()
        total = sum(
            multiply(x.centred() << self.SUM_SHIFT, *as_fixed_point(x.scale.double() / twice))
            for x in (a, b)
        )
        assert isinstance(total, Tensor)
        factor = as_fixed_point(twice / (2**self.SUM_SHIFT * scale.double()))
        return multiply(total, *factor) + int(zero_point)

    def product(self, a: Operand, b: Operand, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Codes of the product of two tensors of codes."""
        factor = as_fixed_point(a.scale.double() * b.scale.double() / scale.double())
        return multiply(a.centred() * b.centred(), *factor) + int(zero_point)

    def leaky(self, x: Operand, slope: float, scale: Tensor, zero_point: Tensor) -> Tensor | None:
        """Codes of a leaky ReLU of codes."""
        centred, whole = x.centred(), x.scale.double() / scale.double()
        steep = (x.scale * torch.tensor(slope, dtype=torch.float32)).double() / scale.double()
        positive = multiply(centred, *as_fixed_point(whole))
        negative = multiply(centred, *as_fixed_point(steep))
        return torch.where(centred >= 0, positive, negative) + int(zero_point)


def as_fixed_point(factor: Tensor) -> tuple[Tensor, Tensor]:
    """A positive factor as ``multiplier · 2^(shift − 31)``, the multiplier in [2^30, 2^31); int64.

    Args:
        factor: float64.
    """
    mantissa, exponent = torch.frexp(factor)
    multiplier = torch.floor(mantissa * 2**31 + 0.5).to(torch.int64)
    full = multiplier == 2**31
    multiplier = torch.where(full, multiplier // 2, multiplier)
    shift = exponent.to(torch.int64) + full.to(torch.int64)
    tiny = shift < -31
    return multiplier.masked_fill(tiny, 0), shift.masked_fill(tiny, 0)


def multiply(x: Tensor, multiplier: Tensor, shift: Tensor) -> Tensor:
    """``x · multiplier · 2^(shift − 31)``: the high half of the doubled product, then a shift, each rounded.

    Args:
        x: int64 that fits in 32 bits.
        multiplier: int64, broadcastable to ``x``.
        shift: int64, the same shape.
    """
    product = (x << shift.clamp(min=0)) * multiplier
    nudge = torch.where(product >= 0, 2**30, 1 - 2**30)
    high = torch.div(product + nudge, 2**31, rounding_mode="trunc")
    right = (-shift).clamp(min=0)
    mask = (torch.ones_like(right) << right) - 1
    threshold = (mask >> 1) + (high < 0).to(torch.int64)
    return (high >> right) + ((high & mask) > threshold).to(torch.int64)


def _divided(multiplier: Tensor, shift: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A factor divided by a count of elements, keeping as many bits as 32 allow."""
    room = (31 + shift).clamp(max=min(32, count.bit_length() - 1))
    return (multiplier << room) // count, shift - room


ARITHMETICS: dict[str, Arithmetic] = {
    "float32": Float32(),
    "onednn": OneDnn(),
    "xnnpack": Xnnpack(),
    "fixed_point": FixedPoint(),
}

__all__ = ["ARITHMETICS", "Arithmetic", "Factors", "Operand", "as_fixed_point", "multiply"]
