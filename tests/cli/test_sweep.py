"""``kompakt sweep`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kompakt.cli import sweep as command
from kompakt.cli.main import app
from kompakt.sweeping.sweep import Sweep

from ..report.sweeps import document


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the command asks for, instead of doing it."""
    found: dict[str, Any] = {}

    def run(source: str, data: str, calibration: Any, settings: Any, **_: Any) -> Sweep:
        found.update(settings, source=source, data=data, calibration=calibration)
        return Sweep(document=document(), path=tmp_path)

    monkeypatch.setattr(command, "_run", run)
    return found


def typed(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["sweep", *arguments], obj=["sweep", *arguments])


def test_lists_are_read(asked: dict[str, Any]) -> None:
    run = typed(
        "m:f", "--data", "d.npz", "-o", "out", "--schemes", "w8a8, w4", "--targets", "auto",
        "--methods", "none,bias_correction,equalize+bias_correction", "--per-layer", "float32",
        "--trials", "30", "--jobs", "2",
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert asked["schemes"] == ["w8a8", "w4"]
    assert asked["methods"] == [(), ("bias_correction",), ("equalize", "bias_correction")]
    assert asked["targets"] == ["auto"]
    assert asked["per_layer"] == ["float32"]
    assert (asked["trials"], asked["jobs"], asked["ray"]) == (30, 2, None)


def test_on_ray_all_processors_are_used_unless_a_number_is_given(asked: dict[str, Any]) -> None:
    typed("m:f", "--data", "d.npz", "-o", "out", "--ray", "auto")
    assert (asked["ray"], asked["jobs"]) == ("auto", 0)
    typed("m:f", "--data", "d.npz", "-o", "out", "--ray", "auto", "--jobs", "3")
    assert asked["jobs"] == 3


@pytest.mark.parametrize(
    "wrong",
    [("--schemes", "w8a9"), ("--methods", "wonder"), ("--targets", "x"), ("--calibrators", "y")],
)
def test_unknown_names_are_refused_before_anything_is_loaded(
    asked: dict[str, Any], wrong: tuple[str, str]
) -> None:
    run = typed("m:f", "--data", "d.npz", "-o", "out", *wrong)
    assert run.exit_code != 0
    assert asked == {}


def test_the_table_shows_the_front_first(asked: dict[str, Any]) -> None:
    out = typed("m:f", "--data", "d.npz", "-o", "out").output
    assert "4 of 7 trials are on the front" in out
    lines = [line for line in out.splitlines() if line[:1] in "●○×–"]
    signs = [line[0] for line in lines if line.strip()]
    assert signs[:7] == ["●", "●", "●", "●", "○", "×", "–"]
    assert "sweep.html" in out


def test_json_is_the_document(asked: dict[str, Any]) -> None:
    run = typed("m:f", "--data", "d.npz", "-o", "out", "--json")
    assert json.loads(run.stdout) == json.loads(json.dumps(document()))
