"""Stored tensors must hold what they declare."""

from __future__ import annotations

import math
from typing import Any

import onnx

from kompakt.guard.beside import Beside, read_reference
from kompakt.guard.limits import Limits
from kompakt.guard.refusals import TENSOR, TOO_LARGE, named, refusal

_P = onnx.TensorProto
BITS: dict[int, int] = {
    **dict.fromkeys((_P.FLOAT, _P.INT32, _P.UINT32), 32),
    **dict.fromkeys((_P.UINT8, _P.INT8, _P.BOOL), 8),
    **dict.fromkeys((_P.UINT16, _P.INT16, _P.FLOAT16, _P.BFLOAT16), 16),
    **dict.fromkeys((_P.INT64, _P.DOUBLE, _P.UINT64, _P.COMPLEX64), 64),
    _P.COMPLEX128: 128,
    **{v: 8 for n, v in _P.DataType.items() if n.startswith("FLOAT8")},
    **{v: 6 for n, v in _P.DataType.items() if n.startswith("FLOAT6")},
    **{v: 4 for n, v in _P.DataType.items() if n in ("UINT4", "INT4", "FLOAT4E2M1")},
    **{v: 2 for n, v in _P.DataType.items() if n in ("UINT2", "INT2")},
}
"""Bits of one element, by ONNX element type; texts have none."""

_FIELDS: dict[str, frozenset[int]] = {
    "float_data": frozenset((_P.FLOAT, _P.COMPLEX64)),
    "double_data": frozenset((_P.DOUBLE, _P.COMPLEX128)),
    "int64_data": frozenset((_P.INT64,)),
    "uint64_data": frozenset((_P.UINT64, _P.UINT32)),
    "string_data": frozenset((_P.STRING,)),
    "int32_data": frozenset(BITS)
    - {_P.FLOAT, _P.COMPLEX64, _P.DOUBLE, _P.COMPLEX128, _P.INT64, _P.UINT64, _P.UINT32},
}
_MOST_ELEMENTS = 1 << 48


def check_tensor(tensor: Any, file: str, limits: Limits, where: str = "") -> Beside | None:
    """Check one tensor without reading its numbers.

    Args:
        tensor: A ``TensorProto``.
        file: The model file, for messages.
        limits: What is too large.
        where: Which node holds the tensor; initializers need none.

    Returns:
        Where its data is when that is another file.

    Raises:
        CaptureError: K142 when it is not what it says, K141 when it has too many dimensions, K143 when its data
            lies where it must not.
    """
    place = where or named("tensor", tensor.name)
    if tensor.data_type not in BITS and tensor.data_type != _P.STRING:
        raise refusal(TENSOR, file, f"its element type {tensor.data_type} does not exist", place)
    if tensor.HasField("segment"):
        raise refusal(TENSOR, file, "it is only a segment of a tensor", place)
    count = elements(tensor.dims, file, limits, place)
    fields = [name for name in _FIELDS if len(getattr(tensor, name))]
    if tensor.data_location == _P.EXTERNAL:
        if fields or len(tensor.raw_data):
            raise refusal(TENSOR, file, "its data is in the file and beside it", place)
        if tensor.data_type == _P.STRING:
            raise refusal(TENSOR, file, "texts cannot lie in another file", place)
        return read_reference(tensor, stored_bytes(tensor.data_type, count), file, place)
    if len(tensor.external_data):
        raise refusal(TENSOR, file, "it names another file, but says its data is here", place)
    _check_present(tensor, count, fields, file, place)
    return None


def elements(dims: Any, file: str, limits: Limits, place: str) -> int:
    """How many elements a tensor of these dimensions has."""
    if len(dims) > limits.rank:
        raise refusal(
            TOO_LARGE, file, f"it has {len(dims)} dimensions; {limits.rank} are allowed", place
        )
    if any(size < 0 for size in dims):
        raise refusal(TENSOR, file, f"its shape {list(dims)} has a negative size", place)
    # Sizes beside a 0 are multiplied as well: numpy refuses what overflows even when nothing is in it.
    if math.prod(size for size in dims if size) > _MOST_ELEMENTS:
        raise refusal(TENSOR, file, f"its shape {list(dims)} has too many elements", place)
    return math.prod(dims)


def stored_bytes(data_type: int, count: int) -> int:
    """Bytes that so many elements take, the last one rounded up."""
    return (count * BITS[data_type] + 7) // 8


def _check_present(tensor: Any, count: int, fields: list[str], file: str, place: str) -> None:
    raw = tensor.HasField("raw_data") and len(tensor.raw_data) > 0
    if raw + len(fields) > 1:
        listed = ", ".join((*fields, *(["raw_data"] if raw else [])))
        raise refusal(TENSOR, file, f"its data is there more than once: {listed}", place)
    if raw:
        if tensor.data_type == _P.STRING:
            raise refusal(TENSOR, file, "texts cannot be raw bytes", place)
        present, needed = len(tensor.raw_data), stored_bytes(tensor.data_type, count)
        unit = "bytes"
    elif fields:
        if tensor.data_type not in _FIELDS[fields[0]]:
            raise refusal(TENSOR, file, f"its element type does not go into {fields[0]}", place)
        present, needed = len(getattr(tensor, fields[0])), _entries(tensor.data_type, count)
        unit = "numbers"
    else:
        present, needed, unit = 0, count, "numbers"
    if present != needed:
        why = f"its shape {list(tensor.dims)} needs {needed} {unit}, and {present} are there"
        raise refusal(TENSOR, file, why, place)


def _entries(data_type: int, count: int) -> int:
    """Entries of a typed field: complex numbers take two, small ones share."""
    if data_type in (_P.COMPLEX64, _P.COMPLEX128):
        return 2 * count
    bits = BITS.get(data_type, 8)
    return (count * bits + 7) // 8 if bits < 8 else count
