"""The one call, end to end, on a small trained network."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import kompakt
from kompakt.artifact import open_artifact
from kompakt.artifact.verify import verify
from kompakt.compression import Result, compress
from kompakt.errors import (
    CaptureError,
    DataError,
    KompaktError,
    MetricError,
    OutputError,
    SchemeError,
    UsageError,
)
from kompakt.measuring.record import Record
from kompakt.search.budget import Budget
from kompakt.search.ladder import Ladder

Pairs = list[tuple[Tensor, Tensor]]
REPRODUCED = ("model.onnx", "golden.npz", "calibration.npz")
"""Files that depend on the model, the data and the seed alone."""


class Digits(nn.Module):
    """Two convolutions and a linear layer, for 8×8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, padding=1, stride=2), nn.BatchNorm2d(24), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(24, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).mean((2, 3)))


@cache
def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    images = torch.from_numpy(found.images.astype(np.float32))[:, None] / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.from_numpy(found.target)[order]


def part(start: int, end: int, size: int = 50) -> Pairs:
    images, labels = (t[start:end] for t in digits())
    return list(zip(images.split(size), labels.split(size), strict=True))


@cache
def trained() -> Digits:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for epoch in range(5):
        for images, labels in part(0, 800, 40):
            optimizer.param_groups[0]["lr"] = 0.02 / (epoch + 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


def calibration() -> list[Tensor]:
    return [images for images, _ in part(800, 900)]


def validation() -> Pairs:
    return part(900, 1300)


def squeeze(out: Path, **settings: Any) -> Result:
    """Compress without the measurements that take long."""
    quick = {"measure_latency": False, "measure_memory": False, "name": "digits"}
    return compress(
        trained(), example_inputs=torch.zeros(2, 1, 8, 8), out=out, **{**quick, **settings}
    )


def timeless(record: Record) -> dict[str, Any]:
    """A record without what differs from run to run: the clock and where it was written."""
    data = record.to_json()
    for key in ("timings", "environment", "artifact"):
        del data[key]
    for trial in data["trials"]:
        del trial["seconds"]
    return data


def nothing_is_left(folder: Path) -> bool:
    return list(folder.iterdir()) == []


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


# --- what is refused, and what is then left behind --------------------------------------------


def spoiled(value: float) -> list[Tensor]:
    batches = [batch.clone() for batch in calibration()]
    batches[1][3, 0, 2, 2] = value
    return batches


REFUSED: dict[str, tuple[dict[str, Any], type[KompaktError], str]] = {
    "NaN in calibration": ({"calibration": spoiled(float("nan"))}, DataError, "K207"),
    "infinity in validation": (
        {"validation": [(spoiled(float("inf"))[1], torch.zeros(50, dtype=torch.int64))]},
        DataError,
        "K207",
    ),
    "empty calibration": ({"calibration": []}, DataError, "K203"),
    "another shape": ({"calibration": [torch.zeros(2, 3, 8, 8)]}, DataError, "K205"),
    "another type": ({"calibration": [torch.zeros(2, 1, 8, 8).double()]}, DataError, "K204"),
    "no labels": ({"validation": calibration(), "metric": "top1"}, DataError, "K210"),
    "labels on some batches": (
        {"validation": [*validation()[:2], validation()[2][0]], "metric": "top1", "scheme": "w8"},
        DataError,
        "K210",
    ),
    "one validation sample": (
        {"validation": part(900, 901), "metric": "top1"},
        MetricError,
        "K230",
    ),
    "three validation samples": (
        {"validation": part(900, 903), "metric": "top1"},
        MetricError,
        "K230",
    ),
    "one sample to choose on": (
        {"validation": part(900, 901), "test": part(900, 950), "metric": "top1"},
        MetricError,
        "K230",
    ),
    "NaN in test": (
        {"validation": validation(), "test": [(spoiled(float("nan"))[1], torch.zeros(50))]},
        DataError,
        "K207",
    ),
    "unknown pattern": ({"keep_float": ("bodyy.*",), "level": 1}, SchemeError, "K320"),
    "unknown pattern, nothing compressed": (
        {"keep_float": ("bodyy.*",), "level": 0},
        SchemeError,
        "K320",
    ),
    "unknown kind": ({"keep_float": ("kind:lstm",)}, SchemeError, "K320"),
    "unknown pattern in a scheme": (
        {"scheme": "w8", "keep_float": ("body.0", "tail")},
        SchemeError,
        "K320",
    ),
    "unknown scheme": ({"scheme": "w9"}, SchemeError, "K342"),
    "unknown calibrator": (
        {"scheme": "w8a8", "calibration": calibration(), "calibrator": "median"},
        SchemeError,
        "K346",
    ),
    "unknown target": ({"target": "tpu"}, UsageError, "K404"),
    "a drop without data": ({"budget": Budget(max_drop=0.1)}, UsageError, "K603"),
    "a speed not measured": ({"budget": Budget(min_speedup=2.0)}, UsageError, "K603"),
    "level 3": ({"level": 3}, UsageError, "K001"),
    "static without data": ({"level": 2}, UsageError, "K601"),
    "no threads": ({"threads": 0}, UsageError, "K001"),
    "static scheme without data": ({"scheme": "w8a8"}, DataError, "K601"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_written_when_something_is_refused(case: str, tmp_path: Path) -> None:
    settings, kind, code = REFUSED[case]
    with pytest.raises(kind) as caught:
        squeeze(tmp_path / "out", **settings)
    assert caught.value.code == code
    assert caught.value.help
    assert nothing_is_left(tmp_path)


def test_a_metric_that_returns_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "odd_metric.py").write_text(
        "import numpy as np\ndef nan(outputs, labels):\n    return np.full(len(labels), np.nan)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "module")
    (tmp_path / "results").mkdir()
    with pytest.raises(KompaktError) as caught:
        squeeze(
            tmp_path / "results" / "out", validation=validation(), metric="odd_metric:nan", level=1
        )
    assert caught.value.code == "K222"
    assert nothing_is_left(tmp_path / "results")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"scheme": "w8"}, "K301"),
        ({}, "K301"),
        ({"calibration": calibration()}, "K301"),
        ({"validation": validation(), "metric": "top1"}, "K225"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    settings: dict[str, Any], code: str, value: float, tmp_path: Path
) -> None:
    broken = copy.deepcopy(trained())
    with torch.no_grad():
        broken.head.weight[0, 0] = value
    with pytest.raises(KompaktError) as caught:
        compress(
            broken, example_inputs=torch.zeros(2, 1, 8, 8), out=tmp_path / "out",
            measure_latency=False, measure_memory=False, **settings,
        )  # fmt: skip
    assert caught.value.code == code
    assert caught.value.exit_code == 1
    assert nothing_is_left(tmp_path)


def test_a_model_without_example_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError) as caught:
        compress(trained(), out=tmp_path / "out")
    assert "example" in str(caught.value)
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("moment", ["calibrating", "climbing", "writing"])
def test_an_interruption_leaves_nothing(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    class Impatient:
        def __iter__(self) -> Iterator[Tensor]:
            yield calibration()[0]
            if moment == "calibrating":
                raise KeyboardInterrupt

    if moment == "climbing":
        monkeypatch.setattr(Ladder, "_judge", interrupt)
    if moment == "writing":
        monkeypatch.setattr("kompakt.compression.render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        squeeze(tmp_path / "out", calibration=Impatient(), scheme="w8a8")
    assert nothing_is_left(tmp_path)


def test_two_runs_at_once_on_one_output(tmp_path: Path) -> None:
    """The second is refused before its work starts; the first does not notice."""
    out, second = tmp_path / "out", []

    class Overtaken:
        def __iter__(self) -> Iterator[Tensor]:
            with pytest.raises(OutputError) as caught:
                squeeze(out, scheme="w8", calibration=self)
            second.append(caught.value)
            yield from calibration()

    result = squeeze(out, calibration=Overtaken(), scheme="w8a8")
    assert {error.code for error in second} == {"K503"}
    assert f"process {os.getpid()}" in second[0].what
    assert verify(out).ok
    assert open_artifact(out).manifest["record"]["scheme_name"] == result.record.scheme_name
    assert list(tmp_path.iterdir()) == [out]


def test_an_output_that_is_no_artifact_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError) as caught:
        squeeze(tmp_path / "out", calibration=spoiled(float("nan")), scheme="w8a8")
    assert caught.value.code == "K504", "it is found out before any work"
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_an_older_artifact_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    squeeze(out, scheme="w8")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(DataError):
        squeeze(out, calibration=spoiled(float("nan")), scheme="w8a8")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]
    squeeze(out, scheme="w8a8-dynamic")
    assert open_artifact(out).manifest["record"]["scheme_name"] == "w8a8-dynamic"


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
