"""What data is used for what: large validation data, groups, and samples where there is no calibration data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kompakt
from kompakt.artifact import open_artifact
from kompakt.artifact.golden import GOLDEN_SAMPLES
from kompakt.errors import DataError, UsageError
from kompakt.measuring.record import Record
from kompakt.search.budget import Budget

from .digits import calibration, part, squeeze, trained, validation

# --- validation data that does not fit into memory ----------------------------------------------


class Counted:
    """Data that says how often it was read."""

    def __init__(self) -> None:
        self.reads = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.reads += 1
        yield from validation()

    def __len__(self) -> int:
        return len(validation())


def test_validation_data_of_any_size_is_used_where_it_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kompakt.compression.HELD_BYTES", 1 << 10)
    data = Counted()
    record = squeeze(tmp_path / "out", validation=data, metric="top1", level=1).record
    assert record.metric is not None
    assert record.metric["n"] == 200, "the other half was chosen on"
    assert record.validation_split == {"choosing": 200, "certifying": 200}
    assert any("not held in memory" in warning for warning in record.warnings)
    assert data.reads > 3


def test_what_fits_is_held_and_shuffled(tmp_path: Path) -> None:
    data = Counted()
    record = squeeze(tmp_path / "out", validation=data, metric="top1", level=1).record
    assert not any("held in memory" in warning for warning in record.warnings)
    assert data.reads <= 2


def test_data_without_a_length_is_given_up_when_it_becomes_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_batch = 50 * 64 * 4
    monkeypatch.setattr("kompakt.compression.HELD_BYTES", 2 * one_batch)

    class Endless:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(validation())

    record = squeeze(tmp_path / "out", validation=Endless(), metric="top1", level=1).record
    assert any("not held in memory" in warning for warning in record.warnings)


# --- groups -------------------------------------------------------------------------------------


def test_groups_widen_the_interval_and_are_not_split(tmp_path: Path) -> None:
    groups = [f"writer {i // 8}" for i in range(400)]
    plain = squeeze(tmp_path / "a", validation=validation(), metric="top1", level=1).record
    grouped = squeeze(
        tmp_path / "b", validation=validation(), groups=groups, metric="top1", level=1
    ).record
    assert grouped.metric is not None
    assert plain.metric is not None
    assert plain.metric["method"].startswith("Tango")
    assert not grouped.metric["method"].startswith("Tango"), "50 groups are no 400 samples"
    assert grouped.drop_interval is not None
    assert plain.drop_interval is not None
    assert np.diff(grouped.drop_interval) > np.diff(plain.drop_interval)
    split = grouped.validation_split
    assert split is not None
    assert all(count % 8 == 0 for count in split.values()), "whole groups on both sides"
    assert sum(split.values()) == 400


def test_groups_of_test_data_and_when_measuring(tmp_path: Path) -> None:
    pairs = part(1300, 1420)
    labels = np.repeat(np.arange(30), 4)
    record: Record = squeeze(
        tmp_path / "out", validation=validation(), test=pairs, test_groups=labels, metric="top1",
        level=1,
    ).record  # fmt: skip
    assert record.metric is not None
    assert record.metric["n"] == 120
    assert not record.metric["method"].startswith("Tango")
    network = kompakt.capture(trained(), torch.zeros(2, 1, 8, 8))
    found = kompakt.measure(tmp_path / "out", pairs, "top1", against=network, groups=labels)
    assert not found["method"].startswith("Tango")
    alone = kompakt.measure(tmp_path / "out", pairs, "top1", against=network)
    assert alone["method"].startswith("Tango")


def test_groups_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    network = kompakt.capture(trained(), torch.zeros(2, 1, 8, 8))
    for count in (119, 121):
        with pytest.raises(DataError, match="K211"):
            kompakt.measure(network, part(1300, 1420), "top1", groups=list(range(count)))


def test_groups_beside_shuffled_data_are_refused() -> None:
    class Shuffled(list):  # type: ignore[type-arg]
        shuffled = True

    network = kompakt.capture(trained(), torch.zeros(2, 1, 8, 8))
    with pytest.raises(UsageError, match="K001"):
        kompakt.measure(network, Shuffled(part(1300, 1420)), "top1", groups=list(range(120)))


# --- samples ------------------------------------------------------------------------------------


def test_without_calibration_data_validation_inputs_are_golden_and_certify(tmp_path: Path) -> None:
    result = squeeze(tmp_path / "out", validation=validation(), metric="top1", level=1)
    golden = open_artifact(result.path).golden()
    assert golden is not None
    assert sum(len(batch.inputs["image"]) for batch in golden.batches) == GOLDEN_SAMPLES
    assert result.record.parity is not None
    assert result.record.parity["samples"] == GOLDEN_SAMPLES


def test_samples_are_drawn_across_sorted_calibration_data(tmp_path: Path) -> None:
    images = torch.cat(calibration())
    by_brightness = images[images.sum((1, 2, 3)).argsort()]
    result = squeeze(tmp_path / "out", calibration=by_brightness.split(20), scheme="w8a8")
    golden = open_artifact(result.path).golden()
    assert golden is not None
    kept = np.concatenate([batch.inputs["image"] for batch in golden.batches]).sum((1, 2, 3))
    whole = by_brightness.sum((1, 2, 3)).numpy()
    assert len(kept) == GOLDEN_SAMPLES
    assert kept.min() <= np.quantile(whole, 0.1)
    assert kept.max() >= np.quantile(whole, 0.9)


# --- the diagnosis of what was not chosen -------------------------------------------------------


def test_the_report_of_a_dynamic_choice_says_why_static_fails(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    data = [torch.randn(20, 512) for _ in range(10)]
    data[0][0, 0] = 70.0
    result = kompakt.compress(
        model, example_inputs=data[0], calibration=data[:5], validation=data[5:],
        metric="agreement", budget=Budget(max_drop=0.5, max_size=1_000_000), out=tmp_path / "out",
        measure_latency=False, measure_memory=False,
    )  # fmt: skip
    record = result.record
    assert record.scheme_name == "w8a8-dynamic"
    assert record.parity is not None
    assert record.parity["verdict"] in ("exact", "within tolerance")
    assert record.budget_met is True
    told = [text for text in record.diagnosis if "plain static INT8" in text]
    assert "outputs are off by" in told[0]
    assert any("outliers stretch its range" in text for text in told[1:])
    static = record.trials[-1]
    assert (static["level"], static["outcome"]) == (2, "not tried")
    assert "plain static INT8" in (result.path / "report.html").read_text(encoding="utf-8")
