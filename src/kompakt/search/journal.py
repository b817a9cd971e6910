"""A journal of finished trials, so that a run killed at any moment never does the same work twice.

One line of JSON for each trial, with a checksum, appended by one system call and forced to the disk before anything
else is done. A trial is found again only under the very same conditions: its key is a hash over the job (model, data,
options, version, seed) and the trial (scheme, methods, target). A line that a kill tore in two is cut off when the file
is opened again, and one whose checksum is wrong is left out; both are told.

>>> with Journal.open("journal.jsonl", {"model": "…", "data": "…"}) as journal:
...     row = journal.find({"scheme": "w8a8"})
...     if row is None:
...         journal.append({"scheme": "w8a8"}, {"drop": 0.001})
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kompakt.artifact.output import writing_errors
from kompakt.artifact.swap import sync_directory
from kompakt.errors import OutputError
from kompakt.progress import note

FORM = 1
"""Number of the form of a line; others are not read."""


class Journal:
    """The finished trials of one job, on the disk; make one with :meth:`open`.

    Attributes:
        path: The file.
        job: Hash of what all trials have in common.
        others: How many rows of other jobs the file holds; they are kept, and never used.
        damaged: How many lines were left out because they are not what was written.
    """

    def __init__(self, path: Path, job: str, descriptor: int) -> None:
        self.path, self.job = path, job
        self.others = self.damaged = 0
        self._descriptor = descriptor
        self._rows: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], job: Mapping[str, Any] | str) -> Journal:
        """Open a journal, or begin one; nobody else can while it is open.

        Args:
            path: The file.
            job: What all trials have in common: the model's hash, the data's fingerprint, options, version, seed.
                Plain JSON values, or a text that stands for them.

        Raises:
            OutputError: K630 when the file is no journal, K631 when another run has it open, K500–K505 when it cannot
                be written.
        """
        target = Path(path)
        with writing_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            is_new = not target.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(target, flags, 0o666)
            journal = cls(target, job if isinstance(job, str) else digest(job), descriptor)
            try:
                journal._claim()
                journal._read()
                if is_new:
                    sync_directory(target.parent)
            except BaseException:
                journal.close()
                raise
        return journal

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Let others have the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def key(self, trial: Mapping[str, Any]) -> str:
        """The key of a trial of this job, 64 hexadecimal digits."""
        return digest({"job": self.job, "trial": dict(trial)})

    def find(self, trial: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was found when this trial was made under the same conditions; None when it never was.

        Args:
            trial: What makes this trial different from the others: scheme, methods, target. Plain JSON values.
        """
        found = self._rows.get(self.key(trial))
        return None if found is None else json.loads(json.dumps(found))

    def append(self, trial: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Keep what a trial found. When this returns, the row is on the disk.

        Args:
            trial: As for :meth:`find`.
            row: Plain JSON values; numbers that are not finite become null.

        Raises:
            OutputError: K501 when the disk is full, K502. The file holds what it held before, then.
        """
        content = {
            "form": FORM, "job": self.job, "key": self.key(trial), "row": _finite(dict(row))
        }  # fmt: skip
        line = json.dumps({"sum": digest(content)[:16], **content}, allow_nan=False) + "\n"
        with writing_errors(self.path):
            _append(self._descriptor, line.encode())
        self._rows[content["key"]] = content["row"]

    def _claim(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError("K631", f"the journal {self.path}") from error

    def _read(self) -> None:
        size = os.fstat(self._descriptor).st_size
        data = _read_all(self._descriptor, size)
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        known = [self._take(line) for line in lines]
        if not any(known) and size:
            self._refuse_foreign(data)
        if whole < size:
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
            note(f"{self.path}: its last line was torn in two by a kill and is left out")
        self.damaged = known.count(False)
        if self.damaged:
            note(f"{self.path}: {self.damaged} damaged lines are left out")

    def _refuse_foreign(self, data: bytes) -> None:
        """A file that kompakt did not begin is not cut."""
        start = b'{"sum": "'
        if not data.startswith(start) and not start.startswith(data):
            raise OutputError("K630", f"the journal {self.path}", why="it holds something else")

    def _take(self, line: bytes) -> bool:
        """Keep one line's row; False when the line is damaged."""
        try:
            content = json.loads(line)
            given = content.pop("sum")
            sound = bool(content["form"] == FORM and given == digest(content)[:16])
            job, key, row = content["job"], content["key"], content["row"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        if sound and job == self.job:
            self._rows[key] = row
        elif sound:
            self.others += 1
        return sound


def digest(value: Any) -> str:
    """SHA-256 of plain JSON values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _finite(value: Any) -> Any:
    """Plain JSON values: numbers that are not finite as null, tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _read_all(descriptor: int, size: int) -> bytes:
    parts, at = [], 0
    while at < size:
        part = os.pread(descriptor, size - at, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _append(descriptor: int, line: bytes) -> None:
    """Write a line behind the others and force it to the disk; what was written of it is undone when that fails."""
    before = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, line)
        if written < len(line):  # a full disk takes what fits
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
