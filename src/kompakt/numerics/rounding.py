"""The five ways runtimes turn a real number into a code, by name.

All are "affine int8 quantization", and on data that lies on a grid (image pixels, outputs of
another quantizer) they differ by one code on up to a third of all elements. A target names the one
its runtime computes, and its quantizers use exactly that. All arithmetic is float32, in the order
written here.

====================== ==================================== =====================================
name                   code before clamping                 exact for
====================== ==================================== =====================================
divide_even            even(x / s) + zp                     ONNX Runtime, the ONNX standard
reciprocal_even        even(x · (1/s)) + zp                 LiteRT optimised, torch fake-quantize
divide_away            away(x / s) + zp                     LiteRT reference kernels
affine_even            even(fma(x, a, b)) + qmin            OpenVINO CPU
reciprocal_offset_even even(fma(x, 1/s, zp))                torch.quantize_per_tensor on x86
====================== ==================================== =====================================

In ``affine_even``, ``a = (qmax − qmin) / (hi − lo)`` and ``b = −lo · a`` with
``lo = (qmin − zp) · s`` and ``hi = (qmax − zp) · s``, the ends of what the codes span.

*even* rounds halves to the even integer, *away* rounds halves away from zero, *fma* rounds its
product and sum only once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kompakt.errors import SchemeError
from kompakt.numerics.fused import fused_multiply_add

Rounding = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
"""``(x, scale, zero_point, qmin, qmax) -> codes``: float32 in, float32 codes before clamping out.

``scale`` and ``zero_point`` are float32 and broadcast against ``x``; ``qmin`` and ``qmax`` matter
to formulas that are written in terms of the range.
"""


def divide_even(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """``even(x / s) + zp``."""
    return x.div(scale).round_().add_(zero_point)


def reciprocal_even(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """``even(x · (1/s)) + zp``."""
    return x.mul(scale.reciprocal()).round_().add_(zero_point)


def divide_away(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """``away(x / s) + zp``."""
    return round_half_away(x.div(scale)).add_(zero_point)


def affine_even(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """``even(fma(x, a, b)) + qmin`` with ``a``, ``b`` from the range the codes span."""
    lo = (qmin - zero_point) * scale
    hi = (qmax - zero_point) * scale
    # Not number / tensor: PyTorch computes that as number * reciprocal, another float32.
    a = torch.full_like(lo, qmax - qmin).div_(hi - lo)
    return fused_multiply_add(x, a, -lo * a).round_().add_(float(qmin))


def reciprocal_offset_even(
    x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int
) -> Tensor:
    """``even(fma(x, 1/s, zp))``: one rounding before the one to an integer."""
    return fused_multiply_add(x, scale.reciprocal(), zero_point).round_()


def round_half_away(x: Tensor) -> Tensor:
    """Nearest integer, halves away from zero.

    Not ``floor(|x| + 0.5)``: that addition rounds 0.49999997 up to 1.
    """
    whole = x.trunc()
    return whole + ((x - whole).abs() >= 0.5) * torch.sign(x)


ROUNDINGS: dict[str, Rounding] = {
    "divide_even": divide_even,
    "reciprocal_even": reciprocal_even,
    "divide_away": divide_away,
    "affine_even": affine_even,
    "reciprocal_offset_even": reciprocal_offset_even,
}


def get_rounding(name: str) -> Rounding:
    """The rounding of that name.

    Raises:
        SchemeError: K304 when no rounding has that name.
    """
    if name not in ROUNDINGS:
        raise SchemeError(
            "K304",
            f"the rounding {name!r}",
            why="no rounding has that name",
            help=f"use one of {', '.join(ROUNDINGS)}",
        )
    return ROUNDINGS[name]
