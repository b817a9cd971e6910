"""Tensors of codes, and exact results of integer kernels that are not yet rounded to codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kompakt.quantize.arithmetic import ARITHMETICS, Factors, Operand
from kompakt.quantize.quantizer import Quantizer


@dataclass
class Codes:
    """A tensor as integer codes (int32) with the quantizer that made them."""

    values: Tensor
    quantizer: Quantizer

    def decode(self) -> Tensor:
        """The float32 values the codes stand for."""
        scale, zero_point = self.quantizer.parameters_()
        return (self.values - zero_point.to(torch.int32)).to(torch.float32) * scale

    def centred(self) -> Tensor:
        """Codes minus zero point, as float32 (exact)."""
        _, zero_point = self.quantizer.parameters_()
        return (self.values - zero_point.to(torch.int32)).to(torch.float32)

    def operand(self) -> Operand:
        """The same as an operand of integer arithmetic."""
        return Operand(self.values, *self.quantizer.parameters_())


class Pending:
    """The exact result of an integer kernel before its output is rounded to codes."""

    def requantize(self, quantizer: Quantizer) -> Codes:
        """Round to the codes of ``quantizer`` as the fused kernel does."""
        raise NotImplementedError

    def decode(self) -> Tensor:
        """The float32 values, where the kernel hands out float."""
        raise NotImplementedError


@dataclass
class Sums(Pending):
    """Integer sums of a convolution, matrix product or average.

    Attributes:
        sums: Exact integers: int32, or int64 for codes of more than 8 bits.
        factors: What they are worth.
        bias: A float bias added after scaling, where the kernel does so.
    """

    sums: Tensor
    factors: Factors
    bias: Tensor | None = None

    def requantize(self, quantizer: Quantizer) -> Codes:
        """Round to the codes of ``quantizer`` as the fused kernel does."""
        arithmetic, sums = ARITHMETICS[quantizer.arithmetic], self.sums
        if self.bias is not None and not arithmetic.integer_bias:
            return Codes(quantizer.codes(self.decode()).to(torch.int32), quantizer)
        if self.bias is not None:
            sums = sums + torch.round(self.bias.double() / self.factors.scale.double()).to(
                sums.dtype
            )
        return _clamped(arithmetic.sums(sums, self.factors, *quantizer.parameters_()), quantizer)

    def decode(self) -> Tensor:
        """The float32 values."""
        result = self.sums.to(torch.float32) * self.factors.scale
        return result if self.bias is None else result + self.bias


@dataclass
class Addition(Pending):
    """The sum of two tensors of codes."""

    a: Codes
    b: Codes

    def requantize(self, quantizer: Quantizer) -> Codes:
        """Round to the codes of ``quantizer`` as the fused kernel does."""
        arithmetic = ARITHMETICS[quantizer.arithmetic]
        operands = self.a.operand(), self.b.operand()
        return _clamped(arithmetic.addition(*operands, *quantizer.parameters_()), quantizer)

    def decode(self) -> Tensor:
        """The float32 values."""
        return self.a.decode() + self.b.decode()


@dataclass
class Product(Pending):
    """The element-wise product of two tensors of codes."""

    a: Codes
    b: Codes

    def requantize(self, quantizer: Quantizer) -> Codes:
        """Round to the codes of ``quantizer`` as the fused kernel does."""
        arithmetic = ARITHMETICS[quantizer.arithmetic]
        operands = self.a.operand(), self.b.operand()
        return _clamped(arithmetic.product(*operands, *quantizer.parameters_()), quantizer)

    def decode(self) -> Tensor:
        """The float32 values."""
        return self.a.decode() * self.b.decode()


@dataclass
class Leaky(Pending):
    """A leaky ReLU of codes."""

    x: Codes
    slope: float

    def requantize(self, quantizer: Quantizer) -> Codes:
        """Round to the codes of ``quantizer`` as the kernel does."""
        arithmetic, grid = ARITHMETICS[quantizer.arithmetic], quantizer.parameters_()
        codes = arithmetic.leaky(self.x.operand(), self.slope, *grid)
        return requantized(self, quantizer) if codes is None else _clamped(codes, quantizer)

    def decode(self) -> Tensor:
        """The float32 values."""
        return torch.nn.functional.leaky_relu(self.x.decode(), self.slope)


@dataclass
class Rectified(Pending):
    """Another result behind a ReLU or ReLU6 that the kernel absorbs."""

    inner: Pending
    ceiling: float | None

    def requantize(self, quantizer: Quantizer) -> Codes:
        """Round to the codes of ``quantizer`` as the fused kernel does."""
        codes = self.inner.requantize(quantizer)
        scale, zero_point = quantizer.parameters_()
        zero = int(zero_point)
        top = quantizer.format.qmax
        if self.ceiling is not None:
            top = min(top, zero + round(self.ceiling / float(scale)))
        return Codes(codes.values.clamp(zero, int(top)), quantizer)

    def decode(self) -> Tensor:
        """The float32 values."""
        return self.inner.decode().clamp(min=0.0, max=self.ceiling)


def _clamped(codes: Tensor, quantizer: Quantizer) -> Codes:
    """Codes from whole numbers that are no longer needed."""
    fmt = quantizer.format
    return Codes(codes.clamp_(int(fmt.qmin), int(fmt.qmax)).to(torch.int32), quantizer)


def requantized(value: Codes | Pending, quantizer: Quantizer) -> Codes:
    """A result as the codes of another quantizer, by way of floats."""
    return Codes(quantizer.codes(value.decode()).to(torch.int32), quantizer)


__all__ = ["Addition", "Codes", "Leaky", "Pending", "Product", "Rectified", "Sums", "requantized"]
