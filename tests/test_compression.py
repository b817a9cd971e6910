"""The one call, end to end, on a small trained network: what comes out, and what is chosen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import kompakt
from kompakt.artifact import open_artifact
from kompakt.artifact.verify import verify
from kompakt.compression import Result, compress
from kompakt.measuring.record import Record
from kompakt.search.budget import Budget

from .digits import (
    REPRODUCED,
    Digits,
    calibration,
    part,
    squeeze,
    timeless,
    trained,
    validation,
)

# --- what comes out ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The whole ladder, once."""
    return squeeze(
        tmp_path_factory.mktemp("climbed") / "out",
        calibration=calibration(),
        validation=validation(),
        metric="top1",
        budget=Budget(max_drop=0.05),
    )


def test_the_artifact_is_whole_and_computes_what_the_record_says(climbed: Result) -> None:
    names = {p.name for p in climbed.path.iterdir()}
    assert {"manifest.json", "model.onnx", "report.html", "golden.npz", "calibration.npz"} <= names
    assert verify(climbed.path).ok
    record = climbed.record
    assert record.candidate.metric is not None
    session = kompakt.load(climbed.path)
    images, labels = (torch.cat(parts) for parts in zip(*validation(), strict=True))
    right = session({"image": images.numpy()})["output"].argmax(1) == labels.numpy()
    # The record's figure is of the half that was not used to choose.
    assert right.mean() == pytest.approx(record.candidate.metric, abs=0.03)
    assert record.candidate.metric > 0.85
    assert kompakt.replay(climbed.path).exact


def test_the_record_has_every_documented_key(climbed: Result) -> None:
    data = json.loads(climbed.record.dumps())
    assert set(data) == set(Record.__dataclass_fields__)
    manifest = open_artifact(climbed.path).manifest
    assert manifest["record"] == data
    assert data["model"]["name"] == "digits"
    assert data["model"]["inputs"] == [
        {"name": "image", "shape": ["batch", 1, 8, 8], "dtype": "float32"}
    ]
    assert data["metric"]["name"] == "top1"
    assert data["metric"]["n"] == 200, "half of the validation data"
    assert data["metric"]["margin"] == 0.05
    assert data["drop"] == pytest.approx(data["baseline"]["metric"] - data["candidate"]["metric"])
    low, high = data["drop_interval"]
    assert low <= data["drop"] <= high
    assert data["source"]["metric"] == data["baseline"]["metric"]
    assert 0.9 < data["agreement"] <= 1
    assert data["size_ratio"] == pytest.approx(
        data["baseline"]["size_bytes"] / data["candidate"]["size_bytes"]
    )
    assert data["candidate"]["size_bytes"] == (climbed.path / "model.onnx").stat().st_size
    assert data["parity"]["verdict"] in ("exact", "within tolerance")
    assert data["speedup"] is None
    assert data["latency"] is None
    assert data["budget"]["max_drop"] == 0.05
    assert data["budget_met"] is True
    assert data["budget_reasons"] == []
    assert data["artifact"] == str(climbed.path)
    assert data["environment"]["versions"]["onnxruntime"]
    assert {"rewrite_s", "calibrate_s", "write_s", "parity_s"} <= set(data["timings"])


def test_the_trials_are_told(climbed: Result) -> None:
    trials = climbed.record.trials
    outcomes = [t["outcome"] for t in trials]
    assert outcomes.count("chosen") == 1
    assert {t["level"] for t in trials} == {1, 2}
    chosen = trials[outcomes.index("chosen")]
    assert chosen["scheme"] == climbed.record.scheme_name
    assert all(t["samples"] == 200 for t in trials if t["outcome"] in ("chosen", "kept"))
    assert all(math.isfinite(t["output_error"]) for t in trials if t["outcome"] == "kept")
    sites = climbed.record.sites
    assert {s["name"] for s in sites if s["role"] == "weight"} == {"body.0", "body.3", "head"}
    assert all(s["format"] or s["why_float"] for s in sites)


def test_the_same_seed_gives_the_same_bytes(climbed: Result, tmp_path: Path) -> None:
    again = squeeze(
        tmp_path / "again",
        calibration=calibration(),
        validation=validation(),
        metric="top1",
        budget=Budget(max_drop=0.05),
    )
    for name in REPRODUCED:
        assert (again.path / name).read_bytes() == (climbed.path / name).read_bytes(), name
    assert timeless(again.record) == timeless(climbed.record)


def test_speed_is_measured_and_stays_out_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kompakt.certification.LATENCY_SECONDS", 0.1)
    monkeypatch.setattr("kompakt.search.ladder.QUICK_SECONDS", 0.1)
    quick = squeeze(tmp_path / "quick", calibration=calibration(), scheme="w8a8")
    result = squeeze(
        tmp_path / "out",
        calibration=calibration(),
        scheme="w8a8",
        measure_latency=True,
        batch=4,
        budget=Budget(min_speedup=1000.0),
    )
    for name in REPRODUCED:
        assert (result.path / name).read_bytes() == (quick.path / name).read_bytes(), name
    record = result.record
    assert record.speedup is not None
    assert record.speedup > 0
    assert record.latency is not None
    assert record.latency["batch"] == 4
    assert {row["batch"] for row in record.latency["table"]} == {4, 8}
    for figures in (record.baseline, record.candidate):
        assert figures.latency_ms is not None
        assert figures.latency_ms > 0
        assert figures.peak_memory_bytes is None, "it was not asked for"
    assert record.source.latency_ms is not None
    assert record.memory_ratio is None
    assert record.budget_met is False
    assert "speed-up" in record.budget_reasons[0]
    assert record.verdict == "unmeasured"
    assert "Accuracy was not measured" in record.verdict_text


# --- choosing ---------------------------------------------------------------------------------


def test_a_budget_that_cannot_be_met_gives_the_closest_and_says_so(tmp_path: Path) -> None:
    result = squeeze(
        tmp_path / "out", validation=validation(), metric="top1",
        budget=Budget(max_drop=0.05, max_size=100), level=1,
    )  # fmt: skip
    record = result.record
    assert record.budget_met is False
    assert any("size in bytes" in reason for reason in record.budget_reasons)
    assert "The budget is not met" in record.verdict_text
    assert record.level == 1
    assert all("size in bytes" in t["why"] for t in record.trials if t["outcome"] == "over budget")
    assert verify(result.path).ok


def test_without_data_only_level_one_is_tried(tmp_path: Path) -> None:
    result = squeeze(tmp_path / "out")
    assert {t["level"] for t in result.record.trials} == {1}
    assert result.record.verdict == "unmeasured"
    assert result.record.metric is None
    assert not (result.path / "calibration.npz").exists()
    assert result.record.parity is not None
    assert result.record.parity["samples"] >= 1, "on the example"


def test_level_zero_writes_the_float_model(tmp_path: Path) -> None:
    result = squeeze(tmp_path / "out", level=0)
    assert result.record.scheme_name == "float32"
    assert result.record.level == 0
    assert result.record.size_ratio == pytest.approx(1.0)


def test_a_scheme_of_ones_own_is_certified_on_all_validation_data(tmp_path: Path) -> None:
    scheme = kompakt.w8a8(keep_float=("head",))
    result = squeeze(
        tmp_path / "out", calibration=calibration(), validation=validation(), metric="top1",
        scheme=scheme, calibrator="minmax", keep_float=("body.0",),
    )  # fmt: skip
    record = result.record
    assert record.metric is not None
    assert record.metric["n"] == 400
    assert record.calibrator == "minmax"
    floats = {s["name"] for s in record.sites if s["role"] == "weight" and not s["format"]}
    assert floats == {"head", "body.0"}
    assert len(record.trials) == 1


def test_separate_test_data_certifies(tmp_path: Path) -> None:
    result = squeeze(
        tmp_path / "out", validation=validation(), test=part(1300, 1420), metric="top1", level=1
    )
    assert result.record.metric is not None
    assert result.record.metric["n"] == 120
    assert {t["samples"] for t in result.record.trials if t["outcome"] != "not tried"} == {400}


def test_agreement_needs_no_labels(tmp_path: Path) -> None:
    images = [images for images, _ in validation()]
    result = squeeze(tmp_path / "out", validation=images, scheme="w8a8-dynamic")
    assert result.record.agreement == result.record.candidate.metric
    assert result.record.baseline.metric == 1.0


def test_generators_are_read_once_and_kept(tmp_path: Path) -> None:
    def stream() -> Iterator[Tensor]:
        yield from calibration()

    def labelled() -> Iterator[tuple[Tensor, Tensor]]:
        yield from validation()

    streamed = squeeze(tmp_path / "a", calibration=stream(), validation=labelled(), metric="top1")
    listed = squeeze(
        tmp_path / "b", calibration=calibration(), validation=validation(), metric="top1",
    )  # fmt: skip
    for name in REPRODUCED:
        assert (streamed.path / name).read_bytes() == (listed.path / name).read_bytes()
    assert timeless(streamed.record) == timeless(listed.record)


def test_one_calibration_sample_is_enough(tmp_path: Path) -> None:
    result = squeeze(tmp_path / "out", calibration=[calibration()[0][:1]], scheme="w8a8")
    assert result.record.parity is not None
    assert result.record.parity["samples"] == 1
    assert result.record.parity["verdict"] != "failed"


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = Digits().train()
    model.head.eval()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    compress(
        model, example_inputs=torch.zeros(2, 1, 8, 8), out=tmp_path / "out", scheme="w8",
        measure_latency=False, measure_memory=False,
    )  # fmt: skip
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_captured_network_is_taken_as_it_is(tmp_path: Path) -> None:
    network = kompakt.capture(trained(), torch.zeros(2, 1, 8, 8))
    result = compress(
        network, out=tmp_path / "out", scheme="fp16", measure_latency=False, measure_memory=False
    )
    assert result.record.scheme_name == "fp16"
    assert result.record.model["name"] == "Network"
    assert replace(result.record, artifact=None).artifact is None
