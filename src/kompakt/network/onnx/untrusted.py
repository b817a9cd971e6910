"""Model files from strangers: looked at in a limited process before anything here opens them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from kompakt.guard.beside import Beside, copy_beside
from kompakt.guard.limits import Limits
from kompakt.guard.process import WORKER
from kompakt.guard.refusals import MALFORMED, TOO_LARGE, refusal

DEFAULT = Limits()
"""What is too large when nobody says."""
_REMEMBERED = 1000
_CHUNK = 1 << 22

Hashes = dict[str, str]


class CheckedFile:
    """A private copy of a model file and of the weights beside it; it goes away with this object.

    Attributes:
        path: The copy. What was checked is what is read from it, whatever happens to the original.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._remove = weakref.finalize(self, _remove, path.parent, os.getpid())

    def close(self) -> None:
        """Delete the copy now."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Verdict:
    """A file that was found harmless: the files beside it, and their hashes."""

    parts: tuple[Beside, ...]
    hashes: Hashes


_harmless: OrderedDict[tuple[str, Limits], _Verdict] = OrderedDict()
_lock = threading.Lock()


def checked_file(path: Path, *, limits: Limits | None = None) -> CheckedFile:
    """Look at a model file before it is used.

    The file is copied to a private folder. A process with little memory and time walks through the copy, tells
    which files beside it hold weights (these are copied, too, following no links), has it checked by ``onnx``, infers
    shapes, loads it in ONNX Runtime and runs it once on small inputs. Content that passed once in this process is
    only copied and hashed again.

    Args:
        path: The file somebody named.
        limits: What is too large; the defaults suit real models.

    Raises:
        CaptureError: K140 when it is no ONNX file, K141 when it is too large in some way, K142 for a tensor that is
            not what it says, K143 for weights elsewhere than beside the file, K144 for a graph that is not wired
            up, K145 for a scale that is no positive number, K146 when the process died, K124 when ONNX Runtime
            does not load it.
    """
    limits = limits or DEFAULT
    copy = CheckedFile(Path(tempfile.mkdtemp(prefix="kompakt-onnx-")) / path.name)
    try:
        _check(path, copy.path, limits)
    except BaseException:
        copy.close()
        raise
    return copy


def _check(path: Path, copy: Path, limits: Limits) -> None:
    size, key = _copy_model(path, copy, limits)
    with _lock:
        verdict = _harmless.get((key, limits))
    if verdict is not None:
        hashes = _copied(verdict.parts, path, copy, limits)
        if hashes == verdict.hashes:
            return
        total = size + _bytes_beside(copy, hashes)
        parts = verdict.parts
    else:
        rows = WORKER.ask("walk", copy, size, limits)
        parts = tuple(Beside(str(r[0]), int(r[1]), int(r[2]), str(r[3])) for r in rows)
        hashes = _copied(parts, path, copy, limits)
        total = size + _bytes_beside(copy, hashes)
    WORKER.ask("load", copy, total, limits)
    with _lock:
        _harmless[key, limits] = _Verdict(parts, hashes)
        while len(_harmless) > _REMEMBERED:
            _harmless.popitem(last=False)


def _copied(parts: tuple[Beside, ...], path: Path, copy: Path, limits: Limits) -> Hashes:
    return copy_beside(parts, path.parent, copy.parent, copy.name, limits.beside_bytes)


def _bytes_beside(copy: Path, hashes: Hashes) -> int:
    return sum((copy.parent / location).stat().st_size for location in hashes)


def _copy_model(path: Path, copy: Path, limits: Limits) -> tuple[int, str]:
    """Copy the model file itself; returns its size and hash."""
    name = copy.name
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except OSError as error:
        why = f"it cannot be read ({os.strerror(error.errno or 0)})"
        raise refusal(MALFORMED, name, why) from error
    with open(descriptor, "rb") as file, copy.open("xb") as out:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise refusal(MALFORMED, name, "it is no plain file")
        if not facts.st_size:
            raise refusal(MALFORMED, name, "it is empty")
        digest, size = hashlib.sha256(), 0
        while block := file.read(_CHUNK):
            size += len(block)
            if size > limits.file_bytes:
                why = f"it has more than {limits.file_bytes} bytes"
                raise refusal(TOO_LARGE, name, why)
            digest.update(block)
            out.write(block)
    return size, digest.hexdigest()


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a fork of this process must leave it alone
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["CheckedFile", "Limits", "checked_file"]
