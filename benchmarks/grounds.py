"""Good models in which faults are planted, and one planted fault: plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from kompakt.schemes import Scheme, w8a8

ISA = "x86-vnni"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A place in a model where a fault can be planted.

    Attributes:
        layer: A convolution or linear layer.
        norm: The batch norm behind it; empty where it has none.
        edge: The site behind its activation.
        following: The layer that reads it.
        depthwise: Whether the layer treats each channel by itself.
    """

    layer: str
    norm: str
    edge: str
    following: str
    depthwise: bool = False


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A good model with data, and where faults can be planted.

    Attributes:
        name: Its name.
        model: The model; it is copied before anything is planted.
        example: Example inputs.
        calibration: Batches to calibrate with.
        data: Batches to diagnose on.
        stages: Where channels can be rescaled without changing the function: batch norm, ReLU, layer.
        branches: (stage, edge of the other branch) of concatenations.
        gates: Edges that are the input of a sigmoid.
        without: Faults that cannot be planted in it.
        samples: Rows to diagnose on.
    """

    name: str
    model: nn.Module
    example: Any
    calibration: Sequence[Any]
    data: Sequence[Any]
    stages: Sequence[Stage]
    branches: Sequence[tuple[Stage, str]] = ()
    gates: Sequence[str] = ()
    without: Sequence[str] = ()
    samples: int = 32


@dataclass(kw_only=True)
class Case:
    """A planted fault and what has to be said of it.

    Attributes:
        codes: Causes that are right.
        sites: Sites that are right; empty where it is the data.
    """

    model: nn.Module
    calibration: Sequence[Any]
    data: Sequence[Any]
    codes: Sequence[str]
    sites: Sequence[str] = ()
    scheme: Scheme = field(default_factory=w8a8)
    isa: str = ISA
    calibrator: str = "mse"
    ranges: dict[str, float] = field(default_factory=dict)
    what: str = ""


__all__ = ["ISA", "Case", "Ground", "Stage"]
