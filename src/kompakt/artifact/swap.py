"""Putting a finished directory in the place of another, in one step.

On Linux the two directories change places by one system call, ``renameat2`` with
``RENAME_EXCHANGE``: at every moment the target is the old or the new directory. Where the file
system or the system does not know that call, the old directory is moved aside, the new one moved
in, and a run killed between the two moves leaves the old one under its aside name, from where
:func:`kompakt.artifact.output.restore` brings it back.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
_NO_DIRECTORY_SYNC = (errno.EINVAL, errno.EOPNOTSUPP)


def put_in_place(finished: Path, target: Path, aside: Path) -> None:
    """Rename ``finished`` to ``target``; when a step fails, everything is as before.

    Args:
        finished: A complete directory, already on the disk.
        target: Where it shall be; may exist. Its old content is then found at ``finished`` or
            ``aside``, for the caller to remove.
        aside: A free name beside both.

    Raises:
        OSError: It cannot be done. The target is as it was.
    """
    undo = _swap(finished, target, aside)
    try:
        sync_directory(target.parent)
    except OSError:
        undo()
        raise


def _swap(finished: Path, target: Path, aside: Path) -> Callable[[], None]:
    if not os.path.lexists(target):
        finished.rename(target)
        return lambda: _move(target, finished)
    if _exchange(finished, target):
        return lambda: _exchange_back(finished, target)
    target.rename(aside)
    try:
        finished.rename(target)
    except BaseException:
        aside.rename(target)
        raise

    def undo() -> None:
        target.rename(finished)
        aside.rename(target)

    return undo


def _move(source: Path, target: Path) -> None:
    source.rename(target)


def _exchange_back(finished: Path, target: Path) -> None:
    _exchange(finished, target)


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places; ``False`` when that cannot be done in one step here."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if renameat2(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def sync_file(path: Path) -> None:
    """Make sure that a file's bytes are on the disk.

    Raises:
        OSError: They are not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make sure that a directory's entries are on the disk, where the file system can.

    Raises:
        OSError: They are not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        with suppress(OSError):
            os.close(descriptor)
