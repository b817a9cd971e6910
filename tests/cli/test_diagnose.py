"""``kompakt diagnose`` from the command line, on a source and on an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kompakt
from kompakt.errors import DataError, UsageError

from ..digits import calibration, squeeze, trained, validation

Invoke = Any
MODELS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    return model, torch.zeros(2, 6)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "diagnosed_models.py").write_text(MODELS, encoding="utf-8")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", input=rng.normal(size=(40, 6)).astype(np.float32))
    np.savez(tmp_path / "bytes.npz", input=255 * rng.normal(size=(40, 6)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_source_is_diagnosed(invoke: Invoke, folder: Path) -> None:
    result = invoke("diagnose", "diagnosed_models:net", "--data", "data.npz")
    assert result.exit_code == 0, result.output
    assert "simulated outputs are" in result.stdout
    assert "rounding" in result.stdout
    told = json.loads(
        invoke("diagnose", "diagnosed_models:net", "--data", "data.npz", "--json").stdout
    )
    assert told["samples"] == 20
    assert not any(cause["fault"] for cause in told["causes"])


def test_wrong_calibration_data_is_named(invoke: Invoke, folder: Path) -> None:
    result = invoke(
        "diagnose", "diagnosed_models:net", "--data", "data.npz", "--calibration", "bytes.npz", "--json"
    )  # fmt: skip
    first = json.loads(result.stdout)["causes"][0]
    assert first["cause"] == "preprocessing"
    assert "not divided by 255" in first["sentence"]
    assert first["after"] < 0.2 * first["before"]


def test_an_artifact_does_not_take_another_scheme(invoke: Invoke, folder: Path) -> None:
    (folder / "made").mkdir()
    result = invoke("diagnose", "made", "--data", "data.npz", "--scheme", "w8a8")
    assert result.exit_code == 2
    assert "tells itself" in result.output + result.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("diagnosed") / "digits"
    return squeeze(
        out, calibration=calibration(), validation=validation(), metric="top1", scheme="w8a8"
    )


def test_a_job_records_where_the_error_arises(made: Any) -> None:
    split = made.record.error_split
    assert split["samples"] == 8
    assert {row["site"] for row in split["sites"]} >= {"body.0", "head", "image"}
    assert made.record.diagnosis[0] == split["summary"]
    page = (made.path / "report.html").read_text(encoding="utf-8")
    assert "split-figure" in page


def test_an_artifact_is_compared_with_its_calibration(made: Any) -> None:
    images = [x for x, _ in validation()]
    assert kompakt.diagnose(made.path, images).faults == []
    found = kompakt.diagnose(made.path, [x * 255 for x in images])
    assert found.faults[0].cause.code == "preprocessing"
    edges = [f.cause.code for f in found.faults[1:]]
    assert "beyond_calibration" in edges


def test_with_its_source_an_artifact_is_split_by_layer(made: Any) -> None:
    images = [x for x, _ in validation()]
    found = kompakt.diagnose(made.path, images, source=trained(), example_inputs=images[0])
    assert found.faults == []
    assert found.output_error is not None
    assert found.output_error < 0.05
    assert len(found.sites) > 5


def test_too_little_is_refused() -> None:
    model, x = nn.Linear(3, 2).eval(), torch.zeros(2, 3)
    with pytest.raises(UsageError) as few:
        kompakt.diagnose(model, [x], example_inputs=x, samples=1)
    assert few.value.code == "K625"
    with pytest.raises(DataError) as one:
        kompakt.diagnose(model, [x[:1]], example_inputs=x)
    assert one.value.code == "K626"
