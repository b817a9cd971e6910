"""Quantizing a network: placing quantizers by a runtime's rules, giving them ranges, and methods that improve them.

:data:`METHODS` is the registry of methods: each takes the placed network, the float network it was placed from and
a few samples, edits the placed network in place and returns how many layers it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from kompakt.network.network import Network
from kompakt.quantize.bias_correction import correct_biases_

Method = Callable[[Network, Network, Sequence[Tensor]], int]

METHODS: dict[str, Method] = {"bias_correction": correct_biases_}

__all__ = ["METHODS", "Method"]
