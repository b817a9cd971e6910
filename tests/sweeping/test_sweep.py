"""The whole sweep, in this process: every plan has a row, nothing is made twice, and the seed decides the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kompakt
from kompakt.errors import KompaktError
from kompakt.progress import Event, listening
from kompakt.sweeping import course
from kompakt.sweeping.stage import Stage
from kompakt.sweeping.sweep import Sweep, sweep

from ..nets import conv, grid

TIMED = ("timing", "run", "standing", "better")


class Little(nn.Module):
    """Two layers: quick to export and to run."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = conv(3, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def little() -> Little:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Little().eval()


def data(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    images = grid(24, 3, 10, 10, seed=seed)
    return list(zip(images.split(8), torch.arange(24).remainder(5).split(8), strict=True))


def swept(out: Path, **settings: Any) -> Sweep:
    quick = {"schemes": ("w8a8", "w8"), "measure_latency": False, "metric": "top1"}
    given = {"calibration": [x for x, _ in data(1)], "validation": data(2)}
    example = grid(2, 3, 10, 10)
    return sweep(little(), example_inputs=example, out=out, **{**quick, **given, **settings})


def timeless(found: Sweep) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMED} for row in found.rows]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the trials that are really made."""
    names: list[str] = []
    real = Stage.run
    monkeypatch.setattr(
        Stage, "run", lambda self, plan: (names.append(plan.name), real(self, plan))[1]
    )
    return names


def test_every_combination_is_made_judged_and_written_down(tmp_path: Path) -> None:
    found = swept(tmp_path)
    names = [row["name"] for row in found.rows]
    assert names == ["float", "w8a8 (mse)", "w8a8 (mse) + bias_correction", "w8", "w8 + bias_correction"]  # fmt: skip
    for row in found.rows:
        assert row["outcome"] == "done", row["why"]
        assert row["parity"] in ("exact", "within tolerance")
        assert row["samples"] == 24
        low, high = row["drop_interval"]
        assert low <= row["drop"] <= high
        assert row["size_bytes"] > 0
    assert found.rows[0]["drop_interval"] == [0.0, 0.0]
    assert found.front
    assert json.loads((tmp_path / "sweep.json").read_text()) == found.document
    assert "on the front" in (tmp_path / "sweep.html").read_text()


def test_a_second_run_makes_nothing_again(tmp_path: Path, made: list[str]) -> None:
    first = swept(tmp_path)
    made.clear()
    second = swept(tmp_path)
    assert made == []
    assert second.document["reused"] == 5
    assert second.rows == first.rows


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"validation": data(3)}, {"confidence": 0.9}, {"metric": "agreement"}],
    ids=lambda change: next(iter(change)),
)
def test_what_was_measured_otherwise_is_not_used(
    tmp_path: Path, made: list[str], change: dict[str, Any]
) -> None:
    swept(tmp_path, schemes=("w8",), methods=((),))
    made.clear()
    found = swept(tmp_path, schemes=("w8",), methods=((),), **change)
    assert made == ["float", "w8"]
    assert found.document["reused"] == 0


def test_another_model_of_the_same_form_is_not_taken_for_this_one(
    tmp_path: Path, made: list[str]
) -> None:
    swept(tmp_path, schemes=("w8",), methods=((),))
    made.clear()
    other = little()
    with torch.no_grad():
        other.head.bias += 1
    sweep(other, example_inputs=grid(2, 3, 10, 10), out=tmp_path, schemes=("w8",), methods=((),),
          validation=data(2), calibration=[x for x, _ in data(1)], metric="top1",
          measure_latency=False)  # fmt: skip
    assert made == ["float", "w8"]


def test_an_interrupted_sweep_keeps_what_it_knows_and_goes_on(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "note" and event.message.startswith("w8a8 (mse) on"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        swept(tmp_path)
    known = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["name"] for row in known["rows"]] == ["float", "w8a8 (mse)"]
    assert "2 of 5 trials are made" in (tmp_path / "sweep.html").read_text()
    made.clear()
    resumed = swept(tmp_path)
    assert made == ["w8a8 (mse) + bias_correction", "w8", "w8 + bias_correction"]
    assert timeless(resumed) == timeless(swept(tmp_path / "whole"))


def test_a_torn_journal_costs_one_trial(tmp_path: Path, made: list[str]) -> None:
    first = swept(tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    made.clear()
    second = swept(tmp_path)
    assert made == ["w8 + bias_correction"]
    assert timeless(second) == timeless(first)


def test_a_plan_that_cannot_be_carried_out_says_why(tmp_path: Path) -> None:
    with_int16 = kompakt.Scheme(
        name="impossible",
        default=kompakt.Treatment(mode="static", weight="int2", activation="auto8"),
    )
    found = swept(tmp_path, schemes=(with_int16,), methods=((),))
    row = found.rows[1]
    assert row["outcome"] == "refused"
    assert row["why"]
    assert row["standing"] is None
    assert [r["standing"] for r in found.rows[:1]] == ["front"]


def test_a_failed_trial_is_made_again_next_time(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Stage._judged

    def fails(self: Any, bench: Any, judge: Any, build: Any) -> Any:
        if build.candidate.name == "w8":
            raise RuntimeError("the runtime stumbled")
        return real(self, bench, judge, build)

    monkeypatch.setattr(Stage, "_judged", fails)
    first = swept(tmp_path, schemes=("w8",), methods=((),))
    assert (first.rows[1]["outcome"], first.rows[1]["why"]) == (
        "failed",
        "RuntimeError: the runtime stumbled",
    )
    monkeypatch.setattr(Stage, "_judged", real)
    made.clear()
    second = swept(tmp_path, schemes=("w8",), methods=((),))
    assert made == ["w8"]
    assert second.rows[1]["outcome"] == "done"


def test_without_calibration_data_half_of_the_validation_data_calibrates(tmp_path: Path) -> None:
    found = swept(tmp_path, calibration=None, schemes=("w8a8",), methods=((),))
    assert found.document["data"] == {"calibration": 12, "validation": 12}


def test_latency_is_told_beside_the_float_file(tmp_path: Path) -> None:
    found = swept(tmp_path, schemes=("w8",), methods=((),), measure_latency=True)
    timing = found.rows[0]["timing"]
    assert timing["pairs"] >= 60
    low, high = timing["speedup_interval"]
    assert low <= timing["speedup"] <= high
    assert timing["reference_ms"] > 0


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"methods": (("wonder",),)}, "K003"),
        ({"schemes": ("w9",)}, "K342"),
        ({"schemes": ()}, "K001"),
        ({"targets": ("nowhere",)}, "K404"),
        ({"calibrators": ("best",)}, "K003"),
        ({"sampler": "luck"}, "K003"),
        ({"trials": 0}, "K001"),
        ({"schemes": ("w8", "w8")}, "K001"),
        ({"keep_float": ("no.such.layer",)}, "K320"),
        ({"calibration": None, "validation": None}, "K601"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(KompaktError) as refused:
        swept(tmp_path, **settings)
    assert refused.value.code == code


def test_a_captured_network_is_not_sent_to_other_processes(tmp_path: Path) -> None:
    network = kompakt.capture(little(), grid(2, 3, 10, 10))
    with pytest.raises(KompaktError) as refused:
        sweep(network, validation=data(2), schemes=("w8",), methods=((),), jobs=2, out=tmp_path)
    assert refused.value.code == "K632"


def test_the_best_so_far_is_told_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "PUBLISHED_EVERY_S", 0.0)
    said: list[Event] = []
    with listening(said.append):
        swept(tmp_path, schemes=("w8",), methods=((),))
    best = [event.message for event in said if event.task == "best so far"]
    assert len(best) == 2
    assert str(tmp_path / "sweep.html") in best[0]
    trials = [event for event in said if event.task == "trials"]
    assert (trials[0].kind, trials[0].total) == ("start", 2)


@pytest.mark.slow
def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    alone = swept(tmp_path / "alone")
    assert timeless(swept(tmp_path / "two", jobs=2)) == timeless(alone)
