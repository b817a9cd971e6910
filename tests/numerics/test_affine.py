from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from kompakt.errors import NumericsError
from kompakt.numerics import reference
from kompakt.numerics.affine import (
    SMALLEST_SCALE,
    choose_qparams,
    dequantize,
    dynamic_qparams,
    quantize,
    refuse_nonfinite,
)
from kompakt.numerics.formats import FORMATS, Format, get_format
from kompakt.numerics.granularity import (
    Granularity,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
    extremes,
)
from kompakt.numerics.rounding import ROUNDINGS

INTEGERS = [fmt for fmt in FORMATS.values() if fmt.kind == "int"]
GRANULARITIES: list[Granularity] = [
    PerTensor(),
    PerChannel(0),
    PerChannel(-1),
    PerGroup(1, 1),
    PerGroup(1, 3),
    PerGroup(0, 100),
    PerToken(),
]
numbers = st.floats(-(2.0**127), 2.0**127, width=32)
formats = st.sampled_from(INTEGERS)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32)


@st.composite
def grid_tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of halves of a step, with zeros, ties and repeated values; sometimes one element."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    step = draw(st.sampled_from([1 / 127.5, 1 / 255, 0.1, 0.5, 2.0**-7, 1e-30]))
    halves = st.lists(st.integers(-300, 300), min_size=rows * columns, max_size=rows * columns)
    return torch.tensor(draw(halves), dtype=torch.float32).reshape(rows, columns) * (step / 2)


@given(numbers, numbers, formats)
@example(0.0, 0.0, get_format("int8"))
@example(-1e-44, 1e-42, get_format("uint8"))
@example(-(2.0**127), 2.0**127, get_format("int1"))
@example(-3.4028234663852886e38, 3.4028234663852886e38, get_format("uint16"))
def test_affine_scale_is_usable_and_zero_is_a_code(a: float, b: float, fmt: Format) -> None:
    lo, hi = scalar(min(a, b)), scalar(max(a, b))
    scale, zero = choose_qparams(lo, hi, fmt, symmetric=False)
    assert scale.dtype == torch.float32
    assert zero.dtype == torch.int32
    assert bool(scale.isfinite())
    assert scale >= SMALLEST_SCALE
    assert fmt.qmin <= zero <= fmt.qmax
    at_zero = quantize(scalar(0.0), scale, zero, fmt)
    assert dequantize(at_zero, scale, zero) == 0
    # The ends of the range are represented within one step (the zero point is rounded).
    for end in (lo.clamp(max=0), hi.clamp(min=0)):
        back = dequantize(quantize(end, scale, zero, fmt), scale, zero).double()
        assert abs(back - end.double()) <= 1.001 * scale.double()


@given(numbers, numbers, formats)
@example(0.0, 0.0, get_format("uint8"))
@example(-1e-44, 1e-42, get_format("int8"))
def test_symmetric_scale_spans_the_larger_end(a: float, b: float, fmt: Format) -> None:
    lo, hi = scalar(min(a, b)), scalar(max(a, b))
    scale, zero = choose_qparams(lo, hi, fmt, symmetric=True)
    assert scale >= SMALLEST_SCALE
    assert zero == (0 if fmt.signed else (fmt.qmax + 1) // 2)
    largest = max(abs(min(a, b, 0.0)), abs(max(a, b, 0.0)))
    steps = max(1, fmt.qmax - int(zero))
    if largest / steps > SMALLEST_SCALE:
        assert scale == np.float32(largest) / np.float32(steps)


def test_symmetric_int8_uses_127_like_its_narrow_twin() -> None:
    lo, hi = scalar(-1.0), scalar(0.5)
    wide = choose_qparams(lo, hi, get_format("int8"), symmetric=True)
    narrow = choose_qparams(lo, hi, get_format("int8_narrow"), symmetric=True)
    assert wide == narrow == (np.float32(1) / np.float32(127), 0)
    unsigned = choose_qparams(lo, hi, get_format("uint8"), symmetric=True)
    assert unsigned == (np.float32(1) / np.float32(127), 128)


def test_ranges_of_exactly_zero_get_an_ordinary_scale() -> None:
    zeros = torch.zeros(3)
    assert (
        choose_qparams(zeros, zeros, get_format("uint8"), symmetric=False)[0].tolist()
        == [np.float32(1) / np.float32(255)] * 3
    )
    assert (
        choose_qparams(zeros, zeros, get_format("int8"), symmetric=True)[0].tolist()
        == [np.float32(1) / np.float32(127)] * 3
    )


@given(st.floats(-1000, 0, width=32), st.floats(0, 1000, width=32), formats)
def test_affine_parameters_equal_the_referee(lo: float, hi: float, fmt: Format) -> None:
    if (np.float32(hi) - np.float32(lo)) / (fmt.qmax - fmt.qmin) < 2 * SMALLEST_SCALE:
        return
    scale, zero = choose_qparams(scalar(lo), scalar(hi), fmt, symmetric=False)
    expected_scale, expected_zero = reference.choose_qparams(lo, hi, fmt.qmin, fmt.qmax)
    assert scale.numpy() == expected_scale
    assert zero.numpy() == expected_zero


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(x=grid_tensors(), fmt=formats, symmetric=st.booleans())
def test_codes_equal_the_referee(
    granularity: Granularity, rounding: str, x: torch.Tensor, fmt: Format, symmetric: bool
) -> None:
    scale, zero = choose_qparams(*extremes(x, granularity), fmt, symmetric=symmetric)
    codes = quantize(x, scale, zero, fmt, granularity, rounding)
    assert codes.dtype == fmt.torch_dtype
    arguments = scale.numpy(), zero.numpy()
    expected = reference.quantize(x.numpy(), *arguments, fmt.qmin, fmt.qmax, granularity, rounding)
    assert np.array_equal(codes.numpy(), expected)
    back = reference.dequantize(expected, *arguments, granularity)
    assert np.array_equal(dequantize(codes, scale, zero, granularity).numpy(), back)


@given(x=grid_tensors(), fmt=formats)
def test_quantizing_twice_changes_nothing(x: torch.Tensor, fmt: Format) -> None:
    scale, zero = choose_qparams(*extremes(x, PerTensor()), fmt, symmetric=False)
    codes = quantize(x, scale, zero, fmt)
    again = quantize(dequantize(codes, scale, zero), scale, zero, fmt)
    assert torch.equal(codes, again)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -3.0, 1e-45, 3e38])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_constant_tensors(value: float, granularity: Granularity) -> None:
    x = torch.full((2, 4), value)
    fmt = get_format("int8")
    scale, zero = choose_qparams(*extremes(x, granularity), fmt, symmetric=False)
    back = dequantize(quantize(x, scale, zero, fmt, granularity), scale, zero, granularity)
    largest_step = float(scale.max())
    assert torch.allclose(back, x, rtol=1e-6, atol=largest_step / 2)
    if abs(value) > 1e-30 or value == 0:
        assert torch.allclose(back, x, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_tensors(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape)
    fmt = get_format("uint4")
    scale, zero = choose_qparams(*extremes(x, PerTensor()), fmt, symmetric=False)
    codes = quantize(x, scale, zero, fmt)
    assert codes.shape == x.shape
    assert dequantize(codes, scale, zero).shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 33).to(dtype)
    scale, zero = scalar(1 / 127.5), torch.tensor(-1, dtype=torch.int32)
    fmt = get_format("int8")
    assert torch.equal(quantize(x, scale, zero, fmt), quantize(x.float(), scale, zero, fmt))


def test_sixteen_bit_unsigned_codes_survive() -> None:
    fmt = get_format("uint16")
    x = torch.tensor([0.0, 1.0, 0.5, 2.0])
    scale, zero = scalar(1 / 65535), torch.tensor(0, dtype=torch.int32)
    codes = quantize(x, scale, zero, fmt)
    assert codes.dtype == torch.uint16
    assert codes.numpy().tolist() == [0, 65535, 32768, 65535]


def test_dequantize_leaves_its_input_alone() -> None:
    codes, half = torch.tensor([1.0, 2.0]), torch.tensor(0.5)
    assert dequantize(codes, half, torch.tensor(0)).tolist() == [0.5, 1.0]
    assert codes.tolist() == [1.0, 2.0]


def test_unsigned_sixteen_bit_zero_points_in_groups() -> None:
    fmt, groups = get_format("uint16"), PerGroup(0, 2)
    x = torch.tensor([-1.0, 1.0, 3.0])
    scale, zero = choose_qparams(*extremes(x, groups), fmt, symmetric=False)
    zero = zero.to(torch.uint16)
    codes = quantize(x, scale, zero, fmt, groups)
    assert torch.allclose(dequantize(codes, scale, zero, groups), x, atol=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_numbers_that_are_not_finite_are_refused_by_name(bad: float, rounding: str) -> None:
    x = torch.tensor([0.0, bad, 1.0])
    with pytest.raises(NumericsError) as caught:
        quantize(
            x,
            scalar(0.1),
            torch.tensor(0),
            get_format("int8"),
            PerTensor(),
            rounding,
            site="layer1.0.conv2",
        )
    assert caught.value.code == "K301"
    assert caught.value.where == "layer1.0.conv2"
    assert "(3,)" in caught.value.what


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_ranges_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    for lo, hi in ((bad, 1.0), (-1.0, bad)):
        with pytest.raises(NumericsError) as caught:
            choose_qparams(
                scalar(lo), scalar(hi), get_format("int8"), symmetric=False, site="encoder.0"
            )
        assert (caught.value.code, caught.value.where) == ("K301", "encoder.0")


def test_inverted_ranges_are_refused() -> None:
    lo, hi = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.5])
    with pytest.raises(NumericsError, match=r"\[2.0, 1.5\]") as caught:
        choose_qparams(lo, hi, get_format("int8"), symmetric=True, site="fc")
    assert (caught.value.code, caught.value.where) == ("K302", "fc")


@pytest.mark.parametrize(("scale", "code"), [(0.0, "K302"), (-0.1, "K302"), (torch.nan, "K301")])
def test_useless_scales_are_refused(scale: float, code: str) -> None:
    with pytest.raises(NumericsError) as caught:
        quantize(torch.ones(2), scalar(scale), torch.tensor(0), get_format("int8"), site="fc")
    assert (caught.value.code, caught.value.where) == (code, "fc")


def test_integers_and_empty_tensors_are_finite() -> None:
    refuse_nonfinite(torch.tensor([1, 2]), what="codes", site="")
    refuse_nonfinite(torch.empty(0), what="a tensor", site="")


SMALL_FLOATS = {
    "fp16": {"mantissa_bits": 10, "smallest_exponent": -14, "largest": 65504.0},
    "bf16": {"mantissa_bits": 7, "smallest_exponent": -126, "largest": (2 - 2**-7) * 2.0**127},
    "fp8_e4m3": {"mantissa_bits": 3, "smallest_exponent": -6, "largest": 448.0},
    "fp8_e5m2": {"mantissa_bits": 2, "smallest_exponent": -14, "largest": 57344.0},
}


@pytest.mark.parametrize("name", SMALL_FLOATS)
@given(
    values=st.lists(
        st.floats(-3.3895313892515355e38, 3.3895313892515355e38, width=32)
        | st.floats(-512, 512, width=16),
        min_size=1,
        max_size=30,
    )
)
def test_small_floats_round_to_even_and_saturate(name: str, values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    fmt = get_format(name)
    codes = quantize(x, scalar(1.0), torch.tensor(0), fmt)
    assert codes.dtype == fmt.torch_dtype
    expected = reference.round_to_float(x.numpy(), **SMALL_FLOATS[name])
    assert np.array_equal(dequantize(codes, scalar(1.0), torch.tensor(0)).numpy(), expected)


def test_float_scales() -> None:
    lo, hi = torch.tensor([-896.0, 0.0]), torch.tensor([10.0, 4.48])
    scale, zero = choose_qparams(lo, hi, get_format("fp8_e4m3"), symmetric=True)
    assert scale.tolist() == pytest.approx([2.0, 0.01])
    assert zero.tolist() == [0, 0]
    assert choose_qparams(lo, hi, get_format("bf16"), symmetric=True)[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "x",
    [
        np.arange(256) / 255,
        np.arange(256) / 127.5 - 1,
        np.arange(-100, 1000) / 127.5,
        np.zeros(5),
        np.full(3, -2.5),
        np.full(1, 1e-42),
        np.array([1e-39, -1e-44]),
        np.array([-3e37, 2.7e38]),
    ],
    ids=["u8/255", "u8/127.5-1", "offset grid", "zeros", "constant", "denormal", "tiny", "huge"],
)
def test_dynamic_parameters_equal_onnx_runtime(x: np.ndarray, run_kernel) -> None:
    _same_as_dynamic_quantize_linear(x.astype(np.float32), run_kernel)


def test_dynamic_parameters_equal_onnx_runtime_on_random_data(run_kernel) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        size, width = int(rng.integers(1, 300)), 10.0 ** rng.uniform(-10, 10)
        x = rng.normal(rng.normal() * width, width, size).astype(np.float32)
        _same_as_dynamic_quantize_linear(x, run_kernel)


def _same_as_dynamic_quantize_linear(x: np.ndarray, run_kernel) -> None:
    codes, scale, zero = run_kernel("DynamicQuantizeLinear", [x], ["uint8", "float32", "uint8"])
    our_scale, our_zero = dynamic_qparams(torch.from_numpy(x))
    assert (our_scale.numpy(), our_zero.numpy()) == (scale, zero)
    assert our_zero.dtype == torch.uint8
    assert reference.dynamic_qparams(x) == (scale, zero)
    if our_scale >= SMALLEST_SCALE:
        ours = quantize(torch.from_numpy(x), our_scale, our_zero, get_format("uint8"))
        assert np.array_equal(ours.numpy(), codes)
