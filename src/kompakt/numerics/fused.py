"""``a · b + c`` rounded once, as processors with FMA instructions compute it.

Runtimes compiled for such processors (every x86 with AVX2) use it in places where two roundings
would give another code, so simulating them needs it. PyTorch has no operator that promises it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fused_multiply_add(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a · b + c`` of float32 numbers, rounded once.

    The product of two float32 numbers is exact in float64. The sum is rounded *to odd* there, so
    that rounding it again, to float32, gives what a single rounding would.

    Args:
        a: Converted to float32.
        b: Converted to float32; broadcasts against ``a``.
        c: Converted to float32; broadcasts against ``a``.

    Returns:
        float32 tensor of the broadcast shape.

    Reference:
        Boldo and Melquiond, Emulation of a FMA and correctly rounded sums: proved algorithms using
        rounding to odd, IEEE Transactions on Computers 57(4), 2008.
    """
    product = a.float().double() * b.float().double()
    addend = c.float().double()
    total = product + addend
    rest = total - product
    error = (product - (total - rest)) + (addend - rest)
    bits = total.view(torch.int64)
    # An infinite total has error NaN, which is neither above nor below 0, and stays as it is.
    inexact = (error > 0) | (error < 0)
    step = torch.where((error > 0) == (total > 0), 1, -1)
    odd = torch.where(inexact & (bits & 1 == 0), bits + step, bits)
    return odd.view(torch.float64).float()
