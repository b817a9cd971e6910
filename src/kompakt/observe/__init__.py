"""Calibration: stream data through a network once, remember a little of every edge, answer ranges.

:func:`calibrate` fills an :class:`EdgeStatistics` for every site; each entry of :data:`OBSERVERS`
turns one into a range.
"""

from __future__ import annotations

from kompakt.observe.calibrate import calibrate
from kompakt.observe.calibration import Calibration
from kompakt.observe.entropy import Entropy
from kompakt.observe.minmax import MinMax
from kompakt.observe.moving_average import MovingAverage
from kompakt.observe.mse import Mse
from kompakt.observe.observer import Observer
from kompakt.observe.percentile import Percentile
from kompakt.observe.quality import (
    clipped_share,
    expected_sqnr_db,
    mean_squared_error,
    outlier_ratio,
)
from kompakt.observe.sketch import from_arrays, to_arrays
from kompakt.observe.statistics import EdgeStatistics

OBSERVERS: dict[str, Observer] = {
    "minmax": MinMax(),
    "moving_average": MovingAverage(),
    "percentile": Percentile(),
    "mse": Mse(),
    "entropy": Entropy(),
}

__all__ = [
    "OBSERVERS",
    "Calibration",
    "EdgeStatistics",
    "Entropy",
    "MinMax",
    "MovingAverage",
    "Mse",
    "Observer",
    "Percentile",
    "calibrate",
    "clipped_share",
    "expected_sqnr_db",
    "from_arrays",
    "mean_squared_error",
    "outlier_ratio",
    "to_arrays",
]
