"""What :func:`kompakt.compress` refuses, and that a refusal or an interruption leaves nothing behind."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kompakt.artifact import open_artifact
from kompakt.artifact.verify import verify
from kompakt.compression import compress
from kompakt.errors import (
    CaptureError,
    DataError,
    KompaktError,
    MetricError,
    OutputError,
    SchemeError,
    UsageError,
)
from kompakt.search.budget import Budget
from kompakt.search.ladder import Ladder

from .digits import calibration, nothing_is_left, part, squeeze, trained, validation


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
    "static scheme without data": ({"scheme": "w8a8"}, UsageError, "K601"),
    "points for shares": (
        {"validation": validation(), "metric": "top1", "budget": Budget(max_drop=2)},
        UsageError,
        "K600",
    ),
    "no sample that counts": (
        {"validation": [(x, torch.full((len(x),), -1)) for x, _ in validation()], "metric": "top1"},
        MetricError,
        "K227",
    ),
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
