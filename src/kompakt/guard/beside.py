"""Weights in files beside the model: where they may be, and copying them without following anybody's links."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kompakt.guard.refusals import BESIDE, named, refusal

_KEYS = frozenset(("location", "offset", "length", "checksum", "basepath"))
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Beside:
    """A part of another file that holds one tensor.

    Attributes:
        location: The file, relative to the model's folder.
        offset: First byte.
        length: How many.
        tensor: For messages.
    """

    location: str
    offset: int
    length: int
    tensor: str


def read_reference(tensor: Any, needed: int, file: str, place: str) -> Beside:
    """Where a tensor's data is.

    Args:
        tensor: A ``TensorProto`` with external data.
        needed: Bytes that its shape and element type take.
        file: The model file, for messages.
        place: The tensor, for messages.

    Raises:
        CaptureError: K143 for anything but a plain relative path and a length that fits.
    """
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in entries or entry.key not in _KEYS:
            raise refusal(BESIDE, file, f"{named('the entry', entry.key)} is not expected", place)
        entries[entry.key] = entry.value
    location = _plain_location(entries.get("location", ""), file, place)
    offset = _number(entries.get("offset", "0"), "offset", file, place)
    length = needed
    if "length" in entries:
        length = _number(entries["length"], "length", file, place)
    if length != needed:
        why = f"its shape needs {needed} bytes, and {length} are declared"
        raise refusal(BESIDE, file, why, place)
    if entries.get("basepath"):
        raise refusal(BESIDE, file, "a base path is not allowed", place)
    return Beside(location, offset, length, place)


def _plain_location(text: str, file: str, place: str) -> str:
    parts = text.split("/")
    odd = re.search(r"[\\:*?\x00-\x1f]", text)
    if not text or odd or len(text) > 1024 or any(part in ("", "..") for part in parts):
        why = f"{named('the location', text)} is no plain path inside the model's folder"
        raise refusal(BESIDE, file, why, place)
    return PurePosixPath(text).as_posix()


def _number(text: str, what: str, file: str, place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) >= 1 << 62:
        why = f"{named('the ' + what, text)} is no number of bytes"
        raise refusal(BESIDE, file, why, place)
    return int(text)


def copy_beside(
    parts: Iterable[Beside], source: Path, target: Path, file: str, most: int
) -> dict[str, str]:
    """Copy the files that hold weights into a private folder.

    Args:
        parts: What the model refers to.
        source: The model's folder.
        target: The private folder.
        file: The model file, for messages.
        most: Bytes that all of them may have.

    Returns:
        The hash of each file by its location.

    Raises:
        CaptureError: K143 when one is missing, is a link or no file, or ends too early.
    """
    needed: dict[str, int] = {}
    for part in parts:
        needed[part.location] = max(part.offset + part.length, needed.get(part.location, 0))
    hashes: dict[str, str] = {}
    for location, end in needed.items():
        if location == file:
            raise refusal(BESIDE, file, "its weights are said to be in the model file itself")
        descriptor = open_inside(source, location, file)
        try:
            size = os.fstat(descriptor).st_size
            if size < end:
                why = f"it has {size} bytes, and the model reads {end}"
                raise refusal(BESIDE, file, why, named("file", location))
            if size > most:
                raise refusal(BESIDE, file, "it is too large", named("file", location))
            most -= size
            hashes[location] = _copy(descriptor, target / location, size)
        finally:
            os.close(descriptor)
    return hashes


def open_inside(folder: Path, location: str, file: str) -> int:
    """Open a file below a folder for reading, following no link on the way.

    Raises:
        CaptureError: K143 when it is not there, or is a link or no plain file, or has a second name elsewhere.
    """
    place = named("file", location)
    *parents, name = PurePosixPath(location).parts or (".",)
    plain = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    at = os.open(folder, os.O_RDONLY)
    try:
        for parent in parents:
            below = os.open(parent, plain | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        descriptor = os.open(name, plain | getattr(os, "O_NONBLOCK", 0), dir_fd=at)
    except OSError as error:
        why = f"it cannot be opened as a plain file ({os.strerror(error.errno or 0)})"
        raise refusal(BESIDE, file, why, place) from error
    finally:
        os.close(at)
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    why = "it has a second name (a hard link)" if stat.S_ISREG(facts.st_mode) else "it is no file"
    raise refusal(BESIDE, file, why, place)


def _copy(descriptor: int, target: Path, size: int) -> str:
    """Copy so many bytes; returns their hash."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        while size > 0:
            block = os.read(descriptor, min(size, _CHUNK))
            if not block:
                break
            digest.update(block)
            out.write(block)
            size -= len(block)
    return digest.hexdigest()
