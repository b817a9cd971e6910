"""Named arrays as ``.npz`` bytes: the same arrays give the same bytes, and nothing in them can run.

Any name is allowed, also hostile ones from a model: in the zip it is percent-encoded, and very long
names are listed in a member of their own. ``numpy.load`` reads the file too.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from urllib.parse import quote, unquote

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kompakt.errors import ArtifactError, OutputError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_LONGEST_NAME = 150
#: Holds the names too long for a zip member; ``%`` followed by ``l`` is never percent-encoding.
_LONG_NAMES = "%long"


def arrays_to_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The ``.npz`` file of ``arrays``, deflated, with fixed timestamps, in the given order.

    Args:
        arrays: Numeric, boolean or fixed-width text arrays of any shape.

    Raises:
        OutputError: K507: an array of Python objects.
    """
    members: dict[str, NDArray[np.generic]] = {}
    long_names: dict[str, str] = {}
    for index, (name, array) in enumerate(arrays.items()):
        member = _member(name, index)
        members[member] = array
        if member.startswith(_LONG_NAMES):
            long_names[member] = name
    if long_names:
        members[_LONG_NAMES] = np.frombuffer(json.dumps(long_names).encode(), np.uint8)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, array in members.items():
            info = zipfile.ZipInfo(f"{member}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, _npy_bytes(member, array))
    return buffer.getvalue()


def _member(name: str, index: int) -> str:
    encoded = quote(name, safe="@", errors="surrogatepass")
    return encoded if len(encoded) <= _LONGEST_NAME else f"{_LONG_NAMES}{index}"


def _npy_bytes(member: str, array: NDArray[np.generic]) -> bytes:
    if array.dtype.hasobject:
        raise OutputError("K507", f"the array {member} holds Python objects")
    little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    buffer = BytesIO()
    npy.write_array(buffer, little, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def arrays_from_bytes(
    raw: bytes, *, file: str, limit_bytes: int = 1 << 30
) -> dict[str, NDArray[np.generic]]:
    """The arrays in the bytes of an ``.npz`` file.

    Args:
        raw: The whole file.
        file: Its name, for messages.
        limit_bytes: Refuse a file that unpacks to more than this.

    Returns:
        Read-only arrays by name.

    Raises:
        ArtifactError: K515: no zip, a pickle, a damaged member, or more data than allowed.
    """
    if raw[:2] == b"\x80\x04" or raw[:1] == b"\x80":
        raise ArtifactError("K515", f"{file} is a pickle", why="a pickle can run code when read")
    try:
        with zipfile.ZipFile(BytesIO(raw)) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > limit_bytes:
                why = f"it unpacks to {size} bytes; {limit_bytes} are allowed"
                raise ArtifactError("K515", f"{file} is too large", why=why)
            found = {
                info.filename.removesuffix(".npy"): _array(archive.read(info))
                for info in archive.infolist()
            }
        return _with_real_names(found)
    except (
        zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError,
        NotImplementedError, RuntimeError, OSError, AttributeError,
    ) as error:  # fmt: skip
        raise ArtifactError("K515", f"{file} cannot be read", why=str(error)[:200]) from error


def _array(member: bytes) -> NDArray[np.generic]:
    """One ``.npy`` member; its header is checked against its data before anything is made of it."""
    buffer = BytesIO(member)
    if npy.read_magic(buffer) != (1, 0):
        raise ValueError("an array has a header kompakt does not write")
    shape, fortran, dtype = npy.read_array_header_1_0(buffer)
    if dtype.hasobject:
        raise ValueError("an array holds pickled objects, which could run code when read")
    data = memoryview(member)[buffer.tell() :]
    if fortran or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("an array's shape does not fit its data")
    return np.frombuffer(data, dtype).reshape(shape)


def _with_real_names(found: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    listed = found.pop(_LONG_NAMES, None)
    long_names = {} if listed is None else json.loads(listed.tobytes())
    if not isinstance(long_names, dict) or not all(isinstance(n, str) for n in long_names.values()):
        raise ValueError("the list of long names is damaged")
    return {
        long_names[member] if member.startswith(_LONG_NAMES) else _decoded(member): array
        for member, array in found.items()
    }


def _decoded(member: str) -> str:
    return unquote(member, errors="surrogatepass")
