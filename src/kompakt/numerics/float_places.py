"""Floats of 8 bits by their place on the number line, so that neighbours differ by 1 as integer codes do.

Place 0 is the number 0 (of either sign), place 1 the smallest positive number, place -1 the largest negative one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kompakt.numerics.formats import Format

_SIGN = 0x80


def float_places(codes: Tensor) -> Tensor:
    """Places of numbers in a float dtype of 8 bits: int32, same shape."""
    return places_of_bytes(codes.contiguous().view(torch.uint8))


def places_of_bytes(stored: Tensor) -> Tensor:
    """Places of stored bytes (uint8), sign bit first: int32, same shape."""
    whole = stored.to(torch.int32)
    return torch.where(whole < _SIGN, whole, _SIGN - whole)


def at_float_places(places: Tensor, fmt: Format) -> Tensor:
    """The numbers at these places, in the dtype of a float format of 8 bits; same shape."""
    whole = torch.where(places < 0, _SIGN - places, places)
    return whole.to(torch.uint8).view(fmt.torch_dtype)


def half_of_last_step(fmt: Format) -> float:
    """Half the gap between the two largest numbers of a float format of 8 bits: 16 for E4M3."""
    top = float_places(torch.tensor([float(fmt.qmax)]).to(fmt.torch_dtype))
    return (fmt.qmax - float(at_float_places(top - 1, fmt).float())) / 2
