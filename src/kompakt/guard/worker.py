"""The process that looks at model files: each file in a child of its own, with limits on memory, time and writing.

It reads one JSON request from each line of standard input and answers with one line. The server itself never opens
a model; a child that dies takes nothing with it. The parent's side is ``kompakt.guard.process``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kompakt.errors import KompaktError
from kompakt.guard.limits import Limits

PATIENCE = 3.0
"""A child may take so many times its processor time by the clock: other programs want to run, too."""


def serve() -> None:
    """Answer requests until standard input ends."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.putenv(name, "1")
    from kompakt.guard import stages

    jobs = {"walk": stages.walk_stage, "load": stages.load_stage}
    stages.prepare()
    for line in sys.stdin:
        request = json.loads(line)
        limits = Limits(**request["limits"])
        job = jobs[request["stage"]]
        answer = _in_a_child(lambda: job(Path(request["path"]), limits), limits, request["bytes"])  # noqa: B023
        print(json.dumps(answer), flush=True)  # noqa: T201  (the answer)


def _in_a_child(job: Callable[[], Any], limits: Limits, size: int) -> dict[str, Any]:
    if not hasattr(os, "fork"):
        return _outcome(job)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _limit(limits, size)
            words = json.dumps(_outcome(job)).encode()
            while words:
                words = words[os.write(writing, words) :]
        finally:
            os._exit(0)
    os.close(writing)
    seconds = limits.seconds_for(size)
    answer = _read(reading, PATIENCE * seconds + 5)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    found = json.loads(answer) if answer else {"died": _cause(status, answer is None, seconds)}
    return {**found, "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)}


def _read(pipe: int, seconds: float) -> bytes | None:
    """All that comes through a pipe; None when it does not end in time."""
    end = time.monotonic() + seconds
    blocks: list[bytes] = []
    try:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            block = os.read(pipe, 1 << 16)
            if not block:
                return b"".join(blocks)
            blocks.append(block)
    finally:
        os.close(pipe)


def _outcome(job: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": job()}
    except KompaktError as error:
        kept = {key: getattr(error, key) for key in ("code", "what", "where", "why", "help")}
        return {"error": kept}
    except MemoryError:
        return {"died": "it wanted more memory than it may have"}
    except RecursionError:
        return {"died": "it is nested too deeply"}
    except Exception as error:  # noqa: BLE001  (whatever goes wrong in here is the file's fault)
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def _limit(limits: Limits, size: int) -> None:
    """Lower what this process may take; it cannot be raised again."""
    try:
        import resource
    except ImportError:
        return
    seconds = int(limits.seconds_for(size)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allow_memory(limits.memory_for(size), limits.memory_for(size) + limits.run_memory_bytes)


def allow_memory(more: int, ever: int | None = None) -> None:
    """Let this process take so many bytes beyond what it has, and never more than ``ever``."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return
    now = pages * os.sysconf("SC_PAGE_SIZE")
    hard = resource.getrlimit(resource.RLIMIT_AS)[1] if ever is None else now + ever
    soft = now + more if hard == resource.RLIM_INFINITY else min(now + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _cause(status: int, late: bool, seconds: float) -> str:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if late or number == getattr(signal, "SIGXCPU", -1):
        return f"it took more than {seconds:.0f} s"
    if number:
        return f"the process that tried it was killed by {signal.Signals(number).name}"
    return f"the process that tried it ended with {os.WEXITSTATUS(status)}"
