"""Writing the folders of a model repository: beside it first, then renamed into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kompakt.artifact.swap import sync_directory, sync_file
from kompakt.deploy.triton_config import Served
from kompakt.deploy.triton_schema import check_text, parse, to_text
from kompakt.errors import OutputError

CONFIG = "config.pbtxt"


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """One model's folder of a repository, before it is written.

    Attributes:
        served: The model.
        config: Its configuration.
        files: The files of its version's folder.
    """

    served: Served
    config: Any
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The configuration as it is written."""
        return to_text(self.config)

    def check(self) -> str:
        """Read the text back; says with which schema (see :func:`check_text`)."""
        return check_text(self.text, self.config)


def write_folders(repository: Path, folders: Sequence[ModelFolder], version: int) -> None:
    """Write beside the repository, then rename folder by folder; what was renamed goes back if one fails."""
    repository.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        _refuse_existing(repository / folder.served.name, folder, version, alone=len(folders) == 1)
    with _partial(repository) as partial:
        for folder in folders:
            _build(partial / folder.served.name, folder, version)
        done: list[tuple[Path, Path]] = []
        try:
            for folder in folders:
                _put(partial / folder.served.name, repository / folder.served.name, version, done)
            sync_directory(repository)
        except BaseException:
            for source, target in reversed(done):
                target.rename(source)
            raise


def _refuse_existing(target: Path, folder: ModelFolder, version: int, *, alone: bool) -> None:
    """A model that is there takes another version, when it takes and gives the same tensors."""
    if not os.path.lexists(target):
        return
    what = f"the model {folder.served.name} in {target.parent}"
    if not alone or os.path.lexists(target / str(version)):
        why = "it is there already" if not alone else f"it has a version {version} already"
        raise OutputError("K541", what, why=why)
    try:
        old = parse((target / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, OutputError) as error:
        why = "it is there already, and was not written by kompakt"
        raise OutputError("K541", what, why=why) from error
    new = parse(folder.text)
    if any(list(getattr(old, f)) != list(getattr(new, f)) for f in ("input", "output")):
        why = "it is there already, with other inputs or outputs"
        raise OutputError("K541", what, why=why)


@contextmanager
def _partial(repository: Path) -> Iterator[Path]:
    """A folder beside the repository: the server must not see what is not finished."""
    made = Path(tempfile.mkdtemp(prefix=f".{repository.name}.partial-", dir=repository.parent))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _build(path: Path, folder: ModelFolder, version: int) -> None:
    inside = path / str(version)
    inside.mkdir(parents=True)
    for name, content in {**folder.files, f"../{CONFIG}": folder.text.encode()}.items():
        place = path / CONFIG if name.startswith("../") else inside / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
        sync_file(place)
    sync_directory(path)


def _put(source: Path, target: Path, version: int, done: list[tuple[Path, Path]]) -> None:
    if not os.path.lexists(target):
        source.rename(target)
        done.append((source, target))
        return
    # The new version first: a server that polls loads it with the old configuration, which has the same tensors.
    (source / str(version)).rename(target / str(version))
    done.append((source / str(version), target / str(version)))
    os.replace(source / CONFIG, target / CONFIG)


__all__ = ["CONFIG", "ModelFolder", "write_folders"]
