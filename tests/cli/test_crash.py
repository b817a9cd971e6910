"""A whole ``kompakt compress`` that is killed, interrupted or out of disk: no artifact, or a complete one.

strace makes the first, second, … system call fail that touches the output or its hidden neighbours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kompakt.artifact import claim_output, open_artifact
from kompakt.artifact.verify import verify
from kompakt.compression import compress

RUNS = Path(__file__).with_name("crash_runs.py")
MODULE = """
import os, signal, torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))

def data():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(4, 6, generator=generator) for _ in range(2)]

def interrupted():
    yield data()[0]
    os.kill(os.getpid(), signal.SIGINT)
    yield data()[1]
"""
CHANGING = (
    "openat", "mkdir", "write", "pwrite64", "sendfile", "copy_file_range", "ftruncate",
    "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "flock",
)  # fmt: skip
TRACED = ("-e", "trace=" + ",".join(f"?{name}" for name in CHANGING))
CLEANING = ("unlink", "unlinkat", "rmdir", "flock")
"""After a fault in one of these something hidden may stay, until the next run."""
OLD, NEW = 0, 1
"""Seeds of the artifact that was there before and of the one being written."""
ERROR = r"^error\[K50[0-5]\]: .*\n(  at .*\n)?  because .*\n  help: "
REPRODUCED = ("model.onnx", "golden.npz", "calibration.npz")


@dataclass(frozen=True)
class Ended:
    """How a run ended and what it printed."""

    code: int
    out: str
    err: str


Kompakt = Callable[..., Ended]


@cache
def strace_attaches() -> bool:
    if shutil.which("strace") is None:
        return False
    sleeper = subprocess.Popen(["sleep", "0.5"])
    traced = subprocess.run(["strace", "-q", "-p", str(sleeper.pid)], capture_output=True)
    sleeper.wait()
    return traced.returncode == 0


needs_strace = pytest.mark.skipif(
    not strace_attaches(), reason="strace is not installed or may not attach to processes here"
)


@pytest.fixture(scope="module")
def kompakt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kompakt]:
    """``kompakt compress small:net …`` in a process of its own."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "small.py").write_text(MODULE)
    process = subprocess.Popen(
        [sys.executable, "-B", str(RUNS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "COLUMNS": "80"},
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def run(out: Path, seed: int = NEW, data: str = "data", strace: tuple[str, ...] = ()) -> Ended:
        arguments = ["compress", "small:net", "-o", str(out), "--seed", str(seed)]
        arguments += ["--calibration", f"small:{data}", "--scheme", "w8a8"]
        job = {"arguments": arguments, "folder": str(folder), "strace": strace}
        process.stdin.write(json.dumps(job) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return Ended(**json.loads(process.stdout.readline()))  # type: ignore[union-attr]

    yield run
    process.stdin.close()
    process.stdout.close()
    assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def old(kompakt: Kompakt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact to be replaced."""
    out = tmp_path_factory.mktemp("old") / "out"
    ended = kompakt(out, OLD)
    assert ended.code == 0, ended.err
    return out


def prepared(tmp_path: Path, old: Path | None) -> Path:
    """A fresh folder with the old artifact at ``out``, or with nothing."""
    folder = tmp_path / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if old is not None:
        shutil.copytree(old, folder / "out")
    return folder


def watching(folder: Path, names: list[str]) -> tuple[str, ...]:
    """Options that make strace see only what touches the output."""
    places = [folder / "out", *(folder / f".out.kompakt-{n}" for n in ("lock", "partial", "old"))]
    paths = [folder, *places, *(place / name for place in places for name in names)]
    return (
        "-o",
        str(folder.parent / "trace"),
        *TRACED,
        *(a for p in paths for a in ("-P", str(p))),
    )


def state(folder: Path) -> int | None:
    """Seed of the complete artifact that is there; anything half-written fails the test."""
    if not (folder / "out").exists():
        return None
    assert verify(folder / "out").ok
    return int(open_artifact(folder / "out").manifest["seed"])


def check_clear_way(folder: Path) -> None:
    """Whatever was left behind does not stand in the way of the next run, and goes with it."""
    before = state(folder)
    with claim_output(folder / "out"):
        pass
    assert [entry.name for entry in folder.iterdir()] == ([] if before is None else ["out"])
    assert state(folder) == before


def one_call(
    kompakt: Kompakt, tmp_path: Path, old: Path, call: str, fault: str, when: str, replace: bool
) -> Ended:
    """Run with one fault, and check what must hold after any."""
    before = OLD if replace else None
    folder = prepared(tmp_path, old if replace else None)
    names = [entry.name for entry in old.iterdir()]
    injected = ("-e", f"inject={call}:{fault}:when={when}")
    ended = kompakt(folder / "out", strace=(*watching(folder, names), *injected))
    found = state(folder)
    assert "Traceback" not in ended.err
    if fault == "signal=SIGKILL":
        assert ended.code == -9, ended
        assert found in (before, NEW)
    elif fault == "signal=SIGINT":
        assert ended.code in (0, 130), ended  # the very last calls come after the work
        assert found in (before, NEW)
        assert ended.code == 0 or "interrupted; nothing was left half-written" in ended.err
    else:
        assert ended.code in (0, 1), ended
        assert found == (NEW if ended.code == 0 else before), (call, when)
        assert ended.code == 0 or re.search(ERROR, ended.err, re.M), ended
    assert ended.code == 0 or ended.out == ""
    if ended.code > 0 and call not in CLEANING and found == before:
        # An empty lock file that nobody holds is in nobody's way.
        left = {entry.name for entry in folder.iterdir()} - {".out.kompakt-lock"}
        assert left == ({"out"} if replace else set()), (call, when)
    check_clear_way(folder)
    return ended


SAMPLE = [
    ("write", "signal=SIGKILL", "2", False),
    ("rename", "signal=SIGKILL", "1", False),
    ("renameat2", "signal=SIGKILL", "1", True),
    ("write", "error=ENOSPC", "2+", False),
    ("fsync", "error=ENOSPC", "3", True),
    ("mkdir", "signal=SIGINT", "1", True),
]


@needs_strace
@pytest.mark.parametrize(("call", "fault", "when", "replace"), SAMPLE)
def test_a_fault_at_some_calls(
    kompakt: Kompakt, tmp_path: Path, old: Path, call: str, fault: str, when: str, replace: bool
) -> None:
    ended = one_call(kompakt, tmp_path, old, call, fault, when, replace)
    assert ended.code != 0, "the fault never happened"
    if "ENOSPC" in fault:
        assert "error[K501]: cannot write to" in ended.err
        assert "No space left on device" in ended.err
        assert "free some space" in ended.err


def calls(kompakt: Kompakt, tmp_path: Path, old: Path, replace: bool) -> list[tuple[str, str]]:
    """Every call of an undisturbed run that touches the output: name and number."""
    folder = prepared(tmp_path, old if replace else None)
    ended = kompakt(folder / "out", strace=watching(folder, [p.name for p in old.iterdir()]))
    assert ended.code == 0, ended
    counts: dict[str, int] = {}
    found = []
    for name in re.findall(r"^(\w+)\(", (tmp_path / "trace").read_text(), re.M):
        counts[name] = counts.get(name, 0) + 1
        found.append((name, str(counts[name])))
    assert {name for name, _ in found} >= {"openat", "write", "fsync", "flock", "unlink"}
    return found


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("replace", [False, True], ids=["fresh", "replace"])
@pytest.mark.parametrize("fault", ["signal=SIGKILL", "signal=SIGINT", "error=ENOSPC"])
def test_a_fault_at_every_call(
    kompakt: Kompakt, tmp_path: Path, old: Path, fault: str, replace: bool
) -> None:
    codes = set()
    for call, when in calls(kompakt, tmp_path, old, replace):
        codes.add(one_call(kompakt, tmp_path, old, call, fault, when, replace).code)
    assert codes - {0} == {{"KILL": -9, "GINT": 130, "OSPC": 1}[fault[-4:]]}


def test_ctrl_c_during_the_work_leaves_nothing(kompakt: Kompakt, tmp_path: Path) -> None:
    ended = kompakt(tmp_path / "new" / "parents" / "out", data="interrupted")
    assert ended.code == 130, ended
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert "again: kompakt compress small:net" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_on_the_same_output_is_refused_at_once(
    kompakt: Kompakt, tmp_path: Path
) -> None:
    with claim_output(tmp_path / "out"):
        ended = kompakt(tmp_path / "out", data="interrupted")
    assert ended.code == 1, "it never came to the data"
    assert ended.out == ""
    assert f"error[K503]: {tmp_path / 'out'} is being written by process {os.getpid()}" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_after_a_killed_run_the_next_gives_the_bytes_of_any_other_process(
    kompakt: Kompakt, tmp_path: Path, old: Path
) -> None:
    """Also of a process in which strings hash to other numbers."""
    (tmp_path / ".out.kompakt-partial").mkdir()
    (tmp_path / ".out.kompakt-partial" / "model.onnx").write_bytes(b"half")
    (tmp_path / ".out.kompakt-lock").write_text("1")
    ended = kompakt(tmp_path / "out", OLD)
    assert ended.code == 0, ended.err
    namespace: dict[str, Any] = {}
    exec(MODULE, namespace)
    model: nn.Module = namespace["net"]()
    compress(
        model, example_inputs=torch.zeros(2, 6), calibration=namespace["data"](), scheme="w8a8",
        seed=OLD, out=tmp_path / "here", measure_latency=False, measure_memory=False,
    )  # fmt: skip
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["here", "out"]
    for name in REPRODUCED:
        there = (tmp_path / "out" / name).read_bytes()
        assert there == (old / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
