"""Searched grids round with less error than the full range, and never with more."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from kompakt.numerics.formats import get_format
from kompakt.quantize.layers import Treated, grid_of, weight_parameters
from kompakt.quantize.weight_ranges import (
    best_grid,
    group_columns,
    rounded_codes,
    search_weight_ranges_,
)
from kompakt.schemes import w4, w8a8, w8a8_dynamic

from ..nets import batches_for, network, ranged


def error(weight: Tensor, scale: Tensor, zero: Tensor, name: str) -> Tensor:
    codes = rounded_codes(weight, scale[..., None], zero[..., None], get_format(name))
    return (codes * scale[..., None] - weight).square().sum(-1)


@pytest.mark.parametrize(("name", "symmetric"), [("int4", True), ("uint4", False), ("uint4", True)])
def test_it_comes_close_to_the_best_of_all_grids(name: str, symmetric: bool) -> None:
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    found = error(
        weight, *best_grid(weight, torch.ones(()), get_format(name), symmetric=symmetric), name
    )
    fmt, best = get_format(name), torch.full((6,), torch.inf)
    zeros = [0 if fmt.signed else 8] if symmetric else range(fmt.qmin, fmt.qmax + 1)
    span = weight.aminmax(dim=-1)
    for factor, zero in itertools.product(torch.linspace(0.02, 0.2, 200), zeros):
        scale = factor * torch.maximum(-span.min, span.max)
        best = torch.minimum(best, error(weight, scale, torch.full((6,), float(zero)), name))
    assert bool((found <= 1.06 * best).all())


def test_an_outlier_is_clipped_only_as_far_as_importance_allows() -> None:
    weight = torch.cat([torch.linspace(-1, 1, 31), torch.tensor([6.0])])[None]
    fmt = get_format("int4")
    plain, _ = best_grid(weight, torch.ones(()), fmt, symmetric=True)
    matters = torch.ones(32)
    matters[-1] = 100.0
    kept, _ = best_grid(weight, matters, fmt, symmetric=True)
    assert float(plain) < float(kept)
    assert float(kept) * 7 == pytest.approx(6.0, rel=0.05)


def test_rows_of_zeros_and_one_sided_rows_have_sound_grids() -> None:
    weight = torch.stack([torch.zeros(8), torch.linspace(2, 3, 8), -torch.linspace(2, 3, 8)])
    for name, symmetric in (("uint4", False), ("int4", True)):
        scale, zero = best_grid(weight, torch.ones(()), get_format(name), symmetric=symmetric)
        assert bool((scale > 0).all())
        assert torch.equal(zero, zero.round())
        assert float(error(weight, scale, zero, name)[0]) == 0.0


@pytest.mark.parametrize("scheme", [w4(group=16), w4(group=16, symmetric=False), w8a8_dynamic()])
@pytest.mark.parametrize("name", ["dense 3d", "encoder"])
def test_no_layer_is_rounded_with_more_error(name: str, scheme: object) -> None:
    captured = network(name)
    placed, _ = ranged(captured, scheme, batches_for(name))  # type: ignore[arg-type]
    before = {m: m.treated_weight().clone() for m in placed.modules() if isinstance(m, Treated)}
    changed = search_weight_ranges_(placed, captured, [])
    better = 0
    for layer, rounded in before.items():
        own = float((layer.treated_weight() - layer.weight).detach().norm())
        full = float((rounded - layer.weight).detach().norm())
        assert own <= full * (1 + 1e-6)
        better += own < full
        scale, zero_point = weight_parameters(layer.weight, layer.treatment)
        assert [g.shape for g in grid_of(layer)] == [scale.shape, zero_point.shape]
        assert grid_of(layer)[1].dtype == zero_point.dtype
    assert changed >= better > 0


def test_a_last_group_may_be_shorter() -> None:
    captured = network("dense 3d")
    placed, _ = ranged(captured, w4(group=32), [])
    layer = next(m for m in placed.modules() if isinstance(m, Treated))
    lengths = [c.stop - c.start for c in group_columns(layer)]
    assert lengths == [32] * (layer.weight.shape[1] // 32) + [layer.weight.shape[1] % 32]
    assert search_weight_ranges_(placed, captured, []) > 0
    convolutions, _ = ranged(network("plain"), w8a8(), batches_for("plain"))
    whole = convolutions.get_submodule("b.0")
    assert isinstance(whole, Treated)
    assert group_columns(whole) == [slice(0, whole.weight[0].numel())]
