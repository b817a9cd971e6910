"""What the record says about how it came about: the split of the data, and the call that made it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from kompakt.measuring.latency import LatencyComparison, LatencySummary
from kompakt.recording import all_slower, unfused_sites
from kompakt.search.budget import Budget
from kompakt.search.candidates import without_data
from kompakt.search.trial import Trial

from .digits import calibration, part, squeeze, validation


def test_data_held_back_for_choosing_is_told_and_the_call_from_python_is_kept(
    tmp_path: Path,
) -> None:
    record = squeeze(
        tmp_path / "out",
        validation=part(900, 1001),
        metric="top1",
        level=1,
        budget=Budget(max_drop=0.05),
    ).record
    assert record.validation_split == {"choosing": 51, "certifying": 50}
    assert record.metric is not None
    assert record.metric["n"] == 50
    assert record.changes is not None
    assert record.changes["lost"] + record.changes["gained"] == record.metric["discordant"]
    (command,) = record.commands
    assert command.startswith("kompakt.compress(model, ..., metric='top1', ")
    assert "kompakt.Budget(max_drop=0.05)" in command
    assert "level=1" in command
    chosen = next(trial for trial in record.trials if trial["outcome"] == "chosen")
    assert "hold" in chosen["why"]


def test_with_test_data_or_nothing_to_choose_no_split_is_told(tmp_path: Path) -> None:
    test = part(1000, 1050)
    told = squeeze(tmp_path / "a", validation=part(900, 950), test=test, level=1, metric="top1")
    assert told.record.validation_split is None
    fixed = squeeze(
        tmp_path / "b",
        calibration=calibration(),
        validation=part(900, 950),
        scheme="w8a8",
        commands=["kompakt compress"],
        metric="top1",
    )
    assert fixed.record.validation_split is None
    assert list(fixed.record.commands) == ["kompakt compress"]


def timed(high: float) -> Trial:
    one = LatencySummary(median_ms=1.0, p90_ms=1.0, interval_ms=(1, 1), timings=60, repeats=1)
    latency = LatencyComparison(
        ratio=high - 0.1, interval=(high - 0.2, high), baseline=one, candidate=one,
        noise_interval=None, noisy=False, margin=0.05, pairs=60, confidence=0.95, seconds=1.0,
    )  # fmt: skip
    return Trial(candidate=without_data()[0], latency=latency)


def test_it_is_said_plainly_when_every_candidate_is_slower() -> None:
    untimed = Trial(candidate=without_data()[0])
    told = all_slower([timed(0.9), timed(0.8), untimed])
    assert "all 2 candidates" in told
    assert "keep the float model" in told
    assert all_slower([timed(0.9), timed(1.1)]) == ""
    assert all_slower([timed(0.9)]) == "", "the verdict says so already"


def test_the_verdict_names_the_chosen_scheme_in_words(tmp_path: Path) -> None:
    record = squeeze(tmp_path / "out").record
    assert record.scheme_name == "w8"
    assert "Chosen: w8 (8-bit weights, float arithmetic)." in record.verdict_text


def test_ranges_from_one_sample_are_warned_of(tmp_path: Path) -> None:
    told = "calibrated with one sample"
    one = squeeze(tmp_path / "a", calibration=[calibration()[0][:1]], scheme="w8a8").record
    assert any(told in warning for warning in one.warnings)
    more = squeeze(tmp_path / "b", calibration=calibration(), scheme="w8a8").record
    assert not any(told in warning for warning in more.warnings)


def test_a_result_and_a_record_are_short_when_printed(tmp_path: Path) -> None:
    result = squeeze(tmp_path / "out")
    assert repr(result).startswith("Result(scheme='w8', verdict='unmeasured'")
    assert str(tmp_path / "out") in repr(result)
    assert result.record.verdict_text in repr(result)
    assert repr(result.record).startswith("Record('digits', scheme='w8'")
    assert len(repr(result)) < 1000
    assert len(repr(result.record)) < 300


def test_someone_in_python_can_watch_the_trials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "kompakt")
    squeeze(tmp_path / "out", validation=validation(), metric="top1")
    told = [record.getMessage() for record in caplog.records if record.name == "kompakt"]
    assert any(line.startswith("weights in 8 bits: drop") for line in told)
    assert any(line.startswith("best so far: ") for line in told)
    assert any("validation split" in line for line in told)
    squeeze(tmp_path / "out")
    assert any("replaced the artifact of 2" in record.getMessage() for record in caplog.records)
    assert capfd.readouterr() == ("", ""), "nothing is printed unless somebody listens"


def test_sites_in_float_between_integer_layers_are_named_in_a_warning() -> None:
    assert unfused_sites(SimpleNamespace(unfused=())) == ""
    one = unfused_sites(SimpleNamespace(unfused=("conv",)))
    assert "run in float on this machine" in one
    assert one.endswith("(1): conv")
    many = unfused_sites(SimpleNamespace(unfused=tuple(f"layer.{i}" for i in range(12))))
    assert "layer.0, layer.1" in many
    assert many.endswith("layer.9 and 2 more")


def test_without_limits_there_is_no_budget_to_meet(tmp_path: Path) -> None:
    assert squeeze(tmp_path / "a", scheme="w8").record.budget_met is None
    small = squeeze(tmp_path / "b", scheme="w8", budget=Budget(max_size=10**9)).record
    assert small.budget_met is True
