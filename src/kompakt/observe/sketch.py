"""A calibration as plain arrays, for the ``.npz`` file an artifact carries.

The sketch is what later data is compared with: the merged histogram of every site, and a few
scalars of each of the first 2000 samples. The arrays hold numbers only (names travel as UTF-8
bytes), so a sketch is read without pickle, and the same calibration gives the same bytes with
``numpy.savez``. Statistics read back are equal to those written and can be merged further.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kompakt.errors import ArtifactError
from kompakt.observe.calibration import Calibration
from kompakt.observe.channels import ChannelMagnitudes
from kompakt.observe.histogram import BINS, HALF, Floats, Histogram
from kompakt.observe.input_scalars import InputScalars
from kompakt.observe.statistics import SAMPLES_KEPT, EdgeStatistics, RunningAverage

SCHEMA = 1
Arrays = dict[str, npt.NDArray[Any]]

_COLUMNS_PER_SITE = 9
_LARGEST_EXPONENT = 1100


def to_arrays(calibration: Calibration) -> Arrays:
    """The calibration as arrays.

    Returns:
        ``names`` (uint8: JSON of the sites' names and of the inputs' names and columns), ``totals``
        (int64: schema, samples, batches), ``integers`` (int64, one row a site), ``reals`` (float64,
        one row a site), ``counts``, ``channels`` and ``sample_absmax`` (all sites one after the
        other), and ``input_<i>`` (float32, one row a sample).
    """
    sites = list(calibration.statistics.values())
    spans = [_occupied(s.histogram) for s in sites]
    names = {
        "sites": list(calibration.statistics),
        "inputs": {name: list(v.columns) for name, v in calibration.inputs.items()},
    }
    arrays: Arrays = {
        "names": np.frombuffer(json.dumps(names).encode(), dtype=np.uint8).copy(),
        "totals": np.array([SCHEMA, calibration.samples, calibration.batches], dtype=np.int64),
        "integers": np.array(
            [_integers(s, *span) for s, span in zip(sites, spans, strict=True)], dtype=np.int64
        ).reshape(-1, _COLUMNS_PER_SITE),
        "reals": np.array(
            [(s.low, s.high, s.average.low_sum, s.average.high_sum) for s in sites],
            dtype=np.float64,
        ).reshape(-1, 4),
        "counts": _joined(
            [s.histogram.counts[a : a + n] for s, (a, n) in zip(sites, spans, strict=True)], "int64"
        ),
        "channels": _joined(
            [s.channels.absmax for s in sites if s.channels.absmax is not None], "float64"
        ),
        "sample_absmax": _joined([s.sample_absmax for s in sites], "float32"),
    }
    for i, scalars in enumerate(calibration.inputs.values()):
        arrays[f"input_{i}"] = scalars.rows.copy()
    return arrays


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Calibration:
    """The calibration that :func:`to_arrays` wrote.

    Args:
        arrays: Untrusted; loaded with ``allow_pickle=False``.

    Raises:
        ArtifactError: K338 when an array is missing, of wrong shape, or contradicts another.
    """
    try:
        return _read(arrays)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ArtifactError(
            "K338", "reading a calibration sketch", why=f"it is damaged ({error})"
        ) from error


def _integers(s: EdgeStatistics, first: int, bins: int) -> tuple[int, ...]:
    channels = -1 if s.channels.absmax is None else len(s.channels.absmax)
    exponent = _LARGEST_EXPONENT if s.histogram.exponent is None else s.histogram.exponent
    return (
        *(s.samples, s.values, exponent, first, bins, s.histogram.zeros),
        *(channels, int(s.channels.varied), len(s.sample_absmax)),
    )


def _occupied(histogram: Histogram) -> tuple[int, int]:
    """First occupied bin and number of bins up to the last."""
    used = np.flatnonzero(histogram.counts)
    return (int(used[0]), int(used[-1] - used[0]) + 1) if len(used) else (0, 0)


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype=dtype), *parts]).astype(dtype)


def _read(arrays: Mapping[str, npt.NDArray[Any]]) -> Calibration:
    schema, samples, batches = (int(v) for v in _checked(arrays, "totals", np.int64, 1))
    if schema != SCHEMA:
        raise ValueError(f"schema {schema}, this version reads {SCHEMA}")
    names = json.loads(_checked(arrays, "names", np.uint8, 1).tobytes().decode())
    integers = _checked(arrays, "integers", np.int64, 2)
    reals = _checked(arrays, "reals", np.float64, 2)
    counts = _Reader(_checked(arrays, "counts", np.int64, 1))
    channels = _Reader(_checked(arrays, "channels", np.float64, 1))
    absmax = _Reader(_checked(arrays, "sample_absmax", np.float32, 1))
    statistics = {
        str(site): _site(str(site), row, real, counts, channels, absmax)
        for site, row, real in zip(names["sites"], integers, reals, strict=True)
    }
    for reader in (counts, channels, absmax):
        reader.finish()
    return Calibration(
        statistics=statistics,
        inputs={
            str(name): _input(columns, _checked(arrays, f"input_{i}", np.float32, 2))
            for i, (name, columns) in enumerate(names["inputs"].items())
        },
        samples=samples,
        batches=batches,
    )


def _site(
    site: str, row: Any, real: Floats, counts: _Reader, channels: _Reader, absmax: _Reader
) -> EdgeStatistics:
    samples, values, exponent, first, bins, zeros, channel_count, varied, kept = map(int, row)
    if not (first >= 0 and bins >= 0 and first + bins <= BINS and 0 <= kept <= SAMPLES_KEPT):
        raise ValueError(f"the histogram of {site!r} is out of bounds")
    if abs(exponent) > _LARGEST_EXPONENT or (values > 0 and not np.isfinite(real).all()):
        raise ValueError(f"the range of {site!r} is out of bounds")
    full = np.zeros(BINS, dtype=np.int64)
    full[first : first + bins] = counts.take(bins)
    if (full < 0).any() or (values > 0) != bool(full.any()) or not 0 <= zeros <= full[HALF]:
        raise ValueError(f"the counts of {site!r} are impossible")
    low, high, low_sum, high_sum = (float(v) for v in real)
    known = None if channel_count < 0 else channels.take(channel_count)
    return EdgeStatistics(
        site=site,
        samples=samples,
        values=values,
        low=low,
        high=high,
        histogram=Histogram(None if exponent == _LARGEST_EXPONENT else exponent, full, zeros),
        average=RunningAverage(samples=samples, low_sum=low_sum, high_sum=high_sum),
        channels=ChannelMagnitudes(absmax=known, varied=bool(varied)),
        sample_absmax=absmax.take(kept),
    )


def _input(columns: Sequence[str], rows: npt.NDArray[np.float32]) -> InputScalars:
    if rows.shape[1] != len(columns) or len(rows) > SAMPLES_KEPT:
        raise ValueError("the scalars of an input do not fit their columns")
    return InputScalars(columns=tuple(str(name) for name in columns), rows=rows.copy())


def _checked(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: type[np.generic], dimensions: int
) -> npt.NDArray[Any]:
    array = np.asarray(arrays[name])
    if array.dtype != dtype or array.ndim != dimensions:
        raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
    return array


class _Reader:
    """Hands out an array piece by piece."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array, self.at = array, 0

    def take(self, count: int) -> npt.NDArray[Any]:
        """The next ``count`` elements."""
        piece = self.array[self.at : self.at + count]
        if len(piece) != count:
            raise ValueError("an array is too short")
        self.at += count
        return piece.copy()

    def finish(self) -> None:
        """Complain when something is left."""
        if self.at != len(self.array):
            raise ValueError("an array is too long")
