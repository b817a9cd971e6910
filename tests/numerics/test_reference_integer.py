"""The integer referee against the real ONNX Runtime kernels: every code equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kompakt.errors import NumericsError
from kompakt.numerics.reference_integer import (
    Grid,
    add,
    average_pool2d,
    concat,
    conv2d,
    dequantize_accumulator,
    fitting,
    global_average_pool,
    linear,
    multiplier,
    multiply,
    regrid,
    requantize,
)

MICROSOFT = "com.microsoft"
# Scales whose quotients fall on ties, which is where orders of operations show.
SCALES = [0.02, 0.1, 1 / 127.5, 0.0473, 1 / 255, 0.25, 0.3, 0.7, 0.05]
RATIOS = [0.5, 1.0, 1.5, 0.25, 0.3, 0.1, 0.7]


def some_grid(rng: np.random.Generator, dtype: str, near: float | None = None) -> Grid:
    limits = np.iinfo(dtype)
    free = rng.choice(SCALES) if near is None else near * rng.choice(RATIOS)
    scale = free if rng.random() < 0.7 else free * rng.uniform(0.5, 2)
    zero_point = int(rng.integers(limits.min, limits.max + 1))
    return Grid(float(np.float32(scale)), zero_point)


def some_codes(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def on(grid: Grid, dtype: str) -> list[np.ndarray]:
    return [np.array(grid.scale, np.float32), np.array(grid.zero_point, dtype)]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("size", [1, 2, 7, 8, 15, 16, 31, 32, 33, 64, 95, 1000])
def test_add_of_any_length(dtype: str, size: int, run_kernel, x86: None) -> None:
    rng = np.random.default_rng(size)
    for _ in range(12):
        _check_add(rng, dtype, (size,), (size,), run_kernel)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3, 5, 7), (1,)),
        ((1,), (2, 3, 5, 7)),
        ((2, 3, 5, 7), (1, 3, 1, 1)),
        ((1, 3, 1, 1), (2, 3, 5, 7)),
        ((2, 3, 33), (33,)),
        ((33,), (2, 3, 33)),
        ((2, 3, 1, 1), (1, 3, 1, 1)),
    ],
    ids=str,
)
def test_add_with_broadcasting(
    dtype: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    run_kernel,
    x86: None,
) -> None:
    rng = np.random.default_rng(len(a))
    for _ in range(12):
        _check_add(rng, dtype, a, b, run_kernel)


def _check_add(
    rng: np.random.Generator,
    dtype: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    run_kernel,
) -> None:
    grid = some_grid(rng, dtype)
    grid_a, grid_b = some_grid(rng, dtype, grid.scale), some_grid(rng, dtype, grid.scale)
    codes_a, codes_b = some_codes(rng, dtype, a), some_codes(rng, dtype, b)
    (theirs,) = run_kernel(
        "QLinearAdd",
        [codes_a, *on(grid_a, dtype), codes_b, *on(grid_b, dtype), *on(grid, dtype)],
        [dtype],
        domain=MICROSOFT,
        constant=(1, 2, 4, 5, 6, 7),
    )
    assert np.array_equal(add(codes_a, grid_a, codes_b, grid_b, grid), theirs)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("a", "b"),
    [((1,), (1,)), ((257,), (257,)), ((2, 3, 5, 7), (2, 3, 1, 1)), ((2, 3, 1, 1), (2, 3, 5, 7))],
    ids=str,
)
def test_multiply(
    dtype: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    run_kernel,
) -> None:
    rng = np.random.default_rng(len(a))
    for _ in range(20):
        grid_a, grid_b = some_grid(rng, dtype), some_grid(rng, dtype)
        grid = some_grid(rng, dtype, grid_a.scale * grid_b.scale * 64)
        codes_a, codes_b = some_codes(rng, dtype, a), some_codes(rng, dtype, b)
        (theirs,) = run_kernel(
            "QLinearMul",
            [codes_a, *on(grid_a, dtype), codes_b, *on(grid_b, dtype), *on(grid, dtype)],
            [dtype],
            domain=MICROSOFT,
            constant=(1, 2, 4, 5, 6, 7),
        )
        assert np.array_equal(multiply(codes_a, grid_a, codes_b, grid_b, grid), theirs)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("channels_last", [0, 1])
def test_global_average_pool(dtype: str, channels_last: int, run_kernel) -> None:
    rng = np.random.default_rng(channels_last)
    for _ in range(40):
        shape = (2, int(rng.choice([1, 3, 17, 64])), *(int(v) for v in rng.integers(1, 9, 2)))
        x, grid_x = some_codes(rng, dtype, shape), some_grid(rng, dtype)
        grid = some_grid(rng, dtype, grid_x.scale)
        given_x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if channels_last else x
        (theirs,) = run_kernel(
            "QLinearGlobalAveragePool",
            [given_x, *on(grid_x, dtype), *on(grid, dtype)],
            [dtype],
            domain=MICROSOFT,
            constant=(1, 2, 3, 4),
            channels_last=channels_last,
        )
        ours = global_average_pool(x, grid_x, grid)
        assert np.array_equal(ours.reshape(-1), theirs.reshape(-1))


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_average_pool(dtype: str, count_include_pad: bool, run_kernel) -> None:
    rng = np.random.default_rng(int(count_include_pad))
    for _ in range(40):
        x, grid_x = some_codes(rng, dtype, (1, 3, 8, 9)), some_grid(rng, dtype)
        grid = some_grid(rng, dtype, grid_x.scale)
        kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        padding = (kernel[0] // 2, kernel[1] // 2) * 2
        (theirs,) = run_kernel(
            "QLinearAveragePool",
            [x, *on(grid_x, dtype), *on(grid, dtype)],
            [dtype],
            domain=MICROSOFT,
            constant=(1, 2, 3, 4),
            kernel_shape=kernel,
            strides=stride,
            pads=padding,
            count_include_pad=int(count_include_pad),
        )
        ours = average_pool2d(
            x,
            grid_x,
            grid,
            kernel=kernel,
            stride=stride,
            padding=padding,
            count_include_pad=count_include_pad,
        )
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_concat_and_leaky_relu(dtype: str, run_kernel) -> None:
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    every = np.arange(limits.min, limits.max + 1).astype(dtype).reshape(1, -1)
    for _ in range(30):
        grid = some_grid(rng, dtype)
        parts = [(every, some_grid(rng, dtype, grid.scale)) for _ in range(2)] + [(every, grid)]
        given_parts = [a for codes, part in parts for a in (codes, *on(part, dtype))]
        (theirs,) = run_kernel(
            "QLinearConcat",
            [*on(grid, dtype), *given_parts],
            [dtype],
            domain=MICROSOFT,
            constant=tuple(k for k in range(11) if k not in (2, 5, 8)),
            axis=1,
        )
        assert np.array_equal(concat(parts, grid, axis=1), theirs)
        slope = float(rng.choice([0.01, 0.1, 0.2, 0.5]))
        (theirs,) = run_kernel(
            "QLinearLeakyRelu",
            [every, *on(parts[0][1], dtype), *on(grid, dtype)],
            [dtype],
            domain=MICROSOFT,
            constant=(1, 2, 3, 4),
            alpha=slope,
        )
        ours = regrid(every, parts[0][1], grid, negative_slope=slope)
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_convolution(dtype: str, groups: int, run_kernel) -> None:
    rng = np.random.default_rng(groups)
    for _ in range(15):
        x, grid_x = some_codes(rng, dtype, (2, 8, 9, 7)), some_grid(rng, dtype)
        weight = rng.integers(-63, 64, (8, 8 // groups, 3, 3)).astype("int8")
        scale_w = rng.choice(SCALES, 8).astype(np.float32) / 10
        grid = some_grid(rng, dtype, grid_x.scale * 4)
        bias = rng.integers(-2000, 2000, 8).astype("int32")
        stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        padding = tuple(int(v) for v in rng.integers(0, 2, 4))
        dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        (theirs,) = run_kernel(
            "QLinearConv",
            [x, *on(grid_x, dtype), weight, scale_w, np.zeros(8, "int8"), *on(grid, dtype), bias],
            [dtype],
            constant=tuple(range(1, 9)),
            strides=stride,
            pads=padding,
            dilations=dilation,
            group=groups,
        )
        acc = conv2d(
            x,
            weight,
            bias,
            zero_point=grid_x.zero_point,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        factor = multiplier(grid_x.scale, scale_w, grid.scale)
        assert np.array_equal(requantize(acc, factor, grid.zero_point, dtype, axis=1), theirs)


def disputed_scales(seed: int, wanted: int) -> list[tuple[np.float32, np.ndarray, np.float32]]:
    """Scales for which the three ways to associate s_x·s_w/s_y give different multipliers."""
    rng = np.random.default_rng(seed)
    found: list[tuple[np.float32, np.ndarray, np.float32]] = []
    while len(found) < wanted:
        s_x = np.float32(rng.choice(SCALES))
        s_w = rng.choice(SCALES, 16).astype(np.float32)
        s_y = np.float32(s_x * s_w[0] / rng.choice([0.5, 0.25, 0.1, 0.3, 1.5, 0.7, 0.05]))
        product = multiplier(s_x, s_w, s_y)
        if (product != s_x * (s_w / s_y)).any() and (product != (s_x / s_y) * s_w).any():
            found.append((s_x, s_w, s_y))
    return found


@pytest.mark.parametrize("case", disputed_scales(0, 40), ids=lambda c: f"{c[0]:.3f}-{c[2]:.4f}")
def test_the_multiplier_associates_to_the_left(
    case: tuple[np.float32, np.ndarray, np.float32],
    run_kernel,
) -> None:
    scale_x, scale_w, scale_y = case
    rng = np.random.default_rng(1)
    weight = rng.integers(-5, 6, (16, 1)).astype("int8")
    x = np.arange(256).astype("uint8").reshape(256, 1)
    zero_x, zero_y = int(rng.integers(256)), int(rng.integers(256))
    into = [np.array(scale_x), np.array(zero_x, "uint8")]
    out = [np.array(scale_y), np.array(zero_y, "uint8")]
    zeros, bias = np.zeros(16, "int8"), np.zeros(16, "int32")
    acc = linear(x, weight, bias, zero_point=zero_x)
    ours = requantize(acc, multiplier(scale_x, scale_w, scale_y), zero_y, "uint8", axis=-1)
    (gemm,) = run_kernel(
        "QGemm",
        [x, *into, weight, scale_w, zeros, bias, *out],
        ["uint8"],
        domain=MICROSOFT,
        constant=tuple(range(1, 9)),
        transB=1,
    )
    (matmul,) = run_kernel(
        "QLinearMatMul",
        [x, *into, np.ascontiguousarray(weight.T), scale_w, zeros, *out],
        ["uint8"],
        constant=tuple(range(1, 8)),
    )
    (conv,) = run_kernel(
        "QLinearConv",
        [
            x.reshape(1, 1, 16, 16),
            *into,
            weight.reshape(16, 1, 1, 1),
            scale_w,
            zeros,
            *out,
            bias,
        ],
        ["uint8"],
        constant=tuple(range(1, 9)),
    )
    assert np.array_equal(ours, gemm)
    assert np.array_equal(ours, matmul)
    assert np.array_equal(ours, conv.reshape(16, 256).T)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_linear(dtype: str, run_kernel) -> None:
    rng = np.random.default_rng(0)
    for trial in range(30):
        rows, inner, outer = (int(rng.choice(v)) for v in ([1, 2, 5], [1, 16, 33], [1, 10, 17]))
        x, grid_x = some_codes(rng, dtype, (rows, inner)), some_grid(rng, dtype)
        weight = rng.integers(-127, 128, (outer, inner)).astype("int8")
        per_channel = trial % 2 == 0
        scale_w = (rng.choice(SCALES, outer if per_channel else ()) / 50).astype(np.float32)
        zero_w = np.zeros(scale_w.shape, "int8")
        bias = rng.integers(-9000, 9000, outer).astype("int32")
        grid = some_grid(rng, dtype, grid_x.scale * 4)
        inputs = [x, *on(grid_x, dtype), weight, scale_w, zero_w, bias]
        options = {"domain": MICROSOFT, "transB": 1}
        acc = linear(x, weight, bias, zero_point=grid_x.zero_point)
        (theirs,) = run_kernel(
            "QGemm", [*inputs, *on(grid, dtype)], [dtype], constant=tuple(range(1, 9)), **options
        )
        factor = multiplier(grid_x.scale, scale_w, grid.scale)
        assert np.array_equal(requantize(acc, factor, grid.zero_point, dtype, axis=-1), theirs)
        (floats,) = run_kernel("QGemm", inputs, ["float32"], constant=tuple(range(1, 7)), **options)
        assert np.array_equal(dequantize_accumulator(acc, grid_x.scale, scale_w), floats)


def test_dynamic_linear_adds_its_bias_unfused(run_kernel) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows, inner, outer = (int(rng.choice(v)) for v in ([1, 2, 5], [1, 16, 33], [1, 10, 17]))
        x, grid_x = some_codes(rng, "uint8", (rows, inner)), some_grid(rng, "uint8")
        weight = rng.integers(-128, 128, (inner, outer)).astype("int8")
        scale_w = rng.uniform(0.001, 0.05, outer).astype(np.float32)
        bias = rng.normal(size=outer).astype(np.float32)
        scale, zero = on(grid_x, "uint8")
        (theirs,) = run_kernel(
            "MatMulIntegerToFloat",
            [x, weight, scale, scale_w, zero, np.zeros(outer, "int8"), bias],
            ["float32"],
            domain=MICROSOFT,
            constant=tuple(range(1, 7)),
        )
        acc = linear(x, weight.T, zero_point=grid_x.zero_point)
        assert np.array_equal(dequantize_accumulator(acc, scale, scale_w, bias), theirs)


@given(
    batch=st.integers(1, 2),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 2),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.integers(0, 2),
    zeros=st.tuples(st.integers(0, 255), st.integers(-128, 127)),
    seed=st.integers(0, 99),
)
def test_integer_convolution_equals_torchs_in_float64(
    batch: int,
    groups: int,
    per_group: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: int,
    zeros: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (batch, groups * per_group, *size)).astype("uint8")
    weight = rng.integers(-128, 128, (groups * 2, per_group, *kernel)).astype("int8")
    bias = rng.integers(-(2**20), 2**20, groups * 2).astype("int32")
    zero_w = np.full(groups * 2, zeros[1])
    ours = conv2d(
        x,
        weight,
        bias,
        zero_point=zeros[0],
        weight_zero_point=zero_w,
        stride=stride,
        padding=(pad,) * 4,
        dilation=dilation,
        groups=groups,
    )
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x).double() - zeros[0],
        torch.from_numpy(weight).double() - zeros[1],
        torch.from_numpy(bias).double(),
        stride,
        pad,
        dilation,
        groups,
    )
    assert np.array_equal(ours, theirs.numpy())


def test_sums_that_overflow_the_accumulator_are_refused() -> None:
    x = np.full((1, 70000), 255, "uint8")
    weight = np.full((1, 70000), -128, "int8")
    with pytest.raises(NumericsError, match="2284800000") as caught:
        linear(x, weight)
    assert caught.value.code == "K307"
    assert linear(x, weight, accumulator=np.int64).tolist() == [[-2284800000]]
    with pytest.raises(NumericsError, match="K307"):
        conv2d(x[:, :, None, None], weight[:, :, None, None], accumulator=np.int32)


def test_an_empty_sum_fits() -> None:
    assert fitting(np.zeros((0, 3), np.int64), np.int32).shape == (0, 3)


def test_requantize_rounds_halves_to_even_and_saturates() -> None:
    acc = np.array([1, 3, 5, -1, -3, 10_000, -10_000])
    expected = [10, 12, 12, 10, 8, 127, -128]
    assert requantize(acc, 0.5, 10, "int8").tolist() == expected
