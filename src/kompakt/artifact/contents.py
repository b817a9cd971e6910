"""What lies in an artifact's directory: allowed names, and a listing that follows no link."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "manifest.json"
REPORT = "report.html"
CALIBRATION = "calibration.npz"
GOLDEN = "golden.npz"

_FORBIDDEN = frozenset('\\:*?"<>|\x7f') | {chr(code) for code in range(32)}


def name_problem(name: str) -> str | None:
    """Why ``name`` cannot be a file in an artifact; ``None`` when it can.

    A name is relative, uses ``/``, stays in the directory, and can exist on every operating system.
    """
    parts = name.split("/")
    if not name or "" in parts:
        return "it is empty, absolute, or has an empty part"
    if "." in parts or ".." in parts:
        return "it has a part '.' or '..'"
    if _FORBIDDEN & set(name) or not name.isprintable():
        return 'it has a control character or one of \\ : * ? " < > |'
    if any(part.startswith(" ") or part.endswith((" ", ".")) for part in parts):
        return "a part of it starts or ends with a space, or ends with a dot"
    if any(len(part.encode()) > 255 for part in parts) or len(name) > 1024:
        return "it is too long"
    return None


def shown(name: str) -> str:
    """``name`` for a message: one line, no control characters, no more than 100 characters."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= 100 else f"{text[:60]}…{text[-30:]}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Everything in a directory.

    Attributes:
        files: Size in bytes of each plain file, by name, in sorted order.
        refused: What is wrong with each entry that is not a plain file with one name.
        folders: Names of the sub-directories, each after its parent.
    """

    files: dict[str, int]
    refused: dict[str, str]
    folders: tuple[str, ...]


def list_contents(root: Path) -> Listing:
    """List ``root`` without following links.

    Raises:
        OSError: The directory cannot be read.
    """
    files: dict[str, int] = {}
    refused: dict[str, str] = {}
    folders: list[str] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(name)
                    pending.append(name + "/")
                elif reason := _refusal(status):
                    refused[name] = reason
                else:
                    files[name] = status.st_size
    return Listing(
        files=dict(sorted(files.items())),
        refused=dict(sorted(refused.items())),
        folders=tuple(sorted(folders)),
    )


def _refusal(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "is not a plain file"
    if status.st_nlink != 1:
        return "is a hard link: the same file has a name elsewhere"
    return None


def open_plain(path: Path) -> io.BufferedReader:
    """Open a plain file for reading; never follows a link at its end and never waits for a pipe.

    Raises:
        OSError: It cannot be opened, or is not a plain file with one name.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    try:
        reason = _refusal(os.fstat(descriptor))
        if reason:
            raise OSError(f"{path.name} {reason}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a plain file.

    Raises:
        OSError: It cannot be read.
    """
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
