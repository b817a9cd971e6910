"""Trials on the machines of a Ray cluster, each worker an actor.

Ray's own statistics of use are switched off: nothing is sent anywhere but between the machines of the cluster.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from kompakt.errors import UsageError
from kompakt.progress import note
from kompakt.sweeping.crew import ATTEMPTS, Task
from kompakt.sweeping.processes import accepted, with_attempts
from kompakt.sweeping.worker import sendable, started

LOCAL = "local"
"""Instead of an address: begin a cluster of this machine alone, for the length of the sweep."""
_STORE_BYTES = 200_000_000
_KNOCK_S = 5.0


class RayCrew:
    """Actors of a Ray cluster, one for each processor given to the sweep.

    Args:
        start: ``package.module:function``; see :class:`~kompakt.sweeping.processes.Processes`.
        content: What it is called with.
        jobs: How many actors; 0 for as many as the cluster has processors.
        address: ``auto`` for the cluster of this machine, its address, or ``local``.

    Raises:
        UsageError: K634 when Ray is not installed or there is no cluster at the address.
    """

    def __init__(self, start: str, content: Any, jobs: int, address: str) -> None:
        self._ray = _connected(address, jobs)
        self._order = self._ray.put((list(sys.path), start, content))
        self._jobs = jobs or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self._actors: list[Any] = []

    @property
    def pids(self) -> list[int]:
        """The processes of the actors that live, wherever they are."""
        found = []
        for actor in self._actors:
            with suppress(self._ray.exceptions.RayError):
                found.append(int(self._ray.get(actor.pid.remote())))
        return found

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Make trials, as many at once as there are actors.

        Raises:
            KompaktError: What no trial would be spared.
        """
        waiting = deque(tasks)
        died: dict[int, list[str]] = {}
        running: dict[Any, tuple[Any, Task]] = {}
        while waiting or running:
            self._give(waiting, running)
            finished, _ = self._ray.wait(list(running), num_returns=1)
            for future in finished:
                actor, task = running.pop(future)
                number = task[0]
                try:
                    answer = self._ray.get(future)
                except self._ray.exceptions.RayError as error:
                    self._actors.remove(actor)
                    died.setdefault(number, []).append(_told(error))
                    if len(died[number]) >= ATTEMPTS:
                        yield number, {"died": died.pop(number)}
                        continue
                    note(f"the worker of trial {number + 1} died; the trial is made again")
                    waiting.appendleft(task)
                    continue
                number, row = accepted(answer)
                yield number, with_attempts(row, len(died.pop(number, [])) + 1)

    def close(self) -> None:
        """Let all actors go, and the connection."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors.clear()
        self._ray.shutdown()

    def _give(self, waiting: deque[Task], running: dict[Any, tuple[Any, Task]]) -> None:
        busy = [actor for actor, _ in running.values()]
        while waiting and len(busy) < self._jobs:
            idle = next((a for a in self._actors if not any(a is b for b in busy)), None)
            if idle is None:
                idle = self._actor.remote(self._order)
                self._actors.append(idle)
            task = waiting.popleft()
            running[idle.run.remote(*task)] = (idle, task)
            busy.append(idle)


class _Worker:
    """What an actor is."""

    def __init__(self, order: tuple[list[str], str, Any]) -> None:
        path, start, content = order
        sys.path.extend(folder for folder in path if folder not in sys.path)
        self._failed: Exception | None = None
        try:
            self._work = started(start, content)
        except Exception as error:  # noqa: BLE001  (told by the first trial)
            self._failed = sendable(error)

    def pid(self) -> int:
        return os.getpid()

    def run(self, number: int, plan: Any) -> tuple[str, int, Any]:
        if self._failed is not None:
            return "error", number, self._failed
        try:
            return "row", number, self._work(plan)
        except Exception as error:  # noqa: BLE001  (the other side decides what to do with it)
            return "error", number, sendable(error)


def _connected(address: str, jobs: int) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError(
            "K634", f"a sweep on Ray at {address}", why="Ray is not installed",
            help='pip install "kompakt[ray]"',
        ) from error  # fmt: skip
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        settings |= {
            "address": "local",
            "num_cpus": jobs or None,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    else:
        settings["address"] = address
    try:
        _knock(address)
        ray.init(**settings)
    except (OSError, RuntimeError, ValueError) as error:
        with suppress(Exception):
            ray.shutdown()
        raise UsageError(
            "K634", f"a sweep on Ray at {address}", why=str(error).strip().split("\n")[0]
        ) from error
    return ray


def _knock(address: str) -> None:
    """Ask whether anybody listens there: Ray itself would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _told(error: Exception) -> str:
    """Why an actor died, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
