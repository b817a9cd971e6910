"""What ``kompakt verify`` says: each thing once, and no tick for what was not compared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kompakt.artifact
import kompakt.steps

from .conftest import Invoke


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the checks will find; a test may change it."""
    report = SimpleNamespace(ok=True, files=6, path=Path("folder"), problems=[])
    replayed = SimpleNamespace(
        exact=True,
        agrees=True,
        output_tolerance=1e-5,
        sites=5,
        differences=[],
        missing=[],
        outputs_equal=True,
        output_relative_error=0.0,
    )
    monkeypatch.setattr(kompakt.artifact, "verify", lambda _: report)
    monkeypatch.setattr(kompakt.steps, "replay", lambda _: replayed)
    return SimpleNamespace(report=report, replayed=replayed)


def damage(found: SimpleNamespace, *files: str) -> None:
    found.report.ok = False
    found.report.problems = [
        SimpleNamespace(file=file, what="is not what was written", code="K511") for file in files
    ]


@pytest.mark.parametrize("files", [("model.onnx",), ("model.onnx", "golden.npz")])
def test_a_problem_is_told_once(invoke: Invoke, found: Any, files: tuple[str, ...]) -> None:
    damage(found, *files)
    result = invoke("verify", "folder")
    assert result.exit_code == 1
    for file in files:
        assert result.stdout.count(f"{file} is not what was written") == 1
        assert file not in result.stderr
    assert "error[K511]" in result.stderr
    assert f"{len(files)} problem" in result.stderr


def test_as_json_the_problems_are_in_the_object(invoke: Invoke, found: Any) -> None:
    damage(found, "model.onnx")
    result = invoke("verify", "folder", "--json")
    assert json.loads(result.stdout)["problems"][0]["file"] == "model.onnx"


def test_the_replay_says_what_was_compared(invoke: Invoke, found: Any) -> None:
    assert "every code of 5 quantizers" in " ".join(
        invoke("verify", "folder", "--here").stdout.split()
    )
    found.replayed.exact, found.replayed.outputs_equal = False, False
    found.replayed.output_relative_error = 1.8e-7
    result = invoke("verify", "folder", "--here")
    assert result.exit_code == 0
    assert "relative error of the outputs 1.8e-07, within the certificate's 1e-05" in " ".join(
        result.stdout.split()
    )
    found.replayed.sites, found.replayed.output_relative_error = 0, 1.8e-7
    told = " ".join(invoke("verify", "folder", "--here").stdout.split())
    assert "no quantized activations: outputs compared only, relative error 1.8e-07" in told
    assert "0 quantizers" not in told
