"""Numbers only: formats, granularities, roundings, scales and codes. Knows no model.

The names below load on first use, so that looking up a format does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kompakt.numerics.affine import choose_qparams, dequantize, dynamic_qparams, quantize
    from kompakt.numerics.fake import fake_quantize
    from kompakt.numerics.formats import FORMATS, Format, get_format
    from kompakt.numerics.granularity import (
        Granularity,
        PerChannel,
        PerGroup,
        PerTensor,
        PerToken,
    )
    from kompakt.numerics.packing import pack, unpack
    from kompakt.numerics.rounding import ROUNDINGS

__all__ = [
    "FORMATS",
    "ROUNDINGS",
    "Format",
    "Granularity",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "PerToken",
    "choose_qparams",
    "dequantize",
    "dynamic_qparams",
    "fake_quantize",
    "get_format",
    "pack",
    "quantize",
    "unpack",
]

_HOME = {
    "FORMATS": "formats",
    "ROUNDINGS": "rounding",
    "Format": "formats",
    "Granularity": "granularity",
    "PerChannel": "granularity",
    "PerGroup": "granularity",
    "PerTensor": "granularity",
    "PerToken": "granularity",
    "choose_qparams": "affine",
    "dequantize": "affine",
    "dynamic_qparams": "affine",
    "fake_quantize": "fake",
    "get_format": "formats",
    "pack": "packing",
    "quantize": "affine",
    "unpack": "packing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
