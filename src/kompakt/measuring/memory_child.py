"""The fresh process of :mod:`kompakt.measuring.memory`: a request on stdin, an answer on stdout."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


def main() -> None:
    """Read a request, do the job, answer with the memory it took."""
    # What runtimes print must not get between the lines of the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    found: dict[str, Any]
    try:
        found = measured(request["function"], request["arguments"])
    except Exception as error:  # noqa: BLE001  (the last line of defence)
        found = {"error": f"{type(error).__name__}: {error}"[:500]}
    answer.write(json.dumps(found) + "\n")
    answer.close()


def measured(spec: str, arguments: dict[str, Any]) -> dict[str, int]:
    """Resident memory before the job and at its peak, in bytes."""
    module_name, _, function_name = spec.partition(":")
    job = getattr(importlib.import_module(module_name), function_name)(**arguments)
    _forget_peak()
    baseline = resident_bytes("VmRSS")
    job()
    return {"baseline": baseline, "peak": max(resident_bytes("VmHWM"), baseline)}


def resident_bytes(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process.

    On Linux not ``ru_maxrss``, which begins with the size of the process that started this one.
    """
    if _STATUS.exists():
        match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    """Let the kernel start the peak anew, so that what imports needed does not count."""
    # Elsewhere than on Linux, or where it is not allowed, the peak of the imports counts too.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
