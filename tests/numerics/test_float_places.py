"""E4M3 against an independent implementation of it on every number where rounding changes, and its places."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import kompakt.numerics.ops  # noqa: F401  (registers kompakt::quantize)
from kompakt.numerics.affine import choose_qparams, dequantize, quantize
from kompakt.numerics.float_places import (
    at_float_places,
    float_places,
    half_of_last_step,
    places_of_bytes,
)
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerChannel

E4M3 = get_format("fp8_e4m3")
BYTES = np.array([b for b in range(256) if b & 0x7F != 0x7F], np.uint8)
"""All but the two NaNs."""
SCALES = [1.0, 0.013, 3e-5, 117.3, 2.0**-126]


def boundaries() -> NDArray[np.float32]:
    """Every number of the format, every middle between two, their neighbours, and numbers beyond the range."""
    grid = np.unique(BYTES.view(ml_dtypes.float8_e4m3fn).astype(np.float32))
    middles = (grid[1:] + grid[:-1]) / 2
    exact = np.concatenate([grid, middles, np.float32([448, 464, 465, 480, 1e6, 3e38])])
    exact = np.concatenate([exact, -exact, np.float32([0.0, -0.0, 1e-45, -1e-45])])
    up, down = (np.nextafter(exact, np.float32(end)) for end in (np.inf, -np.inf))
    whole = np.concatenate([exact, up, down]).astype(np.float32)
    return whole[np.isfinite(whole)]


def referee(x: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    with np.errstate(over="ignore"):
        ratio = x / np.float32(scale)
    codes: NDArray[np.uint8] = (
        np.clip(ratio, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    )
    return codes


@pytest.mark.parametrize("scale", SCALES)
def test_codes_are_those_of_ml_dtypes_at_every_boundary(scale: float) -> None:
    with np.errstate(over="ignore"):
        scaled = boundaries() * np.float32(scale)
    x = np.concatenate([boundaries(), scaled[np.isfinite(scaled)]])
    wanted = referee(x, scale)
    step, zero = torch.tensor(scale), torch.zeros((), dtype=torch.float8_e4m3fn)
    given = torch.from_numpy(x)
    ours = quantize(given, step, zero, E4M3)
    operator = torch.ops.kompakt.quantize(given, step, zero, -448, 448)
    for codes in (ours, operator):
        assert codes.dtype == torch.float8_e4m3fn
        np.testing.assert_array_equal(codes.view(torch.uint8).numpy(), wanted)
    values = wanted.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(scale)
    pair = torch.ops.kompakt.qdq(given, step, zero, -448, 448)
    np.testing.assert_array_equal(pair.numpy(), values)
    np.testing.assert_array_equal(dequantize(ours, step, zero).numpy(), values)
    decoded = torch.ops.kompakt.dequantize(operator, step, zero)
    np.testing.assert_array_equal(decoded.numpy(), values)


def test_halves_go_to_even_and_the_rest_saturates() -> None:
    given = torch.tensor([17.0, 19.0, 2.0**-10, 3 * 2.0**-10, 464.0, 1e9, -1e9])
    grid = torch.ones(()), torch.zeros((), dtype=torch.float8_e4m3fn)
    found = torch.ops.kompakt.qdq(given, *grid, -448, 448)
    assert found.tolist() == [16.0, 20.0, 0.0, 2.0**-8, 448.0, 448.0, -448.0]


def test_the_scale_takes_the_largest_magnitude_to_448() -> None:
    weight = torch.tensor([[0.5, -7.0, 1.0], [0.25, 0.1, -0.2]])
    scale, zero = choose_qparams(weight.amin(1), weight.amax(1), E4M3, symmetric=True)
    assert torch.equal(scale, torch.tensor([7.0, 0.25]) / 448)
    codes = quantize(weight, scale, zero, E4M3, PerChannel(0))
    assert codes.float().abs().amax(1).tolist() == [448.0, 448.0]


def test_gradients_pass_inside_the_range_only() -> None:
    x = torch.tensor([0.3, 448.0, 449.0, -1000.0], requires_grad=True)
    grid = torch.ones(()), torch.zeros((), dtype=torch.float8_e4m3fn)
    torch.ops.kompakt.qdq(x, *grid, -448, 448).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_places_count_the_numbers_of_the_format() -> None:
    codes = torch.from_numpy(BYTES).view(torch.float8_e4m3fn)
    places = float_places(codes)
    assert torch.equal(places, places_of_bytes(torch.from_numpy(BYTES)))
    order = torch.argsort(codes.float())
    steps = places[order].diff()
    assert sorted(steps.unique().tolist()) == [0, 1]
    assert int((steps == 0).sum()) == 1  # 0 and -0
    assert torch.equal(at_float_places(places, E4M3).float(), codes.float())


def test_the_last_step_is_32() -> None:
    assert half_of_last_step(E4M3) == 16.0
