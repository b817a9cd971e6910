"""Peak memory of loading and running a model once, in a process that does nothing else.

The process imports the runtime first; what it then holds is the *baseline*. Loading the model and
running it once raises the peak above it, and that difference is the model's own: it does not
change with what else a program has imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kompakt.errors import TargetError


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """What a fresh process needed.

    Attributes:
        baseline_bytes: Resident memory after the runtime was imported, before the model was loaded.
        peak_bytes: Highest resident memory while the model was loaded and run.
    """

    baseline_bytes: int
    peak_bytes: int

    @property
    def above_bytes(self) -> int:
        """What the model itself took."""
        return max(self.peak_bytes - self.baseline_bytes, 0)


def peak_memory(
    spec: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = 600.0
) -> PeakMemory:
    """Measure a job in a fresh process.

    Args:
        spec: ``package.module:function``. The function is called with ``arguments`` in the fresh
            process, imports the runtime, and returns a job: a function without arguments that
            loads the model and runs it once.
        arguments: Keyword arguments for it; plain JSON values.
        timeout_s: Give up after so long.

    Raises:
        TargetError: K250 when the process fails, is killed for want of memory or takes too long.
    """
    request = json.dumps({"function": spec, "arguments": dict(arguments or {}), "path": sys.path})
    # -P: the folder we happen to be in must not shadow modules of the standard library.
    command = [sys.executable, "-P", "-m", "kompakt.measuring.memory_child"]
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(spec, f"no result after {timeout_s:g} s") from error
    except OSError as error:
        raise _failed(spec, f"the process could not be started: {error}") from error
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise _failed(spec, _last_words(done.returncode, done.stderr)) from None
    if "error" in answer:
        raise _failed(spec, str(answer["error"]))
    return PeakMemory(baseline_bytes=int(answer["baseline"]), peak_bytes=int(answer["peak"]))


def _failed(spec: str, why: str) -> TargetError:
    return TargetError("K250", "peak memory", where=spec, why=why)


def _last_words(code: int, stderr: str) -> str:
    if code < 0:
        return f"the process was killed by signal {-code}" + (
            ", which is what happens when memory runs out" if code == -9 else ""
        )
    lines = stderr.strip().splitlines()
    return f"the process ended with {code}" + (f": {lines[-1][:300]}" if lines else "")
