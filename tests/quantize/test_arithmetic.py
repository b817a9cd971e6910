"""Fixed-point factors: the two roundings of TensorFlow Lite's kernels, against plain integers."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from kompakt.quantize.arithmetic import ARITHMETICS, Factors, Operand, as_fixed_point, multiply


def rounded_twice(x: int, multiplier: int, shift: int) -> int:
    """The same with Python's integers: the high half, halves away from zero, then the shift, again so."""

    def away(value: Fraction) -> int:
        return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value))

    left, right = max(shift, 0), max(-shift, 0)
    product = Fraction(x * 2**left * multiplier, 2**31)
    # The nudge rounds halves of negative numbers towards zero.
    high = away(product) if product >= 0 else -math.ceil(-product - Fraction(1, 2))
    return away(Fraction(high, 2**right))


@pytest.mark.parametrize("factor", [0.75, 0.0003, 1.9, 1 / 3, 2.0**-20, 0.49999999999])
def test_multiplying_by_a_fixed_point_factor(factor: float) -> None:
    multiplier, shift = as_fixed_point(torch.tensor(factor, dtype=torch.float64))
    assert 2**30 <= int(multiplier) < 2**31
    assert abs(int(multiplier) * 2.0 ** (int(shift) - 31) - factor) <= factor * 2**-30
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-(2**22), 2**22, (200,), generator=generator)
    found = multiply(values, multiplier, shift)
    wanted = [rounded_twice(int(x), int(multiplier), int(shift)) for x in values]
    assert found.tolist() == wanted


def test_all_arithmetics_are_within_one_code_of_the_real_number() -> None:
    generator = torch.Generator().manual_seed(1)
    sums = torch.randint(-50000, 50000, (1000,), generator=generator, dtype=torch.int32)
    factors = Factors(torch.tensor(0.02), torch.tensor(0.003))
    scale, zero_point = torch.tensor(0.05), torch.tensor(3, dtype=torch.int8)
    real = sums.double() * 0.02 * 0.003 / 0.05 + 3
    for name, arithmetic in ARITHMETICS.items():
        found = arithmetic.sums(sums, factors, scale, zero_point)
        assert float((found.double() - real).abs().max()) < 0.51, name


def test_additions_and_products_agree_to_one_code() -> None:
    codes = torch.arange(-128, 128, dtype=torch.int32)
    a = Operand(codes, torch.tensor(0.1), torch.tensor(5, dtype=torch.int8))
    b = Operand(codes.flip(0), torch.tensor(0.03), torch.tensor(-7, dtype=torch.int8))
    grid = torch.tensor(0.07), torch.tensor(1, dtype=torch.int8)
    first = ARITHMETICS["float32"]
    for other in ARITHMETICS.values():
        for kind in ("addition", "product"):
            gap = getattr(first, kind)(a, b, *grid) - getattr(other, kind)(a, b, *grid)
            assert float(gap.abs().max()) <= 1, kind


def test_leaky_slopes() -> None:
    x = Operand(torch.tensor([-100, 0, 100]), torch.tensor(0.1), torch.tensor(0))
    grid = torch.tensor(0.1), torch.tensor(0)
    assert ARITHMETICS["float32"].leaky(x, 0.5, *grid) is None
    for name in ("xnnpack", "fixed_point"):
        found = ARITHMETICS[name].leaky(x, 0.5, *grid)
        assert found is not None
        assert found.tolist() == [-50, 0, 100]
