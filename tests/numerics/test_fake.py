from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kompakt.numerics import ops
from kompakt.numerics.fake import fake_cast, fake_quantize, gradient_scale
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import (
    Granularity,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
    expand,
)
from kompakt.numerics.rounding import ROUNDINGS

GRANULARITIES = [PerTensor(), PerChannel(0), PerChannel(1), PerGroup(1, 3), PerToken()]
K = torch.ops.kompakt


def case(
    granularity: Granularity, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 8, generator=generator)
    shape = granularity.parameter_shape(x.shape)
    scale = torch.rand(shape, generator=generator) * 0.2 + 0.05
    zero = torch.randint(-3, 4, shape, generator=generator, dtype=torch.int32)
    return x, scale, zero


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_forward_is_qdq(rounding: str, axis: int | None) -> None:
    granularity = PerTensor() if axis is None else PerChannel(axis)
    x, scale, zero = case(granularity)
    fmt = get_format("int4")
    expected = K.qdq(
        x, scale, zero, fmt.qmin, fmt.qmax, ops.PER_TENSOR if axis is None else axis, rounding
    )
    assert torch.equal(fake_quantize(x, scale, zero, fmt, granularity, rounding), expected)


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@given(seed=st.integers(0, 1000))
def test_gradients_follow_the_formula(granularity: Granularity, seed: int) -> None:
    x, scale, zero = case(granularity, seed)
    fmt = get_format("int4")
    x.requires_grad_()
    scale.requires_grad_()
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1))
    fake_quantize(x, scale, zero, fmt, granularity, samples=2).backward(upstream)
    with torch.no_grad():
        step = expand(scale, x.shape, granularity)
        offset = expand(zero.float(), x.shape, granularity)
        v = x / step
        rounded = v.round()
        below, above = rounded < fmt.qmin - offset, rounded > fmt.qmax - offset
        inside = ~(below | above)
        slope = torch.where(inside, rounded - v, rounded)
        slope = torch.where(below, fmt.qmin - offset, slope)
        slope = torch.where(above, fmt.qmax - offset, slope)
        per_scale = torch.zeros_like(scale)
        owner = expand(
            torch.arange(scale.numel()).reshape(scale.shape), x.shape, granularity
        ).expand(x.shape)
        for k in range(scale.numel()):
            per_scale.view(-1)[k] = (upstream * slope)[owner == k].sum()
        n = max(1.0, x.numel() / (2 * scale.numel()))
        assert torch.equal(x.grad, upstream * inside)
        assert torch.allclose(scale.grad, per_scale / math.sqrt(n * fmt.qmax), atol=1e-5)


def test_gradient_of_the_scale_is_that_of_the_mean_error_far_from_ties() -> None:
    """Clipped values: the slope in the scale is exact, so finite differences agree."""
    x = torch.tensor([5.0, -7.0, 9.0])
    fmt, zero = get_format("int4"), torch.tensor(0, dtype=torch.int32)

    def total(s: float) -> torch.Tensor:
        return fake_quantize(x, torch.tensor(s), zero, fmt).sum()

    scale = torch.tensor(0.3, requires_grad=True)
    fake_quantize(x, scale, zero, fmt).sum().backward()
    numeric = (total(0.301) - total(0.299)) / 0.002
    factor = gradient_scale(3, scales=1, samples=1, largest=7)
    assert scale.grad.item() == pytest.approx(numeric.item() * factor, rel=1e-3)


def test_a_larger_batch_does_not_change_the_gradients_scale() -> None:
    one = gradient_scale(8 * 100, scales=1, samples=8, largest=127)
    other = gradient_scale(64 * 100, scales=1, samples=64, largest=127)
    assert one == other == 1 / math.sqrt(100 * 127)


def test_weights_count_the_elements_of_one_channel() -> None:
    assert gradient_scale(16 * 27, scales=16, samples=1, largest=7) == 1 / math.sqrt(27 * 7)
    assert gradient_scale(0, scales=1, samples=1, largest=0) == 1.0


def test_learning_the_scale_lowers_the_error() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, generator=generator)
    fmt, zero = get_format("int3"), torch.tensor(0, dtype=torch.int32)
    scale = torch.tensor(float(x.abs().max() / fmt.qmax), requires_grad=True)
    optimizer = torch.optim.Adam([scale], lr=1e-2)

    def error() -> torch.Tensor:
        return (fake_quantize(x, scale, zero, fmt) - x).square().mean()

    before = error().item()
    for _ in range(100):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < 0.5 * before
    assert scale > 0


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"])
def test_fake_cast_rounds_forward_and_clamps_backward(name: str) -> None:
    fmt = get_format(name)
    x = torch.tensor([0.1, -1.7, 300.0, 1e30, -3e38], requires_grad=True)
    scale = torch.tensor(1.0)
    y = fake_quantize(x, scale, torch.tensor(0), fmt)
    limit = float(fmt.qmax)
    assert torch.equal(y.detach(), x.detach().clamp(-limit, limit).to(fmt.torch_dtype).float())
    y.sum().backward()
    assert x.grad.tolist() == [float(abs(v) <= limit) for v in x.tolist()]


def test_fake_cast_scales() -> None:
    x = torch.tensor([3.14159])
    scaled = fake_cast(x, torch.tensor(2.0), get_format("fp8_e4m3"))
    expected = (x / 2).to(torch.float8_e4m3fn).float() * 2
    assert torch.equal(scaled, expected)


def test_half_precision_inputs_keep_their_dtype() -> None:
    x = torch.randn(3, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    scale = torch.tensor(0.1, requires_grad=True)
    y = fake_quantize(x, scale, torch.tensor(0), get_format("int8"))
    assert y.dtype == torch.float16
    y.sum().backward()
    assert x.grad.dtype == torch.float16
    assert scale.grad.dtype == torch.float32
