"""Gathers what the taps took and enters it into the statistics a few batches at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kompakt.errors import DataError
from kompakt.observe.calibration import Calibration
from kompakt.observe.edge_summary import EdgeSummary
from kompakt.observe.histogram import Floats
from kompakt.observe.input_scalars import InputScalars, describe
from kompakt.observe.statistics import EdgeStatistics, SampleExtremes
from kompakt.progress import note

Numbers = npt.NDArray[np.int64]
_PENDING_VALUES = 1 << 21
_FEW_SAMPLES = 2
_HUGE = float(np.finfo(np.float32).max)


@dataclass
class _Pending:
    numbers: Numbers
    summaries: tuple[EdgeSummary | None, ...]


class Collector:
    """Gathers summaries and enters them into the statistics a few batches at a time.

    Entering several batches at once costs one transfer from the device and one histogram per site
    instead of one per batch.
    """

    def __init__(self, sites: Sequence[str]) -> None:
        self.statistics = [EdgeStatistics(site=site) for site in sites]
        self.inputs: dict[str, InputScalars] = {}
        self.pending: list[_Pending] = []
        self.pending_values = 0
        self.samples = 0
        self.batches = 0

    def describe_inputs(self, inputs: Mapping[str, Tensor], numbers: Numbers) -> None:
        """Check the inputs of one micro-batch for NaN and keep their scalars."""
        for name, x in inputs.items():
            known = self.inputs.get(name, InputScalars())
            if known.is_full:
                _refuse_bad_input(name, x, numbers)
                continue
            scalars = describe(x)
            if not np.isfinite(scalars.rows).all():
                _refuse_bad_input(name, x, numbers)
                # Squares of huge, but finite, values do not fit.
                scalars.rows = np.nan_to_num(scalars.rows, nan=_HUGE, posinf=_HUGE, neginf=-_HUGE)
            self.inputs[name] = known.extend(scalars)

    def add(self, numbers: Numbers, summaries: tuple[EdgeSummary | None, ...]) -> None:
        """Add what the taps took from one micro-batch.

        Args:
            numbers: For each sample the number of its batch.
            summaries: One for each site.
        """
        self.pending.append(_Pending(numbers, summaries))
        self.pending_values += sum(
            s.sampled.numel() + s.lows.numel() + s.highs.numel() for s in summaries if s is not None
        )
        self.samples += len(numbers)
        self.batches = int(numbers[-1]) + 1
        if self.pending_values >= _PENDING_VALUES:
            self._flush()

    def finish(self) -> Calibration:
        """The finished calibration.

        Raises:
            DataError: K330 when there was no data.
        """
        self._flush()
        if self.samples == 0:
            raise DataError("K330", "calibrating", why="the data holds no batch")
        if self.samples < _FEW_SAMPLES:
            note("calibrated with one sample: ranges from one sample are unreliable", "calibrating")
        return Calibration(
            statistics={s.site: s for s in self.statistics},
            inputs=self.inputs,
            samples=self.samples,
            batches=self.batches,
        )

    def _flush(self) -> None:
        pending, self.pending, self.pending_values = self.pending, [], 0
        taken = [
            (index, entry, summary)
            for entry in pending
            for index, summary in enumerate(entry.summaries)
            if summary is not None
        ]
        if not taken:
            return
        lows = _to_arrays([summary.lows for _, _, summary in taken])
        highs = _to_arrays([summary.highs for _, _, summary in taken])
        of_site: dict[int, list[tuple[SampleExtremes, EdgeSummary]]] = {}
        for (index, entry, summary), low, high in zip(taken, lows, highs, strict=True):
            extremes = SampleExtremes.of(low, high, len(entry.numbers))
            extremes.refuse_nonfinite(self.statistics[index].site, entry.numbers)
            of_site.setdefault(index, []).append((extremes, summary))
        for index, mine in of_site.items():
            self.statistics[index].absorb(
                [extremes for extremes, _ in mine],
                torch.cat([summary.sampled for _, summary in mine]),
                sum(summary.values for _, summary in mine),
            )


def _to_arrays(tensors: Sequence[Tensor]) -> list[Floats]:
    """The 2-D tensors as float64 arrays, by one transfer from the device."""
    flat = torch.cat([t.flatten() for t in tensors]).double().cpu().numpy()
    parts = np.split(flat, np.cumsum([t.numel() for t in tensors])[:-1])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]


def _refuse_bad_input(name: str, x: Tensor, numbers: Numbers) -> None:
    bad = x.isfinite().logical_not().flatten(1).any(1) if x.dim() > 1 else ~x.isfinite()
    if not bool(bad.any()):
        return
    batch = int(numbers[int(bad.int().argmax())])
    raise DataError(
        "K332",
        f"input {name!r} of calibration batch {batch}",
        where=name,
        why=f"it holds {'NaN' if bool(x.isnan().any()) else 'infinity'}",
    )
