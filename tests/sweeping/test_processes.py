"""The pool of processes: whatever dies, every trial has a row in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from kompakt.errors import KompaktError, MetricError
from kompakt.progress import Event, listening
from kompakt.sweeping.processes import Processes

Job = tuple[str, Path]


def made(job: Job, plans: list[str], jobs: int = 2) -> dict[int, dict[str, Any]]:
    with closing(Processes(job[0], str(job[1]), jobs)) as crew:
        return dict(crew.run(list(enumerate(plans))))


def test_every_plan_gets_its_row(job: Job) -> None:
    plans = [f"p{n}" for n in range(7)]
    rows = made(job, plans)
    assert [rows[n]["plan"] for n in range(7)] == plans
    assert {row["run"]["attempts"] for row in rows.values()} == {1}


def test_there_are_never_more_processes_than_jobs_or_plans(job: Job) -> None:
    crew = Processes(job[0], str(job[1]), 5)
    with closing(crew):
        for _ in crew.run([(0, "a"), (1, "b")]):
            assert len(crew.pids) <= 2


def test_a_killed_worker_loses_nothing(job: Job) -> None:
    said: list[Event] = []
    with listening(said.append):
        rows = made(job, ["a", "dies once", "b", "c"])
    assert [rows[n]["plan"] for n in range(4)] == ["a", "dies once", "b", "c"]
    assert rows[1]["run"]["attempts"] == 2
    assert "SIGKILL" in said[0].message


def test_a_trial_that_always_kills_its_worker_is_given_up_after_three(job: Job) -> None:
    rows = made(job, ["dies always", "a"])
    assert rows[1]["plan"] == "a"
    assert len(rows[0]["died"]) == 3
    assert "SIGKILL" in rows[0]["died"][0]
    assert len(list(job[1].glob("seen-dies always-*"))) == 3


def test_a_worker_killed_from_outside_is_replaced(job: Job) -> None:
    crew = Processes(job[0], str(job[1]), 2)
    with closing(crew):
        rows = {}
        for number, row in crew.run([(n, f"p{n}") for n in range(12)]):
            rows[number] = row
            if len(rows) == 3:
                os.kill(crew.pids[0], signal.SIGKILL)
    assert sorted(rows) == list(range(12))


def test_what_no_trial_would_be_spared_is_raised(job: Job) -> None:
    with pytest.raises(MetricError) as raised:
        made(job, ["a", "wrong data"])
    assert raised.value.code == "K230"


def test_an_error_at_the_start_is_raised_as_it_was(job: Job) -> None:
    (job[1] / "refused").touch()
    with pytest.raises(MetricError):
        made(job, ["a"])


def test_workers_that_die_before_they_are_ready_are_not_started_for_ever(job: Job) -> None:
    (job[1] / "stillborn").touch()
    with pytest.raises(KompaktError) as raised:
        made(job, ["a"], jobs=1)
    assert raised.value.code == "K633"


def test_closing_ends_workers_in_the_middle_of_a_trial(job: Job) -> None:
    crew = Processes(job[0], str(job[1]), 1)
    running: Iterator[Any] = crew.run([(0, "a"), (1, "slow")])
    next(running)
    pids = crew.pids
    crew.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


PARENT = """
import sys
from kompakt.sweeping.processes import Processes
crew = Processes("little_jobs:start", sys.argv[1], 1)
tasks = crew.run([(0, "a"), (1, "slow")])
next(tasks)
print(*crew.pids, flush=True)
next(tasks)
"""


def test_workers_do_not_outlive_a_program_that_is_killed(job: Job) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(job[1])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": sys.path[0]},
    )
    assert parent.stdout is not None
    (pid,) = map(int, parent.stdout.readline().split())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)
