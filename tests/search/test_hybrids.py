"""Hybrids: which layers take dynamic ranges, by what that gains and costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kompakt.measuring.data import Batch
from kompakt.search.candidates import static, with_bias_correction
from kompakt.search.hybrids import (
    NOTICEABLE_ERROR,
    dynamic_effects,
    dynamic_where_harmless,
    hybrids,
    with_dynamic,
)
from kompakt.search.ranking import (
    RANKING_SAMPLES,
    float_outputs,
    output_error,
    rank_calibrators,
)
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench

from ..nets import grid
from .benches import workbench_for


class Outliers(nn.Module):
    """Three linear layers, the middle one reading a few values hundreds of times larger than the rest."""

    def __init__(self, tamed: float) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(40, 64), nn.Linear(64, 64), nn.Linear(64, 8)
        self.register_buffer("gain", torch.tensor([300.0] * 2 + [1.0] * 62))
        with torch.no_grad():
            self.b.weight[:, :2] *= tamed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(
            torch.tanh(self.b(torch.tanh(self.a(x)) * self.gain * (1 + x[:, :1].abs()) ** 3))
        )


def outliers(folder: Path, tamed: float = 1.0) -> Workbench:
    data = [Batch({"x": grid(16, 40, seed=s)}, None, 16) for s in range(2)]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        source = Outliers(tamed).eval()
    return workbench_for(source, data, folder, isa="x86")


def test_layers_with_outliers_are_found_and_made_dynamic(tmp_path: Path) -> None:
    bench = outliers(tmp_path)
    _, effects = dynamic_effects(bench, static("minmax"))
    assert min(effects, key=lambda effect: effect.error).layers == ("b",)
    plain, error = rank_calibrators(bench, ())[0]
    assert error > NOTICEABLE_ERROR
    found = hybrids(bench, plain, error)
    assert 1 <= len(found) <= 2
    for candidate, improved in found:
        assert improved < error
        assert candidate.scheme.overrides[0].select == "b"
        assert candidate.scheme.overrides[0].treatment.mode == "dynamic"
        assert candidate.calibrator == plain.calibrator
        assert candidate.name.startswith(f"{plain.name}, ")
        # The claim is that of the same network with corrected biases, on the first samples.
        placed = bench.place(with_bias_correction(candidate))
        first = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
        reference = float_outputs(bench.prepared, first)
        assert output_error(placed, reference, first) == pytest.approx(improved, rel=0.1)
        bench.build(candidate)


def test_what_is_no_better_is_not_tried(tmp_path: Path) -> None:
    """Where a scale for each batch serves no better than one for all, nothing is said to improve."""
    bench = outliers(tmp_path, tamed=0.01)
    plain, error = rank_calibrators(bench, ())[0]
    assert error > NOTICEABLE_ERROR
    assert hybrids(bench, plain, error) == []


def test_what_is_good_enough_is_not_made_slower(tmp_path: Path) -> None:
    assert hybrids(outliers(tmp_path), static("minmax"), NOTICEABLE_ERROR * 0.99) == []


def test_layers_that_stay_float_are_not_tried(tmp_path: Path) -> None:
    _, effects = dynamic_effects(outliers(tmp_path), static("minmax", ("b",)))
    assert effects
    assert not any("b" in effect.layers for effect in effects)


def test_trying_leaves_no_trace(tmp_path: Path) -> None:
    bench = outliers(tmp_path)
    before, effects = dynamic_effects(bench, static("minmax"))
    first = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
    placed = bench.place(static("minmax"))
    assert before == output_error(placed, float_outputs(bench.prepared, first), first)
    chosen = with_dynamic(static("minmax"), effects[1:2], effects)
    placed = bench.place(chosen)
    alone = output_error(placed, float_outputs(bench.prepared, first), first)
    assert alone == pytest.approx(effects[1].error, rel=1e-6)


def test_layers_that_do_not_suffer_may_all_be_dynamic(tmp_path: Path) -> None:
    bench = outliers(tmp_path)
    before, effects = dynamic_effects(bench, static("minmax"))
    candidate = dynamic_where_harmless(bench, static("minmax"))
    assert candidate is not None
    made = {override.select for override in candidate.scheme.overrides}
    kept = {e.layers[0] for e in effects if e.error > 1.02 * before}
    assert "b" in made
    assert not made & kept
    assert candidate.improves == "static (minmax)"


def test_layers_that_share_their_input_change_together(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.q(x)) * torch.tanh(self.k(x)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        bench = workbench_for(Shared().eval(), [Batch({"x": grid(8, 8)}, None, 8)], tmp_path)
    _, effects = dynamic_effects(bench, static("minmax"))
    assert {effect.layers for effect in effects} == {("q", "k"), ("out",)}
