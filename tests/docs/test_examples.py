"""The scripts in examples/ run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRINTS = {
    "budget": ("drop ", "tried "),
    "step_by_step": ("inputs ", " instead of "),
    "transformer": ("self_attn", "length 40: relative error 0.0"),
    "sensitive_layers": ("features.0", "classifier"),
}
EVERY_TIME = ("step_by_step", "transformer")
"""The others run with the slow tests."""


def test_every_example_is_run_here() -> None:
    assert set(PRINTS) == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("name", EVERY_TIME)
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    run(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PRINTS) - set(EVERY_TIME)))
def test_the_longer_example_runs(name: str, tmp_path: Path) -> None:
    run(name, tmp_path)
    if name == "budget":
        manifest = json.loads((tmp_path / "compact" / "manifest.json").read_text(encoding="utf-8"))
        compare_with_the_page(manifest["record"])


def run(name: str, folder: Path) -> None:
    """Run an example in a folder and look for what it should print."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for text in PRINTS[name]:
        assert text in done.stdout, done.stdout


def compare_with_the_page(record: Mapping[str, Any]) -> None:
    """Every key of a record's parts is described in docs/reference/record.md."""
    page = (EXAMPLES.parent / "docs" / "reference" / "record.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `?(.+?)`?\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    for part in ("latency", "parity", "trials", "sites"):
        value = record[part][0] if isinstance(record[part], list) else record[part]
        cells = [line.split("|")[1] for line in sections[part].splitlines() if "|" in line]
        described = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
        assert set(value) <= described, part
