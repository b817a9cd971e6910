"""The README's table of measurements: order, titles, and what stands for parity."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_results", DOCS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(name: str, *rows: dict[str, Any], **details: str) -> dict[str, Any]:
    speed = {"what": "speed against float", "figure": 2.0, "unit": "×"}
    return {"name": name, "rows": [speed, *rows], "details": details}


def lines(made: ModuleType, monkeypatch: pytest.MonkeyPatch, *found: dict[str, Any]) -> list[str]:
    monkeypatch.setattr(made, "results", lambda: iter(found))
    table: str = made.table("readme", "en")
    return table.splitlines()[2 : 2 + len(found)]


def test_best_known_models_stand_first(made: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("kws", "minilm", "resnet20", "mobilenet")
    found = lines(made, monkeypatch, *map(result, names))
    firsts = [line.split(" | ")[0].strip("| ") for line in found]
    assert firsts[0] == "mobilenet"
    assert firsts[1] == "resnet20"
    assert firsts[-1] == "DS-CNN, keyword spotting"
    assert "MiniLM sentence embeddings, STS-B" in firsts


@pytest.mark.parametrize("verdict", ["failed", "within tolerance"])
@pytest.mark.parametrize(
    "what",
    [
        "the choice: referee against ONNX Runtime, relative error of the output",
        "integer referee against ONNX Runtime, the choice: relative error of the output",
    ],
)
def test_parity_without_codes_is_told_by_its_verdict(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch, what: str, verdict: str
) -> None:
    row = {"what": what, "figure": 0.04, "note": f"verdict: {verdict}; 0 codes at 0 quantizers"}
    (line,) = lines(made, monkeypatch, result("minilm", row))
    assert line.endswith(f"| {verdict} |")


def test_a_share_of_codes_stays_a_share_and_a_noted_drop_is_used(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {"what": "integer referee = ONNX Runtime", "figure": 100.0, "unit": "%"}
    agreement = {
        "what": "agreement with float",
        "figure": 98.9,
        "unit": "%",
        "note": "800 clips; top-1 drop -0.25 points",
    }
    (line,) = lines(made, monkeypatch, result("kws", codes | {"note": "verdict: exact"}, agreement))
    assert line.endswith("| 100 % |")
    assert "| -0.25 points |" in line
