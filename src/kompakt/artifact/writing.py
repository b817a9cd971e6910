"""Writing an artifact: all of it, or nothing.

The directory is built under a hidden name beside its target, every file and directory is forced to
the disk, and only then it takes the target's place in one step (:mod:`kompakt.artifact.swap`). A
run that is killed, interrupted or out of space at any moment leaves the old artifact or the new.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.artifact.arrays import arrays_to_bytes
from kompakt.artifact.contents import (
    CALIBRATION,
    GOLDEN,
    MANIFEST,
    REPORT,
    list_contents,
    name_problem,
    sha256_of,
    shown,
)
from kompakt.artifact.golden import GoldenPack
from kompakt.artifact.manifest import manifest_bytes, parse_manifest, plain
from kompakt.artifact.output import (
    OutputClaim,
    claim_output,
    refuse_foreign,
    tidy,
    writing_errors,
)
from kompakt.artifact.reading import Artifact
from kompakt.artifact.swap import put_in_place, sync_directory, sync_file
from kompakt.errors import OutputError
from kompakt.progress import note, track

#: A file's bytes, a file to copy, or a function that writes the file (and, beside it, others).
Content = bytes | Path | Callable[[Path], None]


def write_artifact(
    output: str | os.PathLike[str] | OutputClaim,
    *,
    files: Mapping[str, Content],
    manifest: Mapping[str, object],
    record: Mapping[str, object],
    report: Callable[[Mapping[str, Any]], str] | None = None,
    calibration: Mapping[str, NDArray[np.generic]] | None = None,
    golden: GoldenPack | None = None,
) -> Artifact:
    """Write an artifact atomically; an older artifact at the same place is replaced.

    The same arguments give the same bytes in every file.

    Args:
        output: The directory to write, or the claim already held on it.
        files: The model file(s) by name (``"model.onnx"``, ``"weights/a.bin"``): bytes, a path to
            copy from, or a function that writes to the path it is given and may put further files,
            such as external weights, beside it.
        manifest: ``source_sha256`` (hexadecimal or None), ``scheme`` and ``target`` (objects),
            ``versions`` (texts by tool), ``seed`` (integer or None), and what else is worth
            knowing.
        record: What was measured on the model files.
        report: Makes the HTML of ``report.html`` from the record.
        calibration: The arrays of the calibration sketch.
        golden: The golden pack.

    Returns:
        The artifact as it now lies on the disk.

    Raises:
        OutputError: K500–K507: it cannot be written; what was there before is unchanged.
    """
    contents = dict(files)
    record = plain(record, "record")
    if calibration is not None:
        contents[CALIBRATION] = arrays_to_bytes(calibration)
    if golden is not None:
        contents[GOLDEN] = golden.to_bytes()
    if report is not None:
        contents[REPORT] = report(record).encode("utf-8", "backslashreplace")
    for name in contents:
        _check_name(name)
    with _held(output) as claim:
        try:
            with writing_errors(claim.target):
                raw = _build(claim.partial, contents, manifest, record)
                refuse_foreign(claim.target)
                old = _date_of(claim.target)
                put_in_place(claim.partial, claim.target, claim.aside)
        finally:
            tidy(claim)
        if old:
            note(f"replaced the artifact of {old} in {shown(str(claim.target))}")
        return Artifact(path=claim.target, manifest=parse_manifest(raw))


def _date_of(target: Path) -> str:
    """When the artifact at the target was written; empty where there is none."""
    manifest = target / MANIFEST
    if not manifest.is_file():
        return ""
    return datetime.fromtimestamp(manifest.stat().st_mtime).strftime("%Y-%m-%d %H:%M")


@contextmanager
def _held(output: str | os.PathLike[str] | OutputClaim) -> Iterator[OutputClaim]:
    if isinstance(output, OutputClaim):
        yield output
    else:
        with claim_output(output) as claim:
            yield claim


def _check_name(name: str) -> None:
    reason = name_problem(name)
    if reason or name.casefold() == MANIFEST:
        why = reason or "kompakt writes the manifest itself"
        raise OutputError("K506", f"{shown(name)!r} cannot be a file of an artifact", why=why)


def _build(
    folder: Path,
    contents: Mapping[str, Content],
    manifest: Mapping[str, object],
    record: Mapping[str, object],
) -> bytes:
    """Write every file into the new ``folder``, and all of it to the disk; returns the manifest."""
    folder.mkdir()
    for name, content in track(list(contents.items()), "writing the artifact"):
        path = folder / name
        if "/" in name:
            path.parent.mkdir(parents=True, exist_ok=True)
        _write_file(path, content)
    found = list_contents(folder)
    for name, reason in found.refused.items():
        raise OutputError(
            "K506", f"{shown(name)} {reason}", why="an artifact holds plain files only"
        )
    listed: dict[str, tuple[int, str]] = {}
    for name, size in found.files.items():
        _check_name(name)
        sync_file(folder / name)
        listed[name] = (size, sha256_of(folder / name))
    raw = manifest_bytes(manifest, record, listed)
    _write_file(folder / MANIFEST, raw)
    sync_file(folder / MANIFEST)
    for name in reversed(found.folders):
        sync_directory(folder / name)
    sync_directory(folder)
    return raw


def _write_file(path: Path, content: Content) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
        if not path.exists():
            what = f"nothing was written to {shown(path.name)}"
            raise OutputError("K506", what, why="the function given for it wrote no such file")
