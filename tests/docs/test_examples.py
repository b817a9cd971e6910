"""The scripts in examples/ run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRINTS = {
    "budget": ("drop ", "tried "),
    "step_by_step": ("inputs ", " instead of "),
    "transformer": ("self_attn", "length 40: relative error 0.0"),
    "sensitive_layers": ("features.0", "classifier"),
}


def test_every_example_is_run_here() -> None:
    assert set(PRINTS) == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("name", PRINTS)
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for text in PRINTS[name]:
        assert text in run.stdout, run.stdout
