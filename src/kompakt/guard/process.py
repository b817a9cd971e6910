"""The parent's side of the limited process: starting it, asking it, surviving it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kompakt.errors import CaptureError, KompaktError
from kompakt.guard.limits import Limits
from kompakt.guard.refusals import DIED, MALFORMED, refusal
from kompakt.guard.worker import PATIENCE

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from kompakt.guard.worker import serve; serve()"
_START_SECONDS = 60.0


class Worker:
    """A limited process that is asked about files, one after another; started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()
        self.peak_bytes = 0

    def ask(self, stage: str, path: Path, size: int, limits: Limits) -> Any:
        """Have a stage done on a file.

        Args:
            stage: ``walk`` or ``load``.
            path: The private copy.
            size: Bytes of it and of what lies beside it.
            limits: What is too large, and how much the process may take.

        Raises:
            CaptureError: What the stage refused; K146 when the process died or took too long.
        """
        request = {"stage": stage, "path": str(path), "bytes": size, "limits": asdict(limits)}
        with self._lock:
            answer = self._exchange(request, PATIENCE * limits.seconds_for(size) + _START_SECONDS)
        self.peak_bytes = max(self.peak_bytes, int(answer.get("peak_bytes", 0)))
        if "error" in answer:
            error = answer["error"]
            kept = {key: error[key] for key in ("where", "why", "help")}
            raise CaptureError(error["code"], error["what"], **kept)
        if "failed" in answer:
            raise refusal(MALFORMED, path.name, answer["failed"])
        if "died" in answer:
            raise refusal(DIED, path.name, answer["died"])
        return answer["result"]

    def stop(self) -> None:
        """End the process; the next question starts another."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _exchange(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            process = self._running()
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, seconds)
        except OSError as error:
            self.stop()
            why = f"the process that tries model files cannot be used: {error}"
            raise KompaktError("K146", "looking at a model file", why=why) from error
        except BaseException:
            self.stop()  # an answer that nobody waited for must not answer the next question
            raise
        if not line:
            self.stop()
            return {"died": "the process that tries model files ended or did not answer in time"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        alive = self._process is not None and self._process.poll() is None
        if not alive or self._owner != os.getpid():  # a fork of us must not share our pipes
            self._owner = os.getpid()
            found = [entry for entry in sys.path if entry]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(found)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
            )
        assert self._process is not None
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert process.stdout is not None
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], seconds)
            block = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not block:
                return b""
            answer += block
        return answer


WORKER = Worker()
"""The one that everybody asks."""
