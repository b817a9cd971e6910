"""4-bit and 2-bit codes, densely in bytes and back.

The first code sits in the lowest bits (low nibble first), codes run in row-major order, and an
incomplete last byte is filled with zero bits: the order of ONNX's INT4, UINT4, INT2 and UINT2
tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kompakt.errors import NumericsError
from kompakt.numerics.formats import Format


def pack(codes: Tensor, fmt: Format) -> Tensor:
    """Codes as dense bytes.

    Args:
        codes: Integer tensor of any shape, every element within the format.
        fmt: An integer format of 2 or 4 bits.

    Returns:
        uint8 tensor of shape ``(ceil(numel · bits / 8),)``.

    Raises:
        NumericsError: K306 when the format cannot be packed or a code lies outside it.
    """
    per_byte = _codes_per_byte(fmt)
    flat = codes.reshape(-1).to(torch.int32)
    if flat.numel() and bool(((flat < fmt.qmin) | (flat > fmt.qmax)).any()):
        raise NumericsError(
            "K306",
            f"packing codes from {int(flat.min())} to {int(flat.max())} as {fmt.name}",
            why=f"{fmt.name} holds {fmt.qmin} to {fmt.qmax}",
        )
    missing = -flat.numel() % per_byte
    rows = torch.cat([flat, flat.new_zeros(missing)]).reshape(-1, per_byte)
    mask = (1 << fmt.bits) - 1
    packed = torch.zeros_like(rows[:, 0])
    for position in range(per_byte):
        packed |= (rows[:, position] & mask) << (position * fmt.bits)
    return packed.to(torch.uint8)


def unpack(packed: Tensor, fmt: Format, shape: Sequence[int]) -> Tensor:
    """The codes that :func:`pack` made dense.

    Args:
        packed: uint8 tensor of shape (bytes,).
        fmt: The format they were packed as.
        shape: Shape of the codes.

    Returns:
        Tensor of that shape and dtype ``fmt.torch_dtype``.

    Raises:
        NumericsError: K306 when the format cannot be packed or the number of bytes does not fit
            the shape.
    """
    per_byte = _codes_per_byte(fmt)
    count = math.prod(shape)
    if packed.dim() != 1 or packed.numel() != -(-count // per_byte):
        raise NumericsError(
            "K306",
            f"unpacking {packed.numel()} bytes as {fmt.name} of shape {tuple(shape)}",
            why=f"that shape takes {-(-count // per_byte)} bytes",
        )
    wide = packed.to(torch.int32).unsqueeze(1)
    shifts = torch.arange(0, 8, fmt.bits, device=packed.device, dtype=torch.int32)
    codes = ((wide >> shifts) & ((1 << fmt.bits) - 1)).reshape(-1)[:count]
    if fmt.signed:
        half = 1 << (fmt.bits - 1)
        codes = (codes ^ half) - half
    return codes.to(fmt.torch_dtype).reshape(tuple(shape))


def _codes_per_byte(fmt: Format) -> int:
    if fmt.kind != "int" or fmt.bits not in (2, 4):
        raise NumericsError(
            "K306",
            f"packing {fmt.name}",
            why="only integer formats of 2 and 4 bits are packed",
            help="store other formats one code an element",
        )
    return 8 // fmt.bits
