"""Small jobs for the crews, in a module that worker processes can import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

JOBS = """
import os, signal, time
from pathlib import Path
from kompakt.errors import MetricError

def start(folder):
    if (Path(folder) / "stillborn").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (Path(folder) / "refused").exists():
        raise MetricError("K230", "one sample")

    def work(plan):
        (Path(folder) / f"seen-{plan}-{os.getpid()}").touch()
        if plan == "slow":
            time.sleep(30)
        if plan == "dies once" and not (Path(folder) / "died").exists():
            (Path(folder) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if plan == "dies always":
            os.kill(os.getpid(), signal.SIGKILL)
        if plan == "wrong data":
            raise MetricError("K230", "one sample")
        print("noise on stdout")
        return {"plan": plan, "run": {"attempts": 1}}

    return work
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The name of a start function, and the folder it leaves its marks in."""
    modules, marks = tmp_path / "modules", tmp_path / "marks"
    modules.mkdir()
    marks.mkdir()
    (modules / "little_jobs.py").write_text(JOBS)
    monkeypatch.setattr(sys, "path", [str(modules), *sys.path])
    yield "little_jobs:start", marks
    sys.modules.pop("little_jobs", None)
