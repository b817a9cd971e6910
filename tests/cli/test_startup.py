"""The command line starts at once: no model library is imported before a command runs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HELP = "import sys; from kompakt.cli.main import app; app(sys.argv[1:])"
HEAVY = ("torch", "numpy", "scipy", "onnx", "sklearn", "rich", "transformers", "onnxruntime")


@pytest.mark.parametrize("arguments", [("--help",), ("compress", "--help"), ("help", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", HELP, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: " in run.stdout
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "kompakt.cli.main" in imported
    assert not imported & set(HEAVY)


def test_help_costs_less_than_half_a_second_of_processor_time() -> None:
    code = (
        f"import time; from contextlib import suppress\nwith suppress(SystemExit): exec({HELP!r})"
    )
    code += "\nprint(time.process_time())"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
        )
        seconds.append(min(float(run.stdout.split()[-1]), time.perf_counter() - started))
    assert min(seconds) < 0.5


def test_an_error_code_is_explained_without_a_model_library() -> None:
    code = f"import sys; from contextlib import suppress\nwith suppress(SystemExit): exec({HELP!r})"
    code += "\nassert 'torch' not in sys.modules"
    run = subprocess.run(
        [sys.executable, "-c", code, "help", "K012"], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("K012: ")
