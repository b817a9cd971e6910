"""What is remembered of one edge: streamed, of constant size, and mergeable.

One :class:`EdgeStatistics` holds everything all observers need, so that one pass over the data
serves every one of them: exact extremes, a moving average of each sample's extremes, and a
histogram of a block sample. Statistics of two halves of the data, merged, equal those of one pass
over all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kompakt.errors import DataError
from kompakt.observe.channels import ChannelMagnitudes
from kompakt.observe.edge_summary import BlockSampler, fingerprints, summarize
from kompakt.observe.histogram import Density, Floats, Histogram

SAMPLES_KEPT = 2000
"""Per-sample scalars are kept for this many samples, the first ones."""

DECAY = 0.99
"""Weight of the past when one more sample enters the moving average."""


@dataclass(kw_only=True)
class RunningAverage:
    """Debiased exponential moving average of the samples' extremes, in the order of the data.

    After samples x₁ … xₙ it is ``Σ dⁿ⁻ⁱ xᵢ / Σ dⁿ⁻ⁱ`` with d = 0.99, so early samples do not start
    from an arbitrary value. Two averages merge exactly as if the second's samples had followed the
    first's (up to rounding of float64).

    Attributes:
        samples: n.
        low_sum: ``Σ dⁿ⁻ⁱ lowᵢ``.
        high_sum: ``Σ dⁿ⁻ⁱ highᵢ``.
    """

    samples: int = 0
    low_sum: float = 0.0
    high_sum: float = 0.0

    def extend(self, lows: Floats, highs: Floats) -> None:
        """Add the extremes of further samples, float64 ``(samples,)`` each."""
        count = len(lows)
        weights = DECAY ** np.arange(count - 1, -1, -1, dtype=np.float64)
        fade = DECAY**count
        self.low_sum = self.low_sum * fade + float(weights @ lows)
        self.high_sum = self.high_sum * fade + float(weights @ highs)
        self.samples += count

    def merge(self, later: RunningAverage) -> RunningAverage:
        """The average over both, ``later``'s samples coming last."""
        fade = DECAY**later.samples
        return RunningAverage(
            samples=self.samples + later.samples,
            low_sum=self.low_sum * fade + later.low_sum,
            high_sum=self.high_sum * fade + later.high_sum,
        )

    def value(self) -> tuple[float, float]:
        """The averaged low and high."""
        weight = (1.0 - DECAY**self.samples) / (1.0 - DECAY)
        return self.low_sum / weight, self.high_sum / weight


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleExtremes:
    """Exact extremes of one tensor.

    Attributes:
        lows: Each sample's smallest value, float64 ``(samples,)``.
        highs: Each sample's largest value, same shape.
        channel_absmax: Each channel's largest magnitude, float64 ``(channels,)``.
    """

    lows: Floats
    highs: Floats
    channel_absmax: Floats

    @classmethod
    def of(cls, lows: Floats, highs: Floats, samples: int | None = None) -> SampleExtremes:
        """From the arrays of a summary.

        Args:
            lows: float64 ``(rows, channels)`` or ``(rows, 1)``.
            highs: float64 ``(rows, channels)``.
            samples: Samples in the batch, where the tensor may have had one row for all of them:
                each sample then saw these extremes.
        """
        by_row = lows.min(axis=1), highs.max(axis=1)
        if samples is not None and len(lows) != samples:
            by_row = np.repeat(by_row[0], samples), np.repeat(by_row[1], samples)
        absmax = np.maximum(np.abs(lows).max(axis=0), np.abs(highs).max(axis=0))
        return cls(lows=by_row[0], highs=by_row[1], channel_absmax=absmax)

    def refuse_nonfinite(self, site: str, numbers: npt.NDArray[np.int64] | None = None) -> None:
        """Raise K331 when an extreme is NaN or infinite.

        Args:
            site: Name of the edge.
            numbers: For each sample the number of its batch, counted from 0.
        """
        finite = np.isfinite(self.lows) & np.isfinite(self.highs)
        if finite.all():
            return
        first = int(np.argmin(finite))
        batch = f" in calibration batch {numbers[first]}" if numbers is not None else ""
        is_nan = np.isnan(self.lows[first]) or np.isnan(self.highs[first])
        raise DataError(
            "K331",
            f"observing {site or 'a tensor'}{batch}",
            where=site,
            why=f"it holds {'NaN' if is_nan else 'infinity'}, which no range can cover",
        )


@dataclass(kw_only=True, eq=False)
class EdgeStatistics:
    """Streamed statistics of the tensors on one edge.

    Attributes:
        site: Name of the edge.
        samples: Samples seen.
        values: Values seen (all of them count for the extremes).
        low: Exact smallest value; +inf while nothing was seen.
        high: Exact largest value; −inf while nothing was seen.
        histogram: Counts of a sample of the values.
        average: Moving average of each sample's extremes.
        channels: Exact largest magnitude of every channel.
        sample_absmax: Largest magnitude in each of the first 2000 samples, float32.
    """

    site: str = ""
    samples: int = 0
    values: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    histogram: Histogram = field(default_factory=Histogram)
    average: RunningAverage = field(default_factory=RunningAverage)
    channels: ChannelMagnitudes = field(default_factory=ChannelMagnitudes)
    sample_absmax: npt.NDArray[np.float32] = field(
        default_factory=lambda: np.empty(0, dtype=np.float32)
    )

    @property
    def is_empty(self) -> bool:
        """Whether no value was seen yet."""
        return self.values == 0

    @property
    def absmax(self) -> float:
        """Exact largest magnitude."""
        return max(abs(self.low), abs(self.high))

    def update(self, x: Tensor, batch_dim: int | None = 0, channel_dim: int | None = None) -> None:
        """Add one tensor.

        Args:
            x: Floating tensor, any shape, device and memory layout.
            batch_dim: Dimension that runs over samples, or ``None`` when ``x`` is one sample.
            channel_dim: Dimension that runs over channels, or ``None``.

        Raises:
            DataError: K331 when ``x`` holds NaN or infinity.
        """
        if x.numel() == 0:
            return
        by_sample = batch_dim is not None and x.dim() > 0
        lead = x.movedim(batch_dim, 0) if by_sample and batch_dim is not None else x.unsqueeze(0)
        sampler = BlockSampler(fingerprints([lead], len(lead)))
        summary = summarize(x, sampler, batch_dim=batch_dim, channel_dim=channel_dim)
        if summary is not None:
            lows, highs = (t.double().cpu().numpy() for t in (summary.lows, summary.highs))
            extremes = SampleExtremes.of(lows, highs)
            extremes.refuse_nonfinite(self.site)
            self.absorb([extremes], summary.sampled, summary.values)

    def absorb(self, extremes: Sequence[SampleExtremes], sampled: Tensor, values: int) -> None:
        """Add what was taken from a few tensors, already known to be finite.

        Args:
            extremes: Exact extremes of each tensor, in order.
            sampled: Values of all of them for the histogram.
            values: How many values they stand for.
        """
        lows = np.concatenate([e.lows for e in extremes])
        highs = np.concatenate([e.highs for e in extremes])
        self.low = min(self.low, float(lows.min()))
        self.high = max(self.high, float(highs.max()))
        self.histogram.add(sampled, self.absmax)
        self.average.extend(lows, highs)
        if len(self.sample_absmax) < SAMPLES_KEPT:
            largest = np.maximum(np.abs(lows), np.abs(highs)).astype(np.float32)
            self.sample_absmax = np.concatenate((self.sample_absmax, largest))[:SAMPLES_KEPT]
        for tensor in extremes:
            self.channels = self.channels.merge(ChannelMagnitudes(absmax=tensor.channel_absmax))
        self.samples += len(lows)
        self.values += values

    def merge(self, later: EdgeStatistics) -> EdgeStatistics:
        """New statistics of both, as if ``later``'s data had followed.

        Extremes, histogram, channels and per-sample scalars are equal to the bit to those of one
        pass; the moving average up to rounding of float64.
        """
        kept = np.concatenate((self.sample_absmax, later.sample_absmax))[:SAMPLES_KEPT]
        return EdgeStatistics(
            site=self.site or later.site,
            samples=self.samples + later.samples,
            values=self.values + later.values,
            low=min(self.low, later.low),
            high=max(self.high, later.high),
            histogram=self.histogram.merge(later.histogram),
            average=self.average.merge(later.average),
            channels=self.channels.merge(later.channels),
            sample_absmax=kept,
        )

    def density(self) -> Density:
        """The distribution of the values, between the exact extremes.

        Raises:
            DataError: K339 when nothing was observed.
        """
        self.require_data()
        return self.histogram.density(self.low, self.high)

    def magnitudes(self) -> Density:
        """The distribution of the magnitudes.

        Raises:
            DataError: K339 when nothing was observed.
        """
        self.require_data()
        return self.histogram.magnitudes(self.absmax)

    def require_data(self) -> None:
        """Raise K339 when nothing was observed."""
        if self.is_empty:
            raise DataError(
                "K339",
                "a range from a site without observations",
                where=self.site,
                why="no calibration batch brought it a single value",
            )

    def within(self, low: float, high: float) -> tuple[float, float]:
        """The range cut to the exact extremes."""
        low = min(max(low, self.low), self.high)
        return low, max(min(high, self.high), low)

    def symmetric(self, threshold: float) -> tuple[float, float]:
        """The range [−threshold, threshold] cut to the exact extremes."""
        return self.within(-threshold, threshold)
