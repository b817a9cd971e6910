"""kompakt makes trained deep-learning models compact, and proves what came out.

This module is a table of contents; everything is loaded when it is first used, so that ``import kompakt`` costs
next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_CONTENTS = {
    "Artifact": "kompakt.artifact.reading",
    "Budget": "kompakt.search.budget",
    "KompaktError": "kompakt.errors",
    "Network": "kompakt.network.network",
    "Override": "kompakt.schemes",
    "Record": "kompakt.measuring.record",
    "Result": "kompakt.compression",
    "Scheme": "kompakt.schemes",
    "Treatment": "kompakt.schemes",
    "bf16": "kompakt.schemes",
    "calibrate": "kompakt.steps",
    "capture": "kompakt.network.capture",
    "compress": "kompakt.compression",
    "diagnose": "kompakt.diagnosing",
    "fp16": "kompakt.schemes",
    "get_scheme": "kompakt.schemes",
    "import_onnx": "kompakt.network.onnx.importing",
    "inspect": "kompakt.steps",
    "load": "kompakt.steps",
    "measure": "kompakt.steps",
    "open_data": "kompakt.measuring.data.source",
    "place": "kompakt.steps",
    "replay": "kompakt.steps",
    "sweep": "kompakt.sweeping.sweep",
    "verify": "kompakt.artifact.verify",
    "w4": "kompakt.schemes",
    "w8": "kompakt.schemes",
    "w8a16": "kompakt.schemes",
    "w8a8": "kompakt.schemes",
    "w8a8_dynamic": "kompakt.schemes",
    "write": "kompakt.steps",
}

__all__ = ["__version__", *sorted(_CONTENTS)]

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from kompakt.artifact.reading import Artifact
    from kompakt.artifact.verify import verify
    from kompakt.compression import Result, compress
    from kompakt.diagnosing import diagnose
    from kompakt.errors import KompaktError
    from kompakt.measuring.data.source import open_data
    from kompakt.measuring.record import Record
    from kompakt.network.capture import capture
    from kompakt.network.network import Network
    from kompakt.network.onnx.importing import import_onnx
    from kompakt.schemes import (
        Override,
        Scheme,
        Treatment,
        bf16,
        fp16,
        get_scheme,
        w4,
        w8,
        w8a8,
        w8a8_dynamic,
        w8a16,
    )
    from kompakt.search.budget import Budget
    from kompakt.steps import calibrate, inspect, load, measure, place, replay, write
    from kompakt.sweeping.sweep import sweep


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module 'kompakt' has no attribute {name!r}")
    value = getattr(import_module(_CONTENTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
