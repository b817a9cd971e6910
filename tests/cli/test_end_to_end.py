"""The real thing, in processes of its own, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = "from kompakt.cli.main import run; run()"


def kompakt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_the_demo_and_what_it_says_to_type_next(tmp_path: Path) -> None:
    demo = kompakt(tmp_path, "demo")
    assert demo.returncode == 0, demo.stderr
    folder = tmp_path / "kompakt-demo"
    assert demo.stderr.startswith("understood: ")
    assert "\x1b" not in demo.stdout + demo.stderr
    assert "\r" not in demo.stderr
    lines = demo.stdout.splitlines()
    assert lines[0].startswith(("✓ proven", "~ observed", "? undecided"))
    assert max(map(len, lines)) <= 80
    for word in ("top1", "latency", "size", "peak memory", "parity: ✓ exact", "budget: ✓ met"):
        assert word in demo.stdout, word
    assert (folder / "report.html").stat().st_size > 10_000

    assert kompakt(tmp_path, "verify", "kompakt-demo").returncode == 0
    here = kompakt(tmp_path, "verify", "kompakt-demo", "--here", "--json")
    assert here.returncode == 0, here.stderr
    assert json.loads(here.stdout)["here"]["ok"] is True

    again = (lines[-1].strip()).split()
    assert again[:3] == ["kompakt", "measure", "kompakt-demo"]
    data = again[4].strip("'")
    measured = kompakt(tmp_path, "measure", "kompakt-demo", "--data", data, "--json")
    assert measured.returncode == 0, measured.stderr
    found = json.loads(measured.stdout)
    record = json.loads((folder / "manifest.json").read_text())["record"]
    assert found["metric"] == "top1"
    assert found["value"] == pytest.approx(record["candidate"]["metric"])

    chinese = kompakt(tmp_path, "report", "kompakt-demo", "--lang", "zh-CN")
    assert chinese.returncode == 0, chinese.stderr
    assert 'lang="zh-CN"' in Path(chinese.stdout.strip()).read_text()
    inside = kompakt(tmp_path, "report", "kompakt-demo", "-o", "kompakt-demo/report.html")
    assert inside.returncode == 2
    assert kompakt(tmp_path, "verify", "kompakt-demo").returncode == 0

    with (folder / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00")
    changed = kompakt(tmp_path, "verify", "kompakt-demo", "--here")
    assert changed.returncode == 1
    assert "model.onnx" in changed.stdout
    assert "error[K511]: model.onnx" in changed.stderr
    assert kompakt(tmp_path, "measure", "kompakt-demo", "--data", data).returncode == 1


MODEL = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    print("this is not the result")
    return nn.Sequential(*layers), torch.zeros(1, 1, 8, 8)
"""

COMPRESS = (
    "compress", "small:net", "--calibration", "builtin:digits", "--validation", "builtin:digits",
    "--scheme", "w8a8", "--calibrator", "minmax", "-o", "out",
)  # fmt: skip


def test_compress_prints_one_json_object_and_exits_with_3_over_budget(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(MODEL)
    met = kompakt(tmp_path, *COMPRESS, "--max-size", "1MB", "--json")
    assert met.returncode == 0, met.stderr
    record = json.loads(met.stdout)
    assert record["budget_met"] is True
    assert record["parity"]["verdict"] == "exact"
    assert record["candidate"]["size_bytes"] < record["baseline"]["size_bytes"]
    assert record["size_ratio"] > 1
    assert Path(record["artifact"]).name == "out"
    assert "this is not the result" in met.stderr
    assert "understood: model Sequential" in met.stderr

    over = kompakt(tmp_path, *COMPRESS, "--max-size", "1kB", "--quiet")
    assert over.returncode == 3
    assert "✗ not met" in over.stdout
    assert "understood" not in over.stderr
    against = kompakt(
        tmp_path, "measure", "out", "--data", "builtin:digits", "--against", "small:net",
        "--max-drop", "0.5", "--metric", "agreement",
    )  # fmt: skip
    assert against.returncode == 0, against.stderr
    assert "agreement" in against.stdout


def test_ctrl_c_leaves_nothing_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "demo", "-o", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first.startswith("understood")
    assert out == ""
    assert "kompakt demo -o out" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_reader_that_stops_reading_gets_no_stack_trace(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "help", "codes"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
