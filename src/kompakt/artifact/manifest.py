"""``manifest.json``: what an artifact is, with the size and sha256 of every file in it.

The text is a pure function of its content: keys keep the order they were given in, file names are
sorted, floats are written in Python's shortest form, everything is ASCII. Its last line holds the
sha256 of the manifest itself, taken with that field set to 64 zeros, so damage to the manifest is
found like damage to any other file. (It protects against damage, not against forgery: that takes a
signature.)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import kompakt
from kompakt.artifact.contents import MANIFEST, name_problem, open_plain, shown
from kompakt.errors import ArtifactError, OutputError

FORMAT = "kompakt artifact"
SCHEMA = 1
#: A manifest with the record of a network of 2 000 sites takes about 2 MB.
LARGEST_MANIFEST = 64 << 20

_RESERVED = ("format", "schema", "kompakt", "files", "record", "manifest_sha256")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRAILER = re.compile(rb'"manifest_sha256": "([0-9a-f]{64})"\n\}\n\Z')
_ZEROS = "0" * 64


def manifest_bytes(
    settings: Mapping[str, object],
    record: Mapping[str, object],
    files: Mapping[str, tuple[int, str]],
) -> bytes:
    """The text of a manifest.

    Args:
        settings: ``source_sha256``, ``scheme``, ``target``, ``versions``, ``seed``, and whatever
            else should be known about how the artifact came to be.
        record: What was measured.
        files: Size in bytes and hexadecimal sha256 by file name.

    Raises:
        OutputError: K507: something in it is no JSON or has the wrong type.
    """
    for key in _RESERVED:
        if key in settings:
            raise OutputError("K507", f"the manifest's key {key!r} is kompakt's own")
    listed = {
        name: {"size": size, "sha256": digest} for name, (size, digest) in sorted(files.items())
    }
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "kompakt": kompakt.__version__,
        **{key: plain(value, key) for key, value in settings.items()},
        "files": listed,
        "record": plain(record, "record"),
        "manifest_sha256": _ZEROS,
    }
    problem = _schema_problem(content)
    if problem:
        raise OutputError("K507", f"the manifest does not have its form: {problem}")
    text = json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"
    at = len(text) - len(_ZEROS) - len('"\n}\n')
    return text[:at] + hashlib.sha256(text).hexdigest().encode() + text[at + len(_ZEROS) :]


def plain(value: object, where: str) -> Any:
    """``value`` in the types JSON has: NumPy scalars become numbers, tuples become lists.

    Args:
        value: What to convert.
        where: Its place, for the error message.

    Raises:
        OutputError: K507: NaN, infinity, a key that is no text, or an object JSON has no form for.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise OutputError("K507", f"{shown(where)} is {value}", why="JSON has no such number")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise OutputError("K507", f"{shown(where)} has the key {key!r}, which is no text")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    kind = type(value).__name__
    raise OutputError("K507", f"{shown(where)} is a {kind}", why="JSON has no such type")


def read_manifest(root: Path) -> bytes:
    """The bytes of the manifest in the directory ``root``.

    Raises:
        ArtifactError: K513: it cannot be read, is no plain file, or is larger than any manifest.
    """
    try:
        with open_plain(root / MANIFEST) as file:
            raw = file.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        _unreadable(error.strerror or str(error))
    if len(raw) > LARGEST_MANIFEST:
        _unreadable(f"it is larger than {LARGEST_MANIFEST >> 20} MiB")
    return raw


def parse_manifest(raw: bytes) -> dict[str, Any]:
    """Read and check the bytes of a manifest.

    Args:
        raw: The whole file.

    Returns:
        The manifest as plain dicts and lists.

    Raises:
        ArtifactError: K511: damaged; K513: not a manifest; K514: written by a newer kompakt.
    """
    found = _TRAILER.search(raw)
    unsigned = b"" if not found else raw[: found.start(1)] + _ZEROS.encode() + raw[found.end(1) :]
    if not found or hashlib.sha256(unsigned).hexdigest().encode() != found[1]:
        if FORMAT.encode() not in raw[:64]:
            _unreadable("kompakt did not write it")
        raise ArtifactError(
            "K511", f"{MANIFEST} was changed", why="its own sha256 is not the one it states"
        )
    content = _json_object(raw)
    if content.get("format") != FORMAT:
        _unreadable(f"its 'format' is not {FORMAT!r}")
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ArtifactError(
            "K514",
            f"the artifact has schema version {schema}; this kompakt reads up to {SCHEMA}",
            why=f"it was written by kompakt {shown(str(content.get('kompakt')))}",
        )
    problem = _schema_problem(content)
    if problem:
        _unreadable(problem)
    return content


def _json_object(raw: bytes) -> dict[str, Any]:
    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key occurs twice")
        return found

    try:
        content = json.loads(
            raw.decode("ascii"), parse_constant=no_constant, object_pairs_hook=no_duplicates
        )
    except (ValueError, RecursionError) as error:
        _unreadable(f"it is not JSON: {shown(str(error))}")
    if not isinstance(content, dict):
        _unreadable("it is not a JSON object")
    return content


def _unreadable(why: str) -> NoReturn:
    raise ArtifactError("K513", f"{MANIFEST} cannot be read", why=why)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _schema_problem(content: Mapping[str, Any]) -> str | None:
    """What in ``content`` is missing or of the wrong type; ``None`` when nothing is."""
    source, seed, versions = (content.get(key) for key in ("source_sha256", "seed", "versions"))
    checks = {
        "schema": content.get("schema") == SCHEMA,
        "kompakt": isinstance(content.get("kompakt"), str),
        "source_sha256": "source_sha256" in content and (source is None or _is_sha256(source)),
        "scheme": isinstance(content.get("scheme"), dict),
        "target": isinstance(content.get("target"), dict),
        "versions": isinstance(versions, dict)
        and all(isinstance(version, str) for version in versions.values()),
        "seed": "seed" in content and (seed is None or _is_count(seed)),
        "record": isinstance(content.get("record"), dict),
        "manifest_sha256": _is_sha256(content.get("manifest_sha256")),
    }
    for key, holds in checks.items():
        if not holds:
            return f"{key!r} is missing or has the wrong type"
    return _files_problem(content.get("files"))


def _files_problem(files: object) -> str | None:
    if not isinstance(files, dict):
        return "'files' is missing or no object"
    seen: set[str] = set()
    for name, entry in files.items():
        problem = name_problem(name)
        if problem or name.casefold() == MANIFEST:
            return f"the file name {shown(name)!r} is refused: {problem or 'it is the manifest'}"
        if name.casefold() in seen:
            return f"the file name {shown(name)!r} occurs twice on some file systems"
        seen.add(name.casefold())
        if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
            return f"the entry of {shown(name)!r} is not a size and a sha256"
        if not _is_count(entry["size"]) or not _is_sha256(entry["sha256"]):
            return f"the entry of {shown(name)!r} has a wrong size or sha256"
    return None
