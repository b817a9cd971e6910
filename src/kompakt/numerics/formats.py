"""What numbers a tensor is stored in: integers of 1 to 16 bits and the small floats.

A format is plain frozen data. Its name says everything: ``int8`` (-128…127), ``uint4`` (0…15),
``int8_narrow`` (-127…127, symmetric: what weights use so that negation never overflows), ``fp16``,
``bf16``, ``fp8_e4m3``, ``fp8_e5m2``, ``fp32``.

>>> from kompakt.numerics.formats import get_format
>>> get_format("int4").qmin, get_format("int4").qmax
(-8, 7)
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kompakt.errors import SchemeError

if TYPE_CHECKING:
    import torch

MAX_INTEGER_BITS = 16

_INTEGER_NAME = re.compile(r"(?P<sign>u?)int(?P<bits>[1-9][0-9]?)(?P<narrow>_narrow)?")


@dataclass(frozen=True, kw_only=True)
class Format:
    """One number format.

    Attributes:
        name: The name :func:`get_format` knows it by.
        kind: ``int`` for affine integer codes, ``float`` for a small float.
        bits: Bits per element when stored densely.
        signed: Whether negative codes exist.
        qmin: Smallest code; for a float format the lowest finite value (always an integer).
        qmax: Largest code; for a float format the largest finite value.
        storage: Name of the torch dtype that holds one code; 4-bit codes live in
            ``int8``/``uint8`` and are only packed on the way to a file (see
            :mod:`kompakt.numerics.packing`).
    """

    name: str
    kind: Literal["int", "float"]
    bits: int
    signed: bool
    qmin: int
    qmax: int
    storage: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """The torch dtype that holds one code."""
        import torch

        dtype: torch.dtype = getattr(torch, self.storage)
        return dtype

    @property
    def is_narrow(self) -> bool:
        """Whether the most negative code of a signed integer format is left unused."""
        return self.kind == "int" and self.signed and self.qmin == -self.qmax

    @property
    def is_small_float(self) -> bool:
        """Whether it is a float of 8 bits, whose tensors need a scale."""
        return self.kind == "float" and self.bits <= 8

    @property
    def levels(self) -> int:
        """Number of codes of an integer format."""
        return self.qmax - self.qmin + 1

    def __str__(self) -> str:
        return self.name


def integer_format(bits: int, *, signed: bool, narrow: bool = False) -> Format:
    """The integer format of ``bits`` bits.

    Args:
        bits: 1 to 16.
        signed: Two's complement when true, else codes start at 0.
        narrow: Leave the most negative code out, so that the range is symmetric. Signed formats of
            2 bits and more.

    Raises:
        SchemeError: K300 when there is no such format.
    """
    name = f"{'' if signed else 'u'}int{bits}{'_narrow' if narrow else ''}"
    if not 1 <= bits <= MAX_INTEGER_BITS:
        raise SchemeError(
            "K300",
            f"the number format {name!r}",
            why=f"integer formats have 1 to {MAX_INTEGER_BITS} bits, not {bits}",
        )
    if narrow and (not signed or bits == 1):
        raise SchemeError(
            "K300",
            f"the number format {name!r}",
            why="only signed formats of two or more bits have a narrow (symmetric) range",
            help=f"use {name.removesuffix('_narrow')!r}",
        )
    half = 1 << (bits - 1)
    qmin = (1 - half if narrow else -half) if signed else 0
    qmax = half - 1 if signed else 2 * half - 1
    storage = f"{'' if signed else 'u'}int{8 if bits <= 8 else 16}"
    return Format(
        name=name, kind="int", bits=bits, signed=signed, qmin=qmin, qmax=qmax, storage=storage
    )


def _float_format(name: str, bits: int, largest: float, storage: str) -> Format:
    limit = int(largest)
    return Format(
        name=name, kind="float", bits=bits, signed=True, qmin=-limit, qmax=limit, storage=storage
    )


_INTEGERS = tuple(
    integer_format(bits, signed=signed, narrow=narrow)
    for bits in range(1, MAX_INTEGER_BITS + 1)
    for signed, narrow in ((True, False), (True, True), (False, False))
    if not (narrow and bits == 1)
)

FORMATS: dict[str, Format] = {
    "fp32": _float_format("fp32", 32, (2 - 2**-23) * 2.0**127, "float32"),
    "fp16": _float_format("fp16", 16, 65504, "float16"),
    "bf16": _float_format("bf16", 16, (2 - 2**-7) * 2.0**127, "bfloat16"),
    "fp8_e4m3": _float_format("fp8_e4m3", 8, 448, "float8_e4m3fn"),
    "fp8_e5m2": _float_format("fp8_e5m2", 8, 57344, "float8_e5m2"),
    **{fmt.name: fmt for fmt in _INTEGERS},
}


def get_format(name: str) -> Format:
    """The format of that name.

    Args:
        name: For instance ``"int8"``, ``"uint5"``, ``"int4_narrow"``, ``"bf16"``.

    Raises:
        SchemeError: K300 when no format has that name; the message names the closest ones.
    """
    if name in FORMATS:
        return FORMATS[name]
    match = _INTEGER_NAME.fullmatch(name)
    if match:
        return integer_format(
            int(match["bits"]), signed=not match["sign"], narrow=bool(match["narrow"])
        )
    near = difflib.get_close_matches(name.lower(), FORMATS, n=3, cutoff=0.4)
    floats = ", ".join(n for n, fmt in FORMATS.items() if fmt.kind == "float")
    raise SchemeError(
        "K300",
        f"the number format {name!r}",
        why="no format has that name",
        help=(f"did you mean {' or '.join(near)}? " if near else "")
        + f"known: int1…int16, uint1…uint16, int2_narrow…int16_narrow, {floats}",
    )
