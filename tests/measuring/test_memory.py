"""Peak memory of a fresh process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kompakt.errors import TargetError
from kompakt.measuring.memory import peak_memory

MODULE = """
import os, signal, sys, time

def takes(megabytes, imported=0):
    waste = bytearray(imported << 20)
    for i in range(0, len(waste), 4096): waste[i] = 1
    del waste
    def job():
        print("a runtime that talks")
        block = bytearray(megabytes << 20)
        for i in range(0, len(block), 4096): block[i] = 1
    return job

def killed():
    return lambda: os.kill(os.getpid(), signal.SIGKILL)

def exits():
    return lambda: os._exit(3)

def sleeps():
    return lambda: time.sleep(60)

def path():
    return lambda: sys.stderr.write("x")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_jobs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_jobs"


def test_what_the_job_takes_is_seen(module: str) -> None:
    found = peak_memory(f"{module}:takes", {"megabytes": 80})
    assert 79 << 20 <= found.above_bytes < 90 << 20  # the kernel counts pages in batches
    assert found.peak_bytes == found.baseline_bytes + found.above_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_what_imports_took_for_a_moment_does_not_count(module: str) -> None:
    found = peak_memory(f"{module}:takes", {"megabytes": 20, "imported": 100})
    assert found.above_bytes < 40 << 20


def test_the_size_of_the_calling_process_does_not_count(module: str) -> None:
    ballast = bytearray(200 << 20)
    ballast[::4096] = b"\x01" * len(ballast[::4096])
    assert peak_memory(f"{module}:takes", {"megabytes": 1}).peak_bytes < 150 << 20
    assert len(ballast) == 200 << 20


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("killed", "killed by signal 9"),
        ("exits", "ended with 3"),
        ("absent", "AttributeError"),
        ("takes", "TypeError"),
    ],
)
def test_a_process_that_fails_says_how(module: str, job: str, said: str) -> None:
    with pytest.raises(TargetError, match="K250") as caught:
        peak_memory(f"{module}:{job}")
    assert said in caught.value.why


def test_a_process_that_takes_too_long_is_given_up(module: str) -> None:
    with pytest.raises(TargetError, match="K250") as caught:
        peak_memory(f"{module}:sleeps", timeout_s=2.0)
    assert "2 s" in caught.value.why
