"""What a range costs, computed from the histogram instead of from the data.

Rounding error inside the range and clipping error outside are one integral: with ``u = x / scale``
and ``n(u)`` the nearest code that exists, the squared error is ``scale² · (u − n)²``, whose
antiderivative is

    G(u) = n / 12 + (u − n)³ / 3

for every ``u``, inside the range (``n`` moves along) and outside (``n`` stays). So the error of a
bin is exact for values spread evenly over it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from kompakt.numerics.affine import choose_qparams
from kompakt.numerics.formats import Format
from kompakt.observe.histogram import Density, Floats, quantile, share_below
from kompakt.observe.statistics import EdgeStatistics

_RANGES_AT_ONCE = 16


def mean_squared_error(
    statistics: EdgeStatistics, low: float, high: float, fmt: Format, *, symmetric: bool = False
) -> float:
    """Expected squared difference between a value and its code's value.

    Args:
        statistics: What was observed.
        low: Low end of the range; 0 is always included, as in ``choose_qparams``.
        high: High end.
        fmt: Format of the codes.
        symmetric: Whether the scale is chosen symmetrically.

    Raises:
        DataError: K339 when nothing was observed.
    """
    return float(
        squared_errors(
            statistics.density(), np.array([low]), np.array([high]), fmt, symmetric=symmetric
        )[0]
    )


def expected_sqnr_db(
    statistics: EdgeStatistics, low: float, high: float, fmt: Format, *, symmetric: bool = False
) -> float:
    """Expected signal-to-quantization-noise ratio in decibels, ``10·log10(E[x²] / E[error²])``.

    Infinite when nothing is lost, as for an edge that is always 0.

    Args:
        statistics: What was observed.
        low: Low end of the range.
        high: High end.
        fmt: Format of the codes.
        symmetric: Whether the scale is chosen symmetrically.

    Raises:
        DataError: K339 when nothing was observed.
    """
    noise = mean_squared_error(statistics, low, high, fmt, symmetric=symmetric)
    signal = mean_square(statistics.density())
    if noise == 0.0 or signal == 0.0:
        return math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise))


def clipped_share(statistics: EdgeStatistics, low: float, high: float) -> float:
    """Share of the values (0 to 1) outside [low, high]; exactly 0 when the range covers all.

    Args:
        statistics: What was observed.
        low: Low end of the range.
        high: High end.

    Raises:
        DataError: K339 when nothing was observed.
    """
    density = statistics.density()
    below = share_below(density, low) if low > statistics.low else 0.0
    above = 1.0 - share_below(density, high) if high < statistics.high else 0.0
    return min(1.0, max(0.0, below) + max(0.0, above))


def outlier_ratio(statistics: EdgeStatistics) -> float:
    """Largest magnitude over the 99.9th percentile of the magnitudes; 1 means no outliers.

    Raises:
        DataError: K339 when nothing was observed.
    """
    typical = quantile(statistics.magnitudes(), 0.999)
    if statistics.absmax == 0.0:
        return 1.0
    return statistics.absmax / typical if typical > 0.0 else math.inf


def mean_square(density: Density) -> float:
    """E[x²] of the density."""
    left, right = density.edges[:-1], density.edges[1:]
    squares = (left * left + left * right + right * right) / 3.0
    return float((density.nonzero_counts() * squares).sum() / density.counts.sum())


def squared_errors(
    density: Density, lows: Floats, highs: Floats, fmt: Format, *, symmetric: bool
) -> Floats:
    """Expected squared error of each of many ranges at once.

    Args:
        density: Distribution of the values.
        lows: float64 ``(ranges,)``.
        highs: Same.
        fmt: Format of the codes.
        symmetric: Whether scales are chosen symmetrically.

    Returns:
        float64 ``(ranges,)``.
    """
    scale, zero_point = choose_qparams(
        torch.from_numpy(lows), torch.from_numpy(highs), fmt, symmetric=symmetric
    )
    scales = scale.double().numpy()[:, None]
    if fmt.kind == "float":
        return _float_errors(density, scales, fmt)
    zero = zero_point.double().numpy()[:, None]
    return _integer_errors(density, scales, fmt.qmin - zero, fmt.qmax - zero)


def _integer_errors(density: Density, scales: Floats, first: Floats, last: Floats) -> Floats:
    counts, width = density.nonzero_counts(), np.diff(density.edges)
    has_width = width > 0.0
    per_width = np.where(has_width, counts / np.where(has_width, width, 1.0), 0.0)
    # Σ wᵢ·(G(eᵢ₊₁) − G(eᵢ)) with every G computed once.
    weights = np.append(0.0, per_width) - np.append(per_width, 0.0)
    errors = _antiderivative(density.edges, scales, first, last) @ weights * scales[:, 0] ** 3
    # A bin cut to a single value has no width to integrate over.
    points = density.edges[:-1][~has_width]
    if len(points):
        u = points / scales
        rest = u - np.clip(np.rint(u), first, last)
        errors += rest**2 @ counts[~has_width] * scales[:, 0] ** 2
    return np.asarray(np.maximum(errors, 0.0) / density.counts.sum())


def _antiderivative(edges: Floats, scales: Floats, first: Floats, last: Floats) -> Floats:
    """G at every edge for every scale, ``(ranges, edges)``."""
    result = np.empty((len(scales), len(edges)))
    # A few ranges at a time keep the intermediate arrays in the cache.
    for start in range(0, len(scales), _RANGES_AT_ONCE):
        some = slice(start, start + _RANGES_AT_ONCE)
        rest = edges / scales[some]
        code = np.clip(np.rint(rest), first[some], last[some])
        rest -= code
        np.multiply(rest * rest, rest, out=rest)
        rest /= 3.0
        code /= 12.0
        np.add(code, rest, out=result[some])
    return result


def _float_errors(density: Density, scales: Floats, fmt: Format) -> Floats:
    """A float rounds with an error of ulp²/12 on average and saturates at its largest value."""
    info: Any = torch.finfo(fmt.torch_dtype)
    middles = (density.edges[:-1] + density.edges[1:]) / 2.0
    magnitude = np.abs(middles[None, :] / scales)
    exponent = np.frexp(np.maximum(magnitude, float(info.tiny)))[1] - 1
    ulp = np.ldexp(float(info.eps), exponent)
    over = np.maximum(magnitude - float(info.max), 0.0)
    per_bin = np.where(over > 0.0, over**2, ulp**2 / 12.0)
    errors: Floats = (per_bin @ density.nonzero_counts()) * scales[:, 0] ** 2
    return np.asarray(errors / density.counts.sum())
