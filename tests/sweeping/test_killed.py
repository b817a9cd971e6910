"""A whole sweep on the command line, killed: what was finished is never made again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

COMMAND = (
    *("sweep", "kompakt.demo:trained_model", "--data", "builtin:digits", "--metric", "top1"),
    *("--no-latency", "--schemes", "w8a8,w8,w4"),
)
PROGRAM = "from kompakt.cli.main import run; run()"


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    arguments = [*COMMAND, "-o", str(out), *more]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def rows(out: Path) -> list[dict[str, Any]]:
    found = json.loads((out / "sweep.json").read_text())["rows"]
    timed = ("timing", "run", "standing", "better")
    return [{k: v for k, v in row.items() if k not in timed} for row in found]


def lines(out: Path) -> list[str]:
    journal = out / "journal.jsonl"
    return journal.read_text().splitlines() if journal.exists() else []


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_and_started_again_it_makes_only_what_is_missing(tmp_path: Path, jobs: str) -> None:
    killed = started(tmp_path / "killed", "--jobs", jobs)
    while len(lines(tmp_path / "killed")) < 3:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = lines(tmp_path / "killed")
    again = started(tmp_path / "killed", "--jobs", jobs)
    assert again.wait() == 0, again.communicate()
    after = lines(tmp_path / "killed")
    assert after[: len(before)] == before
    keys = [json.loads(line)["key"] for line in after]
    assert len(keys) == len(set(keys)) == 7
    whole = started(tmp_path / "whole")
    assert whole.wait() == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_interrupted_it_tells_the_best_so_far(tmp_path: Path) -> None:
    process = started(tmp_path, "--jobs", "2")
    while not (tmp_path / "sweep.html").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "best so far" in said
    assert "Traceback" not in said
    assert rows(tmp_path)
