"""What a method is: one function that makes a network lose less by being quantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kompakt.network.network import Network
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme

Batches = Sequence[Sequence[Tensor]]
"""Samples: in each batch one tensor for each input of the network; shapes may differ from batch to batch."""
FloatMethod = Callable[[Network, Scheme, Rules, Batches], tuple[Network, int]]
"""A changed copy of an inference-form network that computes the same function, and how many layers changed."""
PlacedMethod = Callable[[Network, Network, Batches], int]
"""Edits a placed network (with ranges, not frozen) in place, given the float network it was placed from, which stays
as it is; returns how many layers changed."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method.

    Attributes:
        run: A :data:`FloatMethod` or a :data:`PlacedMethod`.
        works_on: ``float``: before placing, ranges are found on its result; ``placed``: after.
        samples: How many calibration samples it is given, where there are as many; 0 where it needs none.
    """

    run: FloatMethod | PlacedMethod
    works_on: Literal["float", "placed"]
    samples: int


__all__ = ["Batches", "FloatMethod", "Method", "PlacedMethod"]
