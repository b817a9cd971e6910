"""The ladder: which trial is best, when climbing ends, and that hopeless candidates cost little."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kompakt.errors import DataError, MetricError, NumericsError, SchemeError, TargetError
from kompakt.measuring.accuracy import PairedEvaluation
from kompakt.measuring.data import Batch
from kompakt.measuring.latency import LatencyComparison, LatencySummary
from kompakt.measuring.metrics import get_metric
from kompakt.schemes import FLOAT, Scheme, float32
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate, without_data
from kompakt.search.ladder import Ladder
from kompakt.search.rungs import Rungs
from kompakt.search.trial import Trial, prefer
from kompakt.search.workbench import Workbench
from kompakt.targets.target import Arrays

from ..nets import batches_for, grid, model
from .benches import workbench, workbench_for

CLASSES = 10
Run = Callable[[Arrays], Arrays]


def exact(inputs: Arrays) -> Arrays:
    """A classifier that is always right: the labels are part of its input."""
    return {"y": np.eye(CLASSES, dtype=np.float32)[inputs["x"][:, 0].astype(int)]}


def wrong_on(share: float) -> Run:
    """The same, but wrong on a share of the samples, chosen by their number."""

    def run(inputs: Arrays) -> Arrays:
        labels, numbers = inputs["x"][:, 0].astype(int), inputs["x"][:, 1]
        spoiled = (numbers * 0.618034) % 1.0 < share
        return {
            "y": np.eye(CLASSES, dtype=np.float32)[np.where(spoiled, (labels + 1) % 10, labels)]
        }

    return run


def batches(count: int = 40, size: int = 50) -> list[Batch]:
    rng = np.random.default_rng(0)
    numbers = rng.permutation(count * size).reshape(count, size).astype(np.float32)
    labels = rng.integers(0, CLASSES, (count, size))
    return [
        Batch(
            {"x": torch.from_numpy(np.stack([label, number], 1).astype(np.float32))},
            torch.from_numpy(label),
            size,
        )
        for label, number in zip(labels, numbers, strict=True)
    ]


@dataclass
class Bench:
    """Builds candidates whose behaviour is planted."""

    runs: dict[str, Run | Exception]
    sizes: dict[str, int] = field(default_factory=dict)
    samples: list[Batch] = field(default_factory=list)
    has_data: bool = False
    threads: int = 1
    calls: dict[str, int] = field(default_factory=dict)
    unsound: tuple[str, ...] = ()
    certified: list[str] = field(default_factory=list)

    def build(self, candidate: Candidate) -> Any:
        run = self.runs[candidate.name]
        if isinstance(run, Exception):
            raise run

        def counted(inputs: Arrays) -> Arrays:
            self.calls[candidate.name] = self.calls.get(candidate.name, 0) + 1
            return run(inputs)

        written = SimpleNamespace(size_bytes=self.sizes.get(candidate.name, 1000))
        return SimpleNamespace(candidate=candidate, written=written, runnable=counted)

    def float_build(self) -> Any:
        return SimpleNamespace(runnable=exact)

    def certificate(self, build: Any, samples: list[Batch]) -> Any:
        self.certified.append(build.candidate.name)
        wrong = build.candidate.name in self.unsound
        verdict, first = ("failed", "layer 3") if wrong else ("exact", None)
        count = sum(batch.size for batch in samples)
        return SimpleNamespace(verdict=verdict, first_difference=first, samples=count)


def candidates(*names: str) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(name=name, level=1, scheme=Scheme(name=name, default=FLOAT)) for name in names
    )


def ladder(bench: Bench, budget: Budget, *, judged: bool = True, **settings: Any) -> Ladder:
    data = batches()
    judge = PairedEvaluation(exact, data, get_metric("top1"), random_order=True) if judged else None
    return Ladder(
        bench=bench,  # type: ignore[arg-type]
        budget=budget,
        judge=judge,
        example=data[0],
        rng=np.random.default_rng(0),
        time_it=False,
        **{"fixed": candidates(*bench.runs), **settings},
    )


# --- dropping early ---------------------------------------------------------------------------


def test_a_hopeless_candidate_is_dropped_after_few_samples() -> None:
    bench = Bench({"broken": wrong_on(0.9), "good": wrong_on(0.001)})
    climbed = ladder(bench, Budget(max_drop=0.02))
    best = climbed.climb()
    broken, good = climbed.trials
    assert broken.outcome == "dropped early"
    assert broken.samples <= 150, "of 2,000"
    assert bench.calls["broken"] <= 3
    assert "proven to exceed 0.02" in broken.why
    assert broken.comparison is None
    assert good.outcome == "kept"
    assert good.samples == 2000
    assert best is good


def test_a_borderline_candidate_is_judged_to_the_end() -> None:
    climbed = ladder(Bench({"borderline": wrong_on(0.022)}), Budget(max_drop=0.02))
    climbed.climb()
    (trial,) = climbed.trials
    assert trial.outcome == "over budget"
    assert trial.samples == 2000
    assert trial.comparison is not None
    assert trial.comparison.drop == pytest.approx(0.022, abs=0.004)
    assert trial.why.startswith("the drop is")


def test_without_a_limit_on_the_drop_nothing_is_dropped() -> None:
    climbed = ladder(Bench({"broken": wrong_on(0.9)}), Budget(max_size=10_000))
    assert climbed.climb() is climbed.trials[0]
    assert climbed.trials[0].samples == 2000


# --- climbing ---------------------------------------------------------------------------------


def test_climbing_ends_when_all_that_was_asked_for_is_there() -> None:
    bench = Bench(
        {"large": exact, "small": exact, "never": exact}, sizes={"large": 9000, "small": 100}
    )
    climbed = ladder(bench, Budget(max_drop=0.02, max_size=500))
    best = climbed.climb()
    assert best is not None
    assert best.candidate.name == "small"
    assert [t.candidate.name for t in climbed.trials] == ["large", "small"]
    assert climbed.trials[0].outcome == "over budget"
    assert "size in bytes is 9,000" in climbed.trials[0].why


def test_a_speed_up_that_is_only_observed_does_not_end_it() -> None:
    tried = ladder(Bench({}), Budget(min_speedup=2.0))
    clear, open_ = trial("clear", 2.4, 100, 0.1), trial("open", 2.0, 100, 0.1)
    assert open_.latency is not None
    open_.latency = replace(open_.latency, interval=(1.9, 2.1))
    assert tried._settles(clear)
    assert not tried._settles(open_)


def test_a_limit_on_the_drop_alone_does_not_end_it() -> None:
    climbed = ladder(Bench({"first": exact, "second": exact}), Budget(max_drop=0.02))
    climbed.climb()
    assert len(climbed.trials) == 2, "the next one may be faster"


def test_what_comes_closest_when_nothing_holds() -> None:
    bench = Bench(
        {"bad": wrong_on(0.3), "near": wrong_on(0.05), "far": wrong_on(0.10)},
        sizes={"bad": 10, "near": 10, "far": 10},
    )
    climbed = ladder(bench, Budget(max_drop=0.01), judged=True)
    climbed.judge.random_order = False  # type: ignore[union-attr]
    best = climbed.climb()
    assert best is not None
    assert best.candidate.name == "near"
    assert best.over


def test_a_dropped_candidate_is_the_last_resort() -> None:
    bench = Bench({"broken": wrong_on(0.9), "heavy": exact}, sizes={"broken": 10, "heavy": 900})
    climbed = ladder(bench, Budget(max_drop=0.01, max_size=500))
    best = climbed.climb()
    assert best is not None
    assert best.candidate.name == "heavy"
    only = ladder(Bench({"broken": wrong_on(0.9)}), Budget(max_drop=0.01))
    assert only.climb() is only.trials[0]


def not_a_number(inputs: Arrays) -> Arrays:
    return {"y": np.full((len(inputs["x"]), CLASSES), np.nan, np.float32)}


def test_a_candidate_that_fails_never_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it cannot be built nor when it is built and then gives no numbers."""
    refused = TargetError("K400", "weights in int3", why="no kernel")
    bench = Bench(
        {"dynamic": refused, "weights in 8 bits": not_a_number, "weights in 4 bits": exact}
    )
    climbed = ladder(bench, Budget(max_drop=0.02), fixed=(), level=1)
    monkeypatch.setattr(Rungs, "_dynamic_share", lambda self: 1.0)
    best = climbed.climb()
    outcomes = {t.candidate.name: t.outcome for t in climbed.trials}
    assert outcomes == {
        "dynamic": "failed", "weights in 8 bits": "failed", "weights in 4 bits": "kept",
    }  # fmt: skip
    assert climbed.trials[0].why == "weights in int3: no kernel"
    assert best is climbed.trials[2]
    alone = ladder(
        Bench(dict.fromkeys((c.name for c in without_data()), not_a_number)),
        Budget(),
        fixed=(),
        level=1,
    )
    assert alone.climb() is None


def test_a_scheme_the_user_chose_fails_loudly() -> None:
    with pytest.raises(TargetError):
        ladder(Bench({"own": TargetError("K400", "x", why="y")}), Budget()).climb()
    with pytest.raises(MetricError):
        ladder(Bench({"own": not_a_number}), Budget()).climb()


# --- choosing ---------------------------------------------------------------------------------


def timed(ratio: float) -> LatencyComparison:
    one = LatencySummary(median_ms=1.0, p90_ms=1.0, interval_ms=(1, 1), timings=60, repeats=1)
    return LatencyComparison(
        ratio=ratio, interval=(ratio, ratio), baseline=one, candidate=one, noise_interval=None,
        noisy=False, margin=0.05, pairs=60, confidence=0.95, seconds=1.0,
    )  # fmt: skip


def trial(name: str, ratio: float | None, size: int, error: float | None) -> Trial:
    made = Trial(candidate=candidates(name)[0])
    made.build = SimpleNamespace(written=SimpleNamespace(size_bytes=size))  # type: ignore[assignment]
    made.latency = None if ratio is None else timed(ratio)
    made.output_error = error
    return made


@pytest.mark.parametrize(
    ("trials", "wanted"),
    [
        ([("slow", 1.0, 10, 0.0), ("fast", 2.0, 99, 0.9)], "fast"),
        ([("a bit faster", 2.1, 99, 0.0), ("smaller", 2.0, 50, 0.9)], "smaller"),
        ([("alike", 2.1, 51, 0.5), ("more faithful", 2.0, 50, 0.1)], "more faithful"),
        ([("large", None, 99, 0.0), ("small", None, 50, 0.9)], "small"),
        ([("not a number", 2.0, 50, float("nan")), ("number", 2.0, 50, 0.9)], "number"),
        ([("unknown", 2.0, 50, None), ("known", 2.0, 50, 0.9)], "known"),
    ],
)
def test_what_is_preferred(trials: list[tuple[Any, ...]], wanted: str) -> None:
    for order in (trials, trials[::-1]):
        assert prefer([trial(*t) for t in order]).candidate.name == wanted


def test_the_table_of_trials_says_everything() -> None:
    climbed = ladder(Bench({"good": wrong_on(0.001)}), Budget(max_drop=0.02))
    climbed.climb()
    row = climbed.trials[0].to_json()
    assert set(row) >= {
        *("name", "level", "calibrator", "metric", "drop", "drop_interval", "speedup"),
        *("size_bytes", "samples", "seconds", "outcome", "why"),
    }
    assert row["metric"] == pytest.approx(0.999, abs=0.002)
    assert row["drop_interval"][0] <= row["drop"] <= row["drop_interval"][1]


# --- on real networks -----------------------------------------------------------------------


def real_ladder(bench: Workbench, **settings: Any) -> Ladder:
    return Ladder(
        bench=bench, budget=Budget(), judge=None, example=batches_for("plain")[0],
        rng=np.random.default_rng(0), time_it=False, **settings,
    )  # fmt: skip


def test_levels_decide_what_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Candidate] = []

    def only_note(self: Ladder, candidate: Candidate) -> Trial:
        tried.append(candidate)
        return Trial(candidate=candidate)

    monkeypatch.setattr(Ladder, "_try", only_note)
    bench = workbench("plain", tmp_path)
    real_ladder(bench, level=0).climb()
    assert [c.scheme for c in tried] == [float32()]
    tried.clear()
    no_dynamic = real_ladder(bench, level=2)
    no_dynamic.climb()
    names = [c.name for c in tried]
    assert names[0] == "weights in 8 bits"
    assert names[1].startswith("static (")
    assert names[2] == f"{names[1]} + analytic bias correction + bias correction", "few samples"
    assert no_dynamic.trials[0].outcome == "not tried"
    assert "multiply-adds" in no_dynamic.trials[0].why, (
        "a convolutional network has nothing dynamic"
    )
    assert any("by calibrator" in finding for finding in no_dynamic.findings)
    tried.clear()
    real_ladder(workbench("plain", tmp_path, data=False), level=2).climb()
    assert [c.name for c in tried] == ["weights in 8 bits"]


def test_a_network_without_static_kernels_is_not_given_up(tmp_path: Path) -> None:
    upsampler = nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.GELU()).eval()
    data = [Batch({"input": grid(2, 3, 4, 4)}, None, 2)]
    bench = workbench_for(upsampler, data, tmp_path, isa="x86")
    climbed = real_ladder(bench, level=2)
    best = climbed.climb()
    assert best is not None
    assert best.candidate.level == 1
    assert climbed.trials[-1].outcome == "not tried"
    assert "no layer" in climbed.trials[-1].why


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_unknown_pattern_stops_the_ladder_before_it_begins(level: int, tmp_path: Path) -> None:
    climbed = real_ladder(
        workbench("plain", tmp_path), level=level, keep_float=("head", "nothing.*")
    )
    with pytest.raises(SchemeError) as caught:
        climbed.climb()
    assert caught.value.code == "K320"
    assert climbed.trials == []


def test_weights_that_are_no_numbers_are_no_candidates_fault(tmp_path: Path) -> None:
    broken = copy.deepcopy(model("plain"))
    with torch.no_grad():
        broken.head.weight[0, 0] = float("nan")
    with pytest.raises(NumericsError) as caught:
        real_ladder(workbench_for(broken, batches_for("plain"), tmp_path)).climb()
    assert caught.value.code == "K301"


def test_what_the_float_model_is_judged_by_must_be_right_first() -> None:
    """A metric or data that does not even fit the float model is not said of every candidate."""
    bench = Bench({"one": exact, "two": exact})
    climbed = ladder(bench, Budget(), fixed=(), level=1)
    climbed.judge = PairedEvaluation(not_a_number, batches(), get_metric("top1"))
    with pytest.raises(MetricError) as caught:
        climbed.climb()
    assert "float model" in caught.value.where
    unlabelled = [Batch(batch.inputs, None, batch.size) for batch in batches()]
    climbed.judge = PairedEvaluation(exact, unlabelled, get_metric("top1"))
    with pytest.raises(DataError):
        climbed.climb()
    assert bench.calls == {}
    assert climbed.trials == []


def test_data_that_changes_is_no_candidates_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(dict.fromkeys((c.name for c in without_data()), exact))
    climbed = ladder(bench, Budget(), fixed=(), level=1)
    monkeypatch.setattr(Rungs, "_dynamic_share", lambda self: 1.0)
    data = batches()
    climbed.judge = PairedEvaluation(exact, data, get_metric("top1"))
    assert climbed.judge.baseline.n == 2000
    data.reverse()
    with pytest.raises(DataError) as caught:
        climbed.climb()
    assert caught.value.code == "K213"
