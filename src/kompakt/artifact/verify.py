"""Is every byte of an artifact the one that was written? Offline, without loading anything."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kompakt.artifact.contents import MANIFEST, list_contents, sha256_of, shown
from kompakt.artifact.manifest import parse_manifest, read_manifest
from kompakt.artifact.output import recover
from kompakt.errors import ArtifactError, OutputError
from kompakt.progress import track


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: with which file, and what. ``code`` is the error it would raise."""

    file: str
    what: str
    code: str


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What :func:`verify` found.

    Attributes:
        path: The artifact's directory.
        problems: Everything that is wrong, the manifest first.
        files: How many files were compared with the manifest.
        manifest: The manifest, ``None`` when it could not be read.
    """

    path: Path
    problems: tuple[Problem, ...]
    files: int
    manifest: dict[str, Any] | None

    @property
    def ok(self) -> bool:
        """Whether every byte is the one that was written."""
        return not self.problems


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Compare every file with the manifest, and the manifest with itself.

    Args:
        path: An artifact's directory.

    Returns:
        A report that names each file which is missing, changed, unlisted or not a plain file.

    Raises:
        ArtifactError: K510: no artifact there; K514: a newer kompakt wrote it.
    """
    root = _existing(Path(path))
    while True:
        before = _identity(root)
        report = _verified(root)
        # a run that replaced the artifact meanwhile: look at the new one
        if report.ok or _identity(root) == before:
            return report


def _existing(path: Path) -> Path:
    """The real directory; one that a killed run left aside is put back first."""
    for _ in range(20):
        root = Path(os.path.realpath(path))
        try:
            if root.exists() or not recover(root):
                break
        except OutputError:
            # a run is just exchanging it: two system calls, then it is back
            time.sleep(0.05)
        except OSError:
            break
    if not root.is_dir():
        why = "it is not a directory" if root.exists() else "it does not exist"
        raise ArtifactError("K510", f"{shown(str(path))} is not an artifact", why=why)
    if not os.path.lexists(root / MANIFEST):
        why = f"it holds no {MANIFEST}"
        raise ArtifactError("K510", f"{shown(str(path))} is not an artifact", why=why)
    return root


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        status = root.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _verified(root: Path) -> VerifyReport:
    try:
        manifest = parse_manifest(read_manifest(root))
    except ArtifactError as error:
        if error.code == "K514":
            raise
        what = "was changed" if error.code == "K511" else f"cannot be read: {error.why}"
        problem = Problem(file=MANIFEST, what=what, code=error.code)
        return VerifyReport(path=root, problems=(problem,), files=0, manifest=None)
    problems = tuple(_problems(root, manifest["files"]))
    return VerifyReport(
        path=root, problems=problems, files=len(manifest["files"]), manifest=manifest
    )


def _problems(root: Path, listed: dict[str, dict[str, Any]]) -> Iterator[Problem]:
    try:
        found = list_contents(root)
    except OSError as error:
        yield Problem(file=".", what=f"cannot be read: {error.strerror}", code="K511")
        return
    for name, entry in track(list(listed.items()), "verifying"):
        what = found.refused.get(name)
        if what:
            yield Problem(file=name, what=what, code="K512")
        elif name not in found.files:
            yield Problem(file=name, what="is missing", code="K511")
        elif found.files[name] != entry["size"]:
            what = f"has {found.files[name]} bytes instead of {entry['size']}"
            yield Problem(file=name, what=what, code="K511")
        elif what := _content_problem(root / name, entry["sha256"]):
            yield Problem(file=name, what=what, code="K511")
    for name in found.files:
        if name not in listed and name != MANIFEST:
            yield Problem(file=shown(name), what="is not in the manifest", code="K512")
    for name, what in found.refused.items():
        if name not in listed:
            yield Problem(file=shown(name), what=f"{what} and not in the manifest", code="K512")
    expected = {str(parent) for name in listed for parent in Path(name).parents}
    for name in found.folders:
        if name not in expected:
            yield Problem(file=shown(name) + "/", what="is not in the manifest", code="K512")


def _content_problem(path: Path, digest: str) -> str | None:
    try:
        return None if sha256_of(path) == digest else "was changed: its sha256 differs"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
