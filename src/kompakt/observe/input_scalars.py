"""A few numbers per input and sample: what a deployed model's inputs are later compared with.

A pooled histogram of pixels cannot tell drift from ordinary variation between images; a handful of
scalars per image can. They are kept for the first 2000 samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kompakt.observe.statistics import SAMPLES_KEPT

MOST_CHANNELS = 8
"""Inputs with more channels than this get no per-channel means."""

COLUMNS = ("mean", "std", "low", "high", "high_frequency", "saturated")
"""The scalars every input has; ``channel_0`` … follow for images with 2 to 8 channels.

``high_frequency`` is the mean squared difference of neighbours along the last dimension;
``saturated`` the share of values equal to the sample's own smallest or largest.
"""


@dataclass(kw_only=True, eq=False)
class InputScalars:
    """Scalars of one input.

    Attributes:
        columns: Name of each scalar.
        rows: float32 ``(samples, columns)``, the first 2000 samples in order.
    """

    columns: tuple[str, ...] = ()
    rows: npt.NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 0), dtype=np.float32)
    )

    @property
    def is_full(self) -> bool:
        """Whether further samples are not kept any more."""
        return len(self.rows) >= SAMPLES_KEPT

    def extend(self, later: InputScalars) -> InputScalars:
        """These scalars followed by ``later``'s.

        Columns the two do not share (images with another number of channels) are dropped.
        """
        if not len(self.rows):
            return later
        if not len(later.rows):
            return self
        shared = tuple(name for name in self.columns if name in later.columns)
        parts = [
            part.rows[:, [part.columns.index(name) for name in shared]] for part in (self, later)
        ]
        return InputScalars(columns=shared, rows=np.concatenate(parts)[:SAMPLES_KEPT])


def describe(x: Tensor) -> InputScalars:
    """The scalars of every sample of one batch.

    Args:
        x: Any numeric tensor with samples along dimension 0; non-empty.
    """
    channels = x.shape[1] if x.dim() >= 4 and 1 < x.shape[1] <= MOST_CHANNELS else 0
    array = x.detach().to("cpu", torch.float32).contiguous().numpy()
    # One sample at a time stays in the cache, a whole batch does not.
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.array([_scalars(sample, channels) for sample in array], dtype=np.float32)
    return InputScalars(columns=COLUMNS + tuple(f"channel_{i}" for i in range(channels)), rows=rows)


def _scalars(sample: npt.NDArray[np.float32], channels: int) -> list[float]:
    flat = sample.reshape(-1)
    mean, low, high = float(flat.mean()), float(flat.min()), float(flat.max())
    centered = flat - np.float32(mean)
    std = math.sqrt(float(np.dot(centered, centered)) / flat.size)
    extreme = np.count_nonzero(flat == low) + (np.count_nonzero(flat == high) if high > low else 0)
    means = sample.reshape(channels, -1).mean(axis=1).tolist() if channels else []
    return [mean, std, low, high, _neighbour_energy(sample), extreme / flat.size, *means]


def _neighbour_energy(sample: npt.NDArray[np.float32]) -> float:
    if sample.ndim == 0 or sample.shape[-1] < 2:
        return 0.0
    steps = (sample[..., 1:] - sample[..., :-1]).reshape(-1)
    return float(np.dot(steps, steps)) / steps.size
