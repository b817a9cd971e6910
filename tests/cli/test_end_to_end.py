"""The real thing, in processes of its own, as a user types it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Invoke

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


def test_the_demo_and_what_it_says_to_type_next(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = kompakt(tmp_path, "demo")
    assert demo.returncode == 0, demo.stderr
    assert demo.stderr.startswith("understood: ")
    assert "\x1b" not in demo.stdout + demo.stderr
    assert "\r" not in demo.stderr
    lines = demo.stdout.splitlines()
    accuracy = next(line for line in lines if line.startswith("accuracy: "))
    assert accuracy.split()[1:3] in (["✓", "proven:"], ["~", "observed:"], ["?", "undecided:"])
    assert any(line.startswith("speed: ") for line in lines)
    # Paths and what is typed next stay on one line, so that they can be copied.
    wrapped = (n for n in lines if str(tmp_path) not in n and not n.startswith("  kompakt"))
    assert max(map(len, wrapped)) <= 81
    for word in ("top1", "latency", "size", "peak memory", "parity: ✓ exact", "budget: ✓ met"):
        assert word in demo.stdout, word
    monkeypatch.chdir(tmp_path)
    assert Path("kompakt-demo/report.html").stat().st_size > 10_000
    again = shlex.split(lines[-1])
    assert again[:3] == ["kompakt", "measure", "kompakt-demo"]
    check_artifact(invoke)
    check_measuring(invoke, again[1:])
    check_report(invoke)
    check_damage(invoke, again[1:])


def check_artifact(invoke: Invoke) -> None:
    assert invoke("verify", "kompakt-demo").exit_code == 0
    here = invoke("verify", "kompakt-demo", "--here", "--json")
    assert here.exit_code == 0, here.stderr
    assert json.loads(here.stdout)["here"]["ok"] is True


def check_measuring(invoke: Invoke, command: list[str]) -> None:
    measured = invoke(*command, "--json")
    assert measured.exit_code == 0, measured.stderr
    found = json.loads(measured.stdout)
    record = json.loads(Path("kompakt-demo/manifest.json").read_text())["record"]
    assert found["metric"] == "top1"
    assert found["value"] == pytest.approx(record["candidate"]["metric"])
    alone = invoke("measure", "kompakt-demo", "--data", "builtin:digits", "--metric", "agreement")
    assert alone.exit_code == 2
    assert "--against" in alone.stderr
    against = ("--against", "kompakt-demo/model.onnx", "--max-drop", "0", "--metric", "agreement")
    same = invoke("measure", "kompakt-demo", "--data", "builtin:digits", *against)
    assert same.exit_code == 0, same.stderr
    assert "0 of which differ" in same.stdout


def check_report(invoke: Invoke) -> None:
    chinese = invoke("report", "kompakt-demo", "--lang", "zh-CN")
    assert chinese.exit_code == 0, chinese.stderr
    assert 'lang="zh-CN"' in Path(chinese.stdout.strip()).read_text()
    assert invoke("report", "kompakt-demo", "--lang", "zh").exit_code == 2
    inside = invoke("report", "kompakt-demo", "-o", "kompakt-demo/report.html")
    assert inside.exit_code == 2
    assert invoke("verify", "kompakt-demo").exit_code == 0


def check_damage(invoke: Invoke, command: list[str]) -> None:
    with Path("kompakt-demo/model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00")
    changed = invoke("verify", "kompakt-demo", "--here")
    assert changed.exit_code == 1
    assert "model.onnx" in changed.stdout
    assert "error[K511]: verifying the artifact" in changed.stderr
    as_json = invoke("verify", "kompakt-demo", "--json")
    assert json.loads(as_json.stdout)["problems"][0]["file"] == "model.onnx"
    assert invoke(*command).exit_code == 1
    assert invoke("verify", "nowhere").exit_code == 1


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
    "--scheme", "w8a8", "--calibrator", "minmax", "-o", "out", "--max-size", "1kB", "--json",
)  # fmt: skip


def test_over_budget_what_came_closest_is_written_and_the_exit_code_is_3(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    over = invoke(*COMPRESS)
    sys.modules.pop("small", None)
    assert over.exit_code == 3, over.stderr
    record = json.loads(over.stdout)
    assert record["budget_met"] is False
    assert record["parity"]["verdict"] == "exact"
    assert record["size_ratio"] > 1
    assert Path(record["artifact"]).name == "out"
    assert "this is not the result" in over.stderr
    assert "understood: model Sequential" in over.stderr
    against = invoke(
        "measure", "out", "--data", "builtin:digits", "--against", "small:net",
        "--max-drop", "0.5", "--metric", "agreement",
    )  # fmt: skip
    assert against.exit_code == 0, against.stderr
    assert "agreement" in against.stdout


def test_ctrl_c_leaves_nothing_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "demo", "-o", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite started in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
