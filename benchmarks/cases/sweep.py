"""A sweep of the DS-CNN: by processes, one of which is killed, on Ray, and resumed from a torn journal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import models
from benchmarks.datasets import kws
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt import sweep
from kompakt.sweeping.findings import JOURNAL
from kompakt.sweeping.sweep import Sweep

TITLE = "A sweep of the DS-CNN"

BATCH = 20
SCHEMES = ("w8a8", "w8a16", "w8a8-dynamic", "w8", "w4")
METHODS = ((), ("bias_correction",))
TARGETS = ("onnxruntime", "openvino")
TIMED = ("timing", "run", "standing", "better")
"""What may differ from run to run: times, and what is concluded from them."""


def run(setup: Setup) -> Outcome:
    """Calibrate on 200 clips, judge on the other 800; the same sweep four times."""
    folder = setup.scratch / "sweep"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    with one_worker_killed(folder / "processes" / JOURNAL) as killed:
        by_processes = swept(setup, folder / "processes", jobs=2)
    seconds = time.perf_counter() - began
    on_ray = swept(setup, folder / "ray", jobs=2, ray="local")
    whole = (folder / "processes" / JOURNAL).read_bytes()
    kept = torn(whole, folder / "resumed" / JOURNAL)
    resumed = swept(setup, folder / "resumed", jobs=1)
    again = swept(setup, folder / "processes", jobs=2)
    count = len(by_processes.rows)
    standings = [row["standing"] for row in by_processes.rows]
    attempts = [(row["run"] or {}).get("attempts") for row in by_processes.rows]
    rows = [
        Row(what="trials", figure=count, at_least=12),
        Row(
            what="on the front; not told apart from it; dominated beyond the intervals",
            figure=f"{standings.count('front')}; {standings.count('not told apart')}; "
            f"{standings.count('dominated')}",
            note=", ".join(f"{row['name']} on {row['target']}" for row in by_processes.front),
        ),
        Row(
            what="rows that differ between processes and Ray, times apart",
            figure=different(by_processes, on_ray),
            at_most=0,
        ),
        Row(
            what="trials lost when a worker is killed (SIGKILL) in the middle of one",
            figure=count
            - sum(row["outcome"] == "done" for row in by_processes.rows)
            - refused(by_processes),
            at_most=0,
            note=f"{len(killed)} worker killed; {sum(a == 2 for a in attempts)} trial begun again",
        ),
        Row(
            what="trials made again after kill -9 that the journal had",
            figure=kept - resumed.document["reused"],
            at_most=0,
            note=f"a journal cut in the middle of row {kept + 1} of {count}: {resumed.document['reused']} reused, "
            f"{different(by_processes, resumed)} rows differ",
        ),
        Row(
            what="trials made when nothing is missing",
            figure=count - again.document["reused"],
            at_most=0,
        ),
    ]
    details = {
        "title": TITLE,
        "seconds_by_processes": seconds,
        "rows": [brief(row) for row in by_processes.rows],
    }
    return Outcome(rows=rows, details=details)


def swept(setup: Setup, out: Path, *, jobs: int, ray: str | None = None) -> Sweep:
    """The sweep, made in one way."""
    entry = models.MODELS["kws_dscnn"]
    return sweep(
        entry.load(setup.assets),
        example_inputs=entry.example(),
        calibration=kws(setup.assets, "calibration").batches(BATCH),
        validation=kws(setup.assets, "evaluation").take(setup.some(800, 100)).batches(BATCH),
        metric="top1",
        schemes=SCHEMES[:2] if setup.quick else SCHEMES,
        methods=METHODS,
        targets=TARGETS[:1] if setup.quick else TARGETS,
        jobs=jobs,
        ray=ray,
        seed=setup.seed,
        out=out,
        name="DS-CNN",
    )


@contextmanager
def one_worker_killed(journal: Path) -> Iterator[list[int]]:
    """Kill one worker process of this program when the first trials are finished."""
    killed: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not (killed or ended.wait(0.1)):
            if journal.exists() and len(journal.read_bytes().splitlines()) >= KILLED_AFTER:
                killed.extend(workers()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        ended.set()
        watcher.join()


KILLED_AFTER = 2
"""Trials after which a worker is killed."""


def workers() -> list[int]:
    """The worker processes of this program."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # some other child has just ended
            if "kompakt.sweeping.worker" in child.cmdline():
                found.append(child.pid)
    return found


def torn(whole: bytes, path: Path) -> int:
    """A journal as a kill leaves it: the first half of its rows and a piece of the next; returns how many are whole."""
    lines = whole.splitlines(keepends=True)
    kept = len(lines) // 2
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(lines[:kept]) + lines[kept][:-20])
    return kept


def plain(found: Sweep) -> list[str]:
    """The rows without times."""
    return [
        json.dumps({k: v for k, v in row.items() if k not in TIMED}, sort_keys=True)
        for row in found.rows
    ]


def different(first: Sweep, second: Sweep) -> int:
    """How many rows differ."""
    pairs: Sequence[tuple[str, str]] = list(zip(plain(first), plain(second), strict=True))
    return sum(one != other for one, other in pairs)


def refused(found: Sweep) -> int:
    """Trials that no runtime could make, whoever tries."""
    return sum(row["outcome"] in ("refused", "parity failed") for row in found.rows)


def brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a row."""
    keys = ("name", "target", "outcome", "why", "drop", "drop_interval", "size_bytes", "standing")
    timing = row["timing"] or {}
    speed = {key: timing.get(key) for key in ("speedup", "speedup_interval", "latency_ms")}
    return {key: row[key] for key in keys} | speed
