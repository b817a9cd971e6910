"""Runs ``kompakt`` many times without importing it many times: each run is a fork of this process.

One JSON object a line on stdin: the ``arguments``, the ``folder`` to run in, and options of ``strace`` (or none). One a
line on stdout: how the run ended, as ``subprocess`` would say it, and what it printed.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch

from kompakt import compression
from kompakt.cli.main import run as kompakt

WARM = """
import torch

def net():
    return torch.nn.Linear(4, 2), torch.zeros(2, 4)

def data():
    return [torch.rand(2, 4)]
"""
SET_PTRACER, ANY_PROCESS = 0x59616D61, ctypes.c_ulong(-1)


def warm_up() -> None:
    """One run in this process, so that the forks have nothing left to import; no run measures speed or memory."""
    torch.set_num_threads(1)
    compression.compress = functools.partial(
        compression.compress, measure_latency=False, measure_memory=False
    )
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nothing:
        os.chdir(folder)
        Path("warm.py").write_text(WARM)
        sys.argv = shlex.split("kompakt compress warm:net --calibration warm:data -o out")
        with redirect_stdout(nothing), redirect_stderr(nothing), suppress(SystemExit):
            kompakt()
        os.chdir("/")


def child(job: dict[str, Any], printed: tuple[int, int]) -> int:
    """The run itself, in the fork."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(printed, 1):
        os.dup2(descriptor, number)
    os.chdir(job["folder"])
    if job["strace"]:
        ctypes.CDLL(None).prctl(SET_PTRACER, ANY_PROCESS, 0, 0, 0)
        while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
            time.sleep(0.002)
    sys.argv = ["kompakt", *job["arguments"]]
    try:
        kompakt()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001  (as the interpreter would)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One run and what came of it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = os.fork()
        if process == 0:
            os._exit(child(job, (out.fileno(), err.fileno())))
        tracer = None
        if job["strace"]:
            tracer = subprocess.Popen(["strace", "-q", "-p", str(process), *job["strace"]])
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if tracer is not None:
            tracer.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return {"code": status, "out": texts[0], "err": texts[1]}


def main() -> None:
    """Answer one line at a time until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warm_up()
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
    os._exit(0)  # nothing is left to do, and to take torch down takes seconds


if __name__ == "__main__":
    main()
