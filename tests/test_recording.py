"""What the record says about how it came about: the split of the data, and the call that made it."""

from __future__ import annotations

from pathlib import Path

from kompakt.search.budget import Budget

from .digits import calibration, part, squeeze


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
