"""Arrays from ``.npz`` files, read as what they are: untrusted zip archives.

An uncompressed array is memory-mapped, so data larger than memory works; a compressed one is
decompressed into memory up to a limit. Nothing is allocated before the sizes in the archive's
directory, the array's header and the file agree, and
pickled objects are refused by the type in the header: nothing from the file is ever executed.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kompakt.errors import DataError
from kompakt.measuring.data.dataset import DEFAULT_BATCH, SHUFFLE_SEED, ArrayDataset
from kompakt.progress import note

LARGEST_COMPRESSED_BYTES = 1 << 30
_LIMIT_MIB = LARGEST_COMPRESSED_BYTES >> 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LABELS, _GROUPS = "labels", "groups"


def open_npz(
    path: Path,
    input_names: Sequence[str],
    *,
    batch: int = DEFAULT_BATCH,
    shuffle: int | None = SHUFFLE_SEED,
) -> ArrayDataset:
    """Open arrays named like the inputs, with optional ``labels`` and ``groups``.

    Args:
        path: The file.
        input_names: The model's inputs; empty takes every array that is not labels or groups. With
            one input and one array, their names need not agree.
        batch: Samples in a batch.
        shuffle: Seed of the order, or ``None`` for the file's order.

    Raises:
        DataError: K202 for a damaged or hostile file, K209 for a missing array, K214 for too large
            ones.
    """
    arrays = read_npz(path)
    labels, groups = arrays.pop(_LABELS, None), arrays.pop(_GROUPS, None)
    if len(input_names) == 1 and len(arrays) == 1:
        arrays = {input_names[0]: next(iter(arrays.values()))}
    names = list(input_names) or list(arrays)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(
            "K209",
            f"{path.name!r} has arrays {sorted(arrays)}",
            where=str(path),
            why=f"the model's inputs are {names}",
            help="name the arrays like the inputs: numpy.savez(path, "
            + ", ".join(f"{name}=…" for name in names)
            + ", labels=…)",
        )
    unused = sorted(set(arrays) - set(names))
    if unused:
        note(f"{path.name}: arrays {unused} are not used: no input has that name")
    inputs = {name: arrays[name] for name in names}
    for name, values in {**inputs, _LABELS: labels, _GROUPS: groups}.items():
        if values is not None and values.ndim == 0:
            raise DataError("K205", f"array {name!r} is a single number", where=str(path))
    return ArrayDataset(
        inputs, labels, groups, name=path.name, batch=batch, shuffle=shuffle, file=path.name
    )


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file; uncompressed ones memory-mapped, read-only.

    Raises:
        DataError: K202 for a damaged or hostile file, K214 for too large compressed ones.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _refuse_bombs(path, members)
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays or member.filename == name:
                    raise unusable(path, f"member {member.filename[:80]!r} is no array of its own")
                arrays[name] = _read_member(path, archive, member)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise unusable(path, f"it is damaged: {error}") from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or features of other programs
        raise unusable(path, str(error)) from error
    return arrays


def unusable(path: Path, why: str) -> DataError:
    """The error for a file that is not a plain archive of arrays."""
    return DataError("K202", f"{path.name!r} is not usable", where=str(path), why=why[:300])


def _refuse_bombs(path: Path, members: list[zipfile.ZipInfo]) -> None:
    packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
    size = sum(member.file_size for member in packed)
    if size > LARGEST_COMPRESSED_BYTES:
        raise DataError(
            "K214",
            f"{path.name!r} unpacks to {size / 2**30:.1f} GiB",
            where=str(path),
            why=f"compressed arrays are read into memory, at most {_LIMIT_MIB} MiB",
        )
    file_size = path.stat().st_size
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise unusable(path, f"member {member.filename[:80]!r} is packed in an unusual way")
        if member.compress_size > file_size:
            raise unusable(path, f"member {member.filename[:80]!r} claims more than the whole file")


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    name = member.filename[:80]
    with archive.open(member) as stream:
        try:
            shape, fortran, dtype = _header(stream)
        except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise unusable(path, f"array {name!r} has a damaged header: {error}") from error
        if dtype.hasobject or dtype.kind not in "fiubc":
            raise unusable(
                path, f"array {name!r} holds {dtype}: only numbers are read, never pickled objects"
            )
        if any(not isinstance(size, int) or size < 0 for size in shape):
            raise unusable(path, f"array {name!r} has the shape {shape}")
        declared = math.prod(shape) * dtype.itemsize
        start = stream.tell()
        if start + declared != member.file_size:
            raise unusable(
                path,
                f"array {name!r} of shape {str(shape)[:80]} needs {declared} bytes and has "
                f"{member.file_size - start}",
            )
        if member.compress_type == zipfile.ZIP_STORED:
            return _mapped(path, member, start, shape, fortran, dtype)
        data = stream.read()  # at most file_size bytes, which was checked; the CRC is verified here
    if len(data) != declared:
        raise unusable(path, f"array {name!r} ends early")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"unknown version {version}")
    shape, fortran, dtype = read(stream)
    return tuple(shape), bool(fortran), dtype


def _mapped(
    path: Path,
    member: zipfile.ZipInfo,
    start: int,
    shape: tuple[int, ...],
    fortran: bool,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = file.read(_LOCAL_HEADER.size)
    if len(local) < _LOCAL_HEADER.size or local[:4] != b"PK\x03\x04":
        raise unusable(path, f"array {member.filename[:80]!r} is not where the directory says")
    fields = _LOCAL_HEADER.unpack(local)
    offset = member.header_offset + _LOCAL_HEADER.size + fields[-2] + fields[-1] + start
    length = math.prod(shape) * dtype.itemsize
    if fields[3] != zipfile.ZIP_STORED or offset + length > path.stat().st_size:
        raise unusable(path, f"array {member.filename[:80]!r} reaches past the end of the file")
    if length == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, order="F" if fortran else "C")
