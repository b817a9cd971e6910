"""Exact extremes in every memory layout, and a sample that depends on the sample only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kompakt.observe.edge_summary import (
    BLOCK,
    PER_SAMPLE,
    PER_TENSOR,
    BlockSampler,
    EdgeSummary,
    fingerprints,
    group,
    summarize,
)

SHAPES = [
    (4, 48, 14, 14),
    (4, 24, 9, 9),
    (2, 17, 7, 5),
    (3, 96, 8, 8),
    (3, 1, 5, 5),
    (4, 10, 33),
    (4, 33, 10),
    (5, 1000),
    (4, 3, 6, 6, 6),
]
LAYOUTS = {
    "contiguous": lambda x: x,
    "reversed": lambda x: (
        x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    ),
    "last dims swapped": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "sliced": lambda x: torch.cat((x, x), -1)[..., : x.shape[-1]],
}


def sampler(count: int, seed: int = 0) -> BlockSampler:
    return BlockSampler(np.random.default_rng(seed).random(count))


def summary(x: Tensor, samples: int | None = None, **options: object) -> EdgeSummary:
    options.setdefault("channel_dim", 1)
    found = summarize(x, sampler(samples or len(x)), **options)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channel_dim", [1, -1])
def test_extremes_equal_brute_force(shape: tuple[int, ...], layout: str, channel_dim: int) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    x = LAYOUTS[layout](torch.randn(shape, generator=generator))
    found = summary(x, channel_dim=channel_dim)
    channel = channel_dim % x.dim()
    others = [d for d in range(1, x.dim()) if d != channel]
    expected_high = x.amax(others) if others else x
    expected_low = x.amin(others) if others else x
    torch.testing.assert_close(found.highs, expected_high, rtol=0, atol=0)
    torch.testing.assert_close(found.lows, expected_low, rtol=0, atol=0)
    assert found.values == x.numel()


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_dense_layouts_are_grouped_without_copying(layout: str) -> None:
    x = LAYOUTS[layout](torch.randn(2, 8, 4, 4))
    assert group(x, 2, 0, 1).data_ptr() == x.data_ptr()


@pytest.mark.parametrize(
    ("shape", "batch_dim", "samples", "rows"),
    [
        ((7, 4, 16), 1, 4, 4),
        ((12, 5, 8), 0, 4, 4),
        ((6, 5), 0, 4, 1),
        ((5,), None, 1, 1),
        ((), 0, 3, 1),
    ],
)
def test_where_the_samples_are(
    shape: tuple[int, ...], batch_dim: int | None, samples: int, rows: int
) -> None:
    x = torch.randn(shape)
    found = summary(x, samples, batch_dim=batch_dim, channel_dim=-1)
    assert len(found.highs) == rows
    assert found.highs.max() == x.max()
    assert found.lows.min() == x.min()
    if batch_dim == 1:
        torch.testing.assert_close(found.highs, x.amax(0), rtol=0, atol=0)


def test_small_tensors_are_taken_whole() -> None:
    x = torch.randn(3, 8, 4, 4)
    taken = summary(x).sampled
    assert torch.equal(taken.sort().values, x.flatten().sort().values)
    taken[:] = 7.0
    assert x.max() < 7.0, "the sample must not share memory with the network's tensor"


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_large_tensors_give_whole_blocks_of_every_sample(layout: str) -> None:
    x = torch.arange(4 * 32 * 40 * 40, dtype=torch.float32).reshape(4, 32, 40, 40)
    memory = LAYOUTS[layout](x)
    blocks = summary(memory).sampled.view(4, -1, BLOCK)
    assert blocks.shape[1] == PER_SAMPLE // BLOCK
    for row in range(4):
        in_memory = memory[row].permute(1, 2, 0) if layout == "channels last" else memory[row]
        values = in_memory.flatten()
        for block in blocks[row]:
            start = int((values == block[0]).nonzero())
            assert torch.equal(values[start : start + BLOCK], block)


def test_what_is_taken_depends_on_the_sample_only() -> None:
    x = torch.randn(6, 16, 32, 32)
    inputs = torch.randn(6, 3, 8, 8)
    marks = fingerprints([inputs], 6)
    together = BlockSampler(marks).take(x.view(6, -1))
    for i in range(6):
        alone = BlockSampler(fingerprints([inputs[i : i + 1]], 1)).take(x[i : i + 1].view(1, -1))
        assert torch.equal(alone[0], together[i])
    assert len(set(marks.tolist())) == 6


def test_blocks_are_spread_over_the_whole_tensor() -> None:
    covered = torch.zeros(100_000)
    for seed in range(200):
        starts = sampler(1, seed)._block_starts(1, 100_000, PER_SAMPLE)
        assert int(starts.min()) >= 0
        assert int(starts.max()) <= 100_000 - BLOCK
        for start in starts.tolist():
            covered[start : start + BLOCK] += 1
    inner = covered[BLOCK:-BLOCK]
    assert inner.min() > 0
    assert inner.view(-1)[: len(inner) // 8 * 8].view(8, -1).mean(1).std() < 0.3


def test_a_tensor_without_samples_has_a_larger_budget() -> None:
    found = summary(torch.randn(1, 300_000), 4, batch_dim=None)
    assert found.sampled.numel() == PER_TENSOR


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 5000), st.integers(0, 2**31))
def test_taking_never_leaves_the_row(count: int, length: int, seed: int) -> None:
    rows = torch.arange(count, dtype=torch.float32)[:, None].expand(count, length).contiguous()
    taken = sampler(count, seed).take(rows)
    assert torch.equal(taken, rows[:, : taken.shape[1]])


def test_never_negative_is_a_hint_that_cannot_do_harm() -> None:
    x = torch.randn(2, 16, 64, 64)
    for tensor in (x, x.relu(), x.abs() + 1.0):
        told, plain = summary(tensor, never_negative=True), summary(tensor)
        assert torch.equal(told.lows.amin(1), plain.lows.amin(1))
        assert torch.equal(told.highs, plain.highs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype: torch.dtype) -> None:
    x = torch.randn(2, 4, 3, 3).to(dtype)
    found = summary(x)
    assert found.highs.max().item() == x.max().item()
    assert found.highs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_nan_is_not_lost() -> None:
    x = torch.randn(2, 48, 20, 20)
    x[1, 5, 3, 3] = float("nan")
    found = summary(x, never_negative=True)
    assert torch.isnan(found.highs).any(1).tolist() == [False, True]


def test_empty_tensors_have_no_summary() -> None:
    assert summarize(torch.empty(0, 3), sampler(1)) is None


def test_fingerprints_use_every_input_and_ignore_the_rest() -> None:
    a, b = torch.randn(2, 5), torch.arange(4).reshape(2, 2)
    both = fingerprints([a, b], 2)
    assert not np.array_equal(both, fingerprints([a], 2))
    np.testing.assert_array_equal(both, fingerprints([a, torch.ones(7), b], 2))
    assert fingerprints([torch.ones(7)], 2).tolist() == [0.0, 0.0]
