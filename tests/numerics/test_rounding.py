"""Every named rounding against the numpy referee and against the runtime it is named for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from kompakt.errors import SchemeError
from kompakt.numerics import reference
from kompakt.numerics.formats import Format, get_format
from kompakt.numerics.fused import fused_multiply_add
from kompakt.numerics.granularity import PerTensor
from kompakt.numerics.rounding import ROUNDINGS, get_rounding, round_half_away

PIXELS = (np.arange(256) / 255).astype(np.float32)
SCALES = [np.float32(s) for s in (1 / 127.5, 1 / 255, 0.1, 0.02, 0.0473, 2.0**-7, 0.3)]
NAMES = ["int8", "uint8", "int8_narrow", "int4", "uint4", "int16", "uint16", "uint3", "int1"]


def codes(name: str, x: np.ndarray, scale: np.float32, zero_point: int, fmt: Format) -> np.ndarray:
    result = ROUNDINGS[name](
        torch.from_numpy(x),
        torch.tensor(scale),
        torch.tensor(float(zero_point)),
        fmt.qmin,
        fmt.qmax,
    )
    return result.clamp(fmt.qmin, fmt.qmax).numpy().astype(np.int32)


def on_grids(scale: np.float32) -> np.ndarray:
    """Pixels, and multiples of half a step: every tie there is."""
    ties = np.arange(-600, 600, dtype=np.float32) * np.float32(0.5) * scale
    away = np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))
    return np.concatenate([PIXELS, PIXELS * 2 - 1, ties, *away]).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.float32, int, Format]:
    fmt = get_format(draw(st.sampled_from(NAMES)))
    scale = draw(
        st.sampled_from(SCALES)
        | st.floats(2.0**-20, 2.0**10, width=32).map(np.float32)
        | st.sampled_from([np.float32(1.1754944e-38), np.float32(1e30)])
    )
    zero_point = draw(st.integers(fmt.qmin, fmt.qmax))
    free = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=True)
    x = draw(st.lists(free, min_size=1, max_size=20))
    halves = draw(st.lists(st.integers(-(2**17), 2**17), max_size=30))
    grid = np.array(halves, np.float32) * np.float32(0.5) * scale
    return np.concatenate([np.array(x, np.float32), grid, PIXELS]), scale, zero_point, fmt


@pytest.mark.parametrize("name", ROUNDINGS)
@given(case=cases())
def test_equals_the_numpy_referee(
    name: str, case: tuple[np.ndarray, np.float32, int, Format]
) -> None:
    x, scale, zero_point, fmt = case
    with np.errstate(all="ignore"):
        expected = reference.quantize(
            x, scale, zero_point, fmt.qmin, fmt.qmax, PerTensor(), rounding=name
        )
    assert np.array_equal(codes(name, x, scale, zero_point, fmt), expected)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("scale", SCALES)
def test_divide_even_is_onnx_runtime(name: str, scale: np.float32, run_kernel) -> None:
    fmt = get_format(name)
    dtype = name.removesuffix("_narrow")
    x = on_grids(scale)
    for zero_point in (-1, 0, 1, 7, 93, 127, 128, 200):
        if not fmt.qmin <= zero_point <= fmt.qmax:
            continue
        zero = np.array(zero_point, dtype)
        (theirs,) = run_kernel("QuantizeLinear", [x, np.array(scale), zero], [dtype])
        assert np.array_equal(codes("divide_even", x, scale, zero_point, fmt), theirs)
        (back,) = run_kernel("DequantizeLinear", [theirs, np.array(scale), zero], ["float32"])
        assert np.array_equal(reference.dequantize(theirs, scale, zero_point, PerTensor()), back)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("zero_point", [-1, 0, 3, 127, -128])
def test_reciprocal_even_is_torch_fake_quantize(scale: np.float32, zero_point: int) -> None:
    fmt = get_format("int8")
    x = on_grids(scale)
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), float(scale), zero_point, fmt.qmin, fmt.qmax
    ).numpy()
    ours = codes("reciprocal_even", x, scale, zero_point, fmt)
    assert np.array_equal(reference.dequantize(ours, scale, zero_point, PerTensor()), theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("zero_point", [-1, 0, 3, 127, -128])
def test_reciprocal_offset_even_is_torch_quantize_per_tensor(
    scale: np.float32,
    zero_point: int,
    x86: None,
) -> None:
    x = on_grids(scale)
    theirs = torch.quantize_per_tensor(
        torch.from_numpy(x), float(scale), zero_point, torch.qint8
    ).int_repr()
    ours = codes("reciprocal_offset_even", x, scale, zero_point, get_format("int8"))
    assert np.array_equal(ours, theirs.numpy())


def test_formulas_differ_on_images() -> None:
    """The share of pixels one code apart from ONNX Runtime: why a target names its formula."""
    fmt = get_format("int8")
    share = {
        name: float(
            np.mean(
                codes(name, PIXELS, SCALES[0], -1, fmt)
                != codes("divide_even", PIXELS, SCALES[0], -1, fmt)
            )
        )
        for name in ROUNDINGS
    }
    assert share["divide_even"] == 0
    assert 0 < share["reciprocal_even"] < 0.02
    assert share["divide_away"] > 0.1
    assert share["affine_even"] > 0.1
    assert share["reciprocal_offset_even"] > 0.1


def test_halves_away_from_zero() -> None:
    x = torch.tensor([0.49999997, -0.49999997, 0.5, -0.5, 1.5, -2.5, 8388609.0, -0.0, 0.0])
    expected = [0.0, 0.0, 1.0, -1.0, 2.0, -3.0, 8388609.0, 0.0, 0.0]
    assert round_half_away(x).tolist() == expected


def test_unknown_rounding_is_refused() -> None:
    with pytest.raises(SchemeError) as caught:
        get_rounding("floor")
    assert caught.value.code == "K304"
    assert "divide_even" in caught.value.help


finite = st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)


@given(finite, finite, finite)
@example(1 + 2.0**-12, 1 + 2.0**-12, -1.0)
@example(3.0, 2.0**-60, 2.0**24 + 2)
def test_fused_multiply_add_rounds_once(a: float, b: float, c: float) -> None:
    from fractions import Fraction

    exact = Fraction(a) * Fraction(b) + Fraction(c)
    for result in (
        fused_multiply_add(torch.tensor(a), torch.tensor(b), torch.tensor(c)).item(),
        float(reference.fused_multiply_add(a, b, c)),
    ):
        distance = abs(Fraction(result) - exact)
        value = np.float32(result)
        for neighbour in (np.nextafter(value, -np.inf), np.nextafter(value, np.inf)):
            other = abs(Fraction(float(neighbour)) - exact)
            assert distance < other or (distance == other and int(value.view(np.int32)) & 1 == 0), (
                "not the nearest float32, ties to even"
            )


def test_fused_multiply_add_keeps_infinity() -> None:
    big = torch.tensor([torch.inf, 3e38])
    result = fused_multiply_add(big, torch.tensor(2.0), torch.tensor(1.0))
    assert result.tolist() == [torch.inf, torch.inf]
