"""Whose turn it is on this machine: many may compute at once, but while one is timed nobody else does.

Two files, locked by the system and freed by it when a process dies, however it dies. Computing holds the second one
together with others; timing holds it alone. Both pass through the first one on their way, so that one that waits to be
timed is not overtaken for ever by newcomers. All sweeps of a user on a machine share these files.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kompakt.artifact.output import writing_errors


class Turns:
    """Takes turns with everybody who uses the same folder.

    Args:
        folder: Where the two files are; by default the machine's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        place = folder or Path(tempfile.gettempdir())
        self._gate = place / f"kompakt-{os.getuid()}-gate.lock"
        self._work = place / f"kompakt-{os.getuid()}-work.lock"

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Wait until nobody is being timed; several may compute at once.

        Raises:
            OutputError: K500–K502 when the files cannot be made.
        """
        gate = _locked(self._gate, fcntl.LOCK_EX)
        try:
            work = _locked(self._work, fcntl.LOCK_SH)
        finally:
            os.close(gate)
        try:
            yield
        finally:
            os.close(work)

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Wait until nobody else computes or is being timed, and keep it so.

        Raises:
            OutputError: K500–K502 when the files cannot be made.
        """
        gate = _locked(self._gate, fcntl.LOCK_EX)
        try:
            work = _locked(self._work, fcntl.LOCK_EX)
            try:
                yield
            finally:
                os.close(work)
        finally:
            os.close(gate)


def _locked(path: Path, how: int) -> int:
    """A descriptor that holds the lock until it is closed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with writing_errors(path):
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, how)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor
