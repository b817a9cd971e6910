"""An artifact that was opened: its files, its manifest, its record."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.artifact.arrays import arrays_from_bytes
from kompakt.artifact.contents import CALIBRATION, GOLDEN, REPORT, open_plain, shown
from kompakt.artifact.golden import GoldenPack
from kompakt.artifact.verify import verify
from kompakt.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A directory whose every byte was compared with its manifest.

    Attributes:
        path: The directory.
        manifest: What ``manifest.json`` says.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """What was measured."""
        record: dict[str, Any] = self.manifest["record"]
        return record

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files but the manifest, sorted."""
        return tuple(self.manifest["files"])

    @property
    def fingerprint(self) -> str:
        """One sha256 over everything that does not depend on measurements.

        Two artifacts of the same fingerprint hold the same model, sketch and golden pack.
        """
        content = hashlib.sha256()
        for name, entry in self.manifest["files"].items():
            if name != REPORT:
                content.update(f"{entry['sha256']}  {name}\n".encode())
        return content.hexdigest()

    def file(self, name: str) -> Path:
        """The path of a file.

        Raises:
            ArtifactError: K516: the manifest lists no such file.
        """
        if name not in self.manifest["files"]:
            why = f"it has {', '.join(shown(known) for known in self.files[:8])}"
            raise ArtifactError("K516", f"the artifact has no file {shown(name)!r}", why=why)
        return self.path / name

    def read(self, name: str) -> bytes:
        """The bytes of a file, compared with the manifest as they are read.

        Raises:
            ArtifactError: K516: no such file; K511: it changed since the artifact was opened.
        """
        path, entry = self.file(name), self.manifest["files"][name]
        try:
            with open_plain(path) as file:
                raw = file.read(entry["size"] + 1)
        except OSError as error:
            raise ArtifactError("K511", f"{shown(name)} cannot be read", why=str(error)) from error
        if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
            raise ArtifactError("K511", f"{shown(name)} was changed since it was checked")
        return raw

    def golden(self) -> GoldenPack | None:
        """The golden pack; ``None`` when the artifact has none.

        Raises:
            ArtifactError: K511, K515: it is damaged.
        """
        return GoldenPack.from_bytes(self.read(GOLDEN)) if GOLDEN in self.files else None

    def calibration(self) -> dict[str, NDArray[np.generic]] | None:
        """The arrays of the calibration sketch; ``None`` when the artifact has none.

        Raises:
            ArtifactError: K511, K515: it is damaged.
        """
        if CALIBRATION not in self.files:
            return None
        return arrays_from_bytes(self.read(CALIBRATION), file=CALIBRATION)


def open_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Open an artifact after comparing every file with the manifest.

    Args:
        path: The directory.

    Raises:
        ArtifactError: K510: no artifact there; K511: a file is missing or changed; K512: an
            unlisted file, a link or a special file; K513, K514: an unreadable manifest.
    """
    report = verify(path)
    if report.manifest is None or report.problems:
        first, more = report.problems[0], len(report.problems) - 1
        others = f"; {more} more, see `kompakt verify`" if more else ""
        what = f"{shown(first.file)} {first.what}{others}"
        raise ArtifactError(first.code, what, where=str(report.path))
    return Artifact(path=report.path, manifest=report.manifest)
