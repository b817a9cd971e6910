"""Trials side by side on this machine, each worker a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from kompakt.errors import KompaktError
from kompakt.progress import note
from kompakt.sweeping.crew import ATTEMPTS, Task

_CLOSING_SECONDS = 5.0


class Processes:
    """A pool of worker processes that survives the death of any of them.

    Args:
        start: ``package.module:function`` that each worker calls once, with ``content``; it gives back the function
            that makes a trial.
        content: What it is called with.
        jobs: How many processes.
    """

    def __init__(self, start: str, content: Any, jobs: int) -> None:
        self._order = {"path": list(sys.path), "start": start, "content": content}
        self._jobs = jobs
        self._workers: list[_Worker] = []
        self._stillborn = 0

    @property
    def pids(self) -> list[int]:
        """The processes, in no order."""
        return [worker.process.pid for worker in self._workers]

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Make trials, as many at once as there are processes.

        Raises:
            KompaktError: What no trial would be spared, or K632 when workers cannot start.
        """
        waiting = deque(tasks)
        died: dict[int, list[str]] = {}
        while waiting or any(worker.task for worker in self._workers):
            self._hire(len(waiting))
            for worker in self._workers:
                if worker.is_ready and worker.task is None and waiting:
                    worker.give(waiting.popleft())
            for worker in self._heard():
                answer = worker.answer()
                if answer is None:
                    yield from self._bury(worker, waiting, died)
                elif answer[0] == "ready":
                    worker.is_ready, self._stillborn = True, 0
                else:
                    worker.task = None
                    number, row = accepted(answer)
                    reasons = died.pop(number, [])
                    yield number, with_attempts(row, len(reasons) + 1)

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _hire(self, waiting: int) -> None:
        busy = sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._jobs, busy + waiting):
            self._workers.append(_Worker(self._order))

    def _heard(self) -> list[_Worker]:
        """Workers that said something, or died."""
        by_channel = {worker.channel: worker for worker in self._workers}
        return [by_channel[channel] for channel in wait(list(by_channel))]  # type: ignore[index]

    def _bury(
        self, worker: _Worker, waiting: deque[Task], died: dict[int, list[str]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Take a dead worker off; its trial goes to another, or is given up."""
        self._workers.remove(worker)
        reason, task = worker.end(), worker.task
        if task is None:
            self._stillborn += not worker.is_ready
            if self._stillborn >= ATTEMPTS:
                raise KompaktError("K633", "starting the processes of a sweep", why=reason)
            return
        number = task[0]
        died.setdefault(number, []).append(reason)
        if len(died[number]) < ATTEMPTS:
            note(f"the worker of trial {number + 1} died ({reason}); the trial is made again")
            waiting.appendleft(task)
            return
        yield number, {"died": died.pop(number)}


class _Worker:
    """One process and what it does."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.channel, theirs = Pipe()
        life, self._life = os.pipe()
        self.task: Task | None = None
        self.is_ready = False
        command = [sys.executable, "-P", "-m", "kompakt.sweeping.worker"]
        self.process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(life)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), life),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        )
        theirs.close()
        os.close(life)
        _send(self.channel, order)

    def give(self, task: Task) -> None:
        self.task = task
        _send(self.channel, task)

    def answer(self) -> tuple[str, int, Any] | None:
        """What it said; None when it is dead."""
        try:
            found: tuple[str, int, Any] = self.channel.recv()
        except (EOFError, OSError):
            return None
        return found

    def end(self) -> str:
        """Make sure that it is gone; returns how it ended."""
        self.channel.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        try:
            code = self.process.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return _ending(code)


def _send(channel: Connection, message: Any) -> None:
    try:
        channel.send(message)
    except (BrokenPipeError, ConnectionResetError):
        return  # it is dead, which is heard when it is listened to


def accepted(answer: tuple[str, int, Any]) -> tuple[int, dict[str, Any]]:
    """A trial's number and row from what a worker said; raises the error it met instead."""
    kind, number, content = answer
    if kind == "error":
        raise content
    return number, content


def with_attempts(row: dict[str, Any], attempts: int) -> dict[str, Any]:
    """A row that says how many workers it took."""
    run = row.get("run")
    return row if not isinstance(run, dict) else {**row, "run": {**run, "attempts": attempts}}


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"it ended with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as happens when memory runs out" if -code == signal.SIGKILL else ""
    return f"it was killed by {name}{hint}"
