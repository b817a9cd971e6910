"""The right to write one output directory: held by one run at a time, refused before work starts.

Three hidden neighbours of the target belong to a run: the lock, the directory being built, and,
only where directories cannot change places in one step, the old artifact. A killed run may leave
them behind; the next run on the same output takes the lock (the system released it with the
process), puts an old artifact back if its place is empty, and removes the rest.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kompakt.artifact.contents import MANIFEST, list_contents, shown
from kompakt.artifact.manifest import parse_manifest, read_manifest
from kompakt.artifact.swap import sync_directory
from kompakt.errors import ArtifactError, OutputError
from kompakt.progress import note

_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_SWAP = (errno.EBUSY, errno.EXDEV)
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@dataclass(frozen=True, kw_only=True)
class OutputClaim:
    """An output directory that this run alone may write.

    Attributes:
        target: Where the artifact will be: absolute, no symbolic links.
    """

    target: Path

    @property
    def partial(self) -> Path:
        """Where the artifact is built."""
        return _neighbour(self.target, "partial")

    @property
    def aside(self) -> Path:
        """Where the old artifact waits while the new one moves in."""
        return _neighbour(self.target, "old")


def _neighbour(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.kompakt-{role}")


@contextmanager
def claim_output(path: str | os.PathLike[str]) -> Iterator[OutputClaim]:
    """Hold an output directory for the length of a ``with`` block.

    A long run claims its output first, so that what cannot be written is known before the work.
    Leftovers of killed runs are removed. Nothing appears at ``path`` until an artifact is complete.

    Args:
        path: Where the artifact shall be. Missing parents are made, and removed again when nothing
            was written.

    Raises:
        OutputError: K500–K505: another run holds it, it cannot be written, or it holds something
            that is not an artifact.
    """
    target = _checked_target(Path(path))
    made: list[Path] = []
    try:
        with writing_errors(target):
            _make_parents(target.parent, made)
            descriptor = _lock(_neighbour(target, "lock"), target)
        try:
            claim = OutputClaim(target=target)
            with writing_errors(target):
                restore(claim)
                refuse_foreign(target)
            yield claim
        finally:
            tidy(claim)
            _unlock(descriptor, _neighbour(target, "lock"))
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


def _checked_target(path: Path) -> Path:
    try:
        target = Path(os.path.realpath(path))
        working = Path(os.path.realpath(Path.cwd()))
    except (OSError, ValueError) as error:
        raise OutputError("K500", f"cannot write to {shown(str(path))}", why=str(error)) from error
    if os.path.ismount(target):
        raise OutputError("K505", f"cannot write to {shown(str(path))}", why="it is a mount point")
    if target == working or target in working.parents:
        why = "the current directory is in it and would vanish"
        raise OutputError("K505", f"cannot write to {shown(str(path))}", why=why)
    return target


def _make_parents(folder: Path, made: list[Path]) -> None:
    """Make ``folder`` and its parents; append each one made, parents first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        made.append(parent)


def _lock(lock: Path, target: Path) -> int:
    """Take the lock; the descriptor keeps it, and the system frees it when the process ends."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(lock, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the holder removes the file before it lets go: what we hold must still be the file
            if os.path.lexists(lock) and os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                _sign(descriptor)
                return descriptor
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder.isdigit() else "another process"
            what = f"{shown(str(target))} is being written by {who}"
            raise OutputError("K503", what, where=str(lock)) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    # only for the other run's message: a full disk must not stop us here
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _unlock(descriptor: int, lock: Path) -> None:
    with suppress(OSError):
        lock.unlink()
    with suppress(OSError):
        os.close(descriptor)


def restore(claim: OutputClaim) -> None:
    """Undo what a killed run left: the old artifact goes back to its place, the rest goes.

    Raises:
        OSError: Something could not be renamed or removed.
    """
    if os.path.lexists(claim.aside):
        if os.path.lexists(claim.target / MANIFEST) or not _is_whole(claim.aside):
            shutil.rmtree(claim.aside)
        else:
            claim.aside.rename(claim.target)  # also into the place of an empty directory
            sync_directory(claim.target.parent)
    if os.path.lexists(claim.partial):
        shutil.rmtree(claim.partial)


def _is_whole(folder: Path) -> bool:
    """Whether no file of an artifact is gone, as some are once its removal has begun."""
    try:
        listed = parse_manifest(read_manifest(folder))["files"]
    except ArtifactError:
        return False
    found = list_contents(folder).files
    return all(found.get(name) == entry["size"] for name, entry in listed.items())


def tidy(claim: OutputClaim) -> None:
    """:func:`restore` at the end of a run: what cannot be removed is left to the next run."""
    try:
        restore(claim)
    except OSError as error:
        note(f"{claim.partial} could not be removed ({error.strerror}); the next run will")


def recover(target: Path) -> bool:
    """Put an old artifact back that a killed run left aside; ``True`` when that was done.

    Raises:
        OutputError: K503: a run is writing just now.
        OSError: It could not be renamed.
    """
    claim = OutputClaim(target=target)
    if os.path.lexists(target) or not os.path.lexists(claim.aside):
        return False
    lock = _neighbour(target, "lock")
    descriptor = _lock(lock, target)
    try:
        restore(claim)
    finally:
        _unlock(descriptor, lock)
    return True


def refuse_foreign(target: Path) -> None:
    """Refuse a target that holds any file kompakt did not write.

    Raises:
        OutputError: K504.
        OSError: It cannot be read.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError("K504", f"{shown(str(target))} is a file, not a directory")
    found = list_contents(target)
    if not (found.files or found.refused or found.folders):
        return
    what = f"{shown(str(target))} is not replaced"
    if MANIFEST not in found.files:
        raise OutputError("K504", what, why="it is not empty and not a kompakt artifact")
    try:
        listed = parse_manifest(read_manifest(target))["files"]
    except ArtifactError as error:
        raise OutputError("K504", what, why=error.what) from error
    extra = [name for name in (*found.files, *found.refused) if name not in listed]
    extra.remove(MANIFEST)
    if extra:
        raise OutputError("K504", what, why=f"kompakt did not write {shown(extra[0])} in it")


@contextmanager
def writing_errors(target: Path) -> Iterator[None]:
    """Turn every ``OSError`` in the block into the OutputError that says what to do."""
    try:
        yield
    except OSError as error:
        code = "K502"
        for candidate, numbers in {
            "K500": _NO_PLACE, "K501": _NO_SPACE, "K505": _NO_SWAP, "K504": _OCCUPIED,
        }.items():  # fmt: skip
            if error.errno in numbers:
                code = candidate
        reason = error.strerror or str(error) or type(error).__name__
        where = shown(str(error.filename)) if error.filename else ""
        what = f"cannot write to {shown(str(target))}"
        raise OutputError(code, what, where=where, why=reason) from error
