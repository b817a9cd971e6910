"""Betting confidence sequences: bounds of a mean that may be looked at after every sample.

A gambler bets against "the mean is m" on each sample in turn, with stakes chosen from the samples
before. If m is the truth her capital stays a fair game, and by Ville's inequality it ever reaches
1/alpha with probability at most alpha. So every m at which it does is ruled out, however often one
looks and whenever one stops.

The set of samples evaluated is finite, and each is drawn once: the form *without replacement* bets
on the mean of all ``n_total`` scores and closes at the last of them. It needs the samples in random
order. With ``n_total=None`` the bets are on the mean of the population the samples come from.

Reference:
    Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, JRSS-B
    86:1–27, arXiv:2010.09686, sections 4 (hedged capital) and 5 (without replacement).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kompakt.errors import MetricError
from kompakt.measuring.statistics import check_alpha

Floats = NDArray[np.float64]
_TRUNCATION = 0.75
"""Largest share of her capital the gambler may lose in one bet."""


def stakes(x: Floats, alpha: float, horizon: int | None = None) -> Floats:
    """How much to bet on each sample, chosen from the samples before it.

    Args:
        x: Samples in [0, 1], shape (..., t).
        alpha: Error probability.
        horizon: Number of samples the bets are tuned for; ``None`` tunes them for looking at any
            time.

    Returns:
        Positive stakes of the same shape, not yet truncated.
    """
    count = np.arange(1, x.shape[-1] + 1, dtype=np.float64)
    mean = (0.5 + np.cumsum(x, axis=-1)) / (count + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2, axis=-1)) / (count + 1)
    before = np.concatenate([np.full_like(variance[..., :1], 0.25), variance[..., :-1]], axis=-1)
    spread = horizon if horizon is not None else count * np.log1p(count)
    return np.asarray(np.sqrt(2 * math.log(1 / alpha) / (before * spread)), dtype=np.float64)


def capital_paths(x: Floats, stake: Floats, mean: ArrayLike, n_total: int | None) -> Floats:
    """Logarithm of the capital of a gambler who bets that the mean is larger than ``mean``.

    Args:
        x: Samples in [0, 1], shape (..., t).
        stake: From :func:`stakes`.
        mean: Hypothetical mean of all ``n_total`` samples, a number or shape (...).
        n_total: How many samples there are in all; ``None`` for an endless supply.

    Returns:
        Shape (..., t); +inf from where the hypothesis has become impossible.
    """
    m = np.asarray(mean, dtype=np.float64)[..., None]
    if n_total is None:
        expected = np.broadcast_to(m, x.shape)
    else:
        seen = np.cumsum(x, axis=-1) - x
        left = n_total - np.arange(x.shape[-1])
        expected = (n_total * m - seen) / left
    impossible = np.logical_or.accumulate(expected < -1e-9, axis=-1)
    safe = np.clip(expected, 1e-12, None)
    bet = np.minimum(stake, _TRUNCATION / safe)
    growth = np.log1p(np.maximum(bet * (x - safe), -_TRUNCATION))
    return np.where(impossible, np.inf, np.cumsum(growth, axis=-1))


class BettingSequence:
    """Anytime-valid bounds of a mean paired drop, sample by sample.

    Each of :attr:`lower` and :attr:`upper` holds with probability ``1 − alpha`` over all moments at
    once.

    Args:
        n_total: How many samples there are in all; ``None`` for an endless supply.
        alpha: Error probability of one bound.
        low: Smallest possible drop, −1 for scores in [0, 1].
        high: Largest possible drop.

    Raises:
        MetricError: K230 for impossible settings, or for more samples or larger drops than
            announced.
    """

    def __init__(
        self, n_total: int | None, alpha: float = 0.05, low: float = -1.0, high: float = 1.0
    ) -> None:
        check_alpha(alpha)
        if (n_total is not None and n_total < 1) or not -math.inf < low < high < math.inf:
            raise MetricError(
                "K230", f"bets on {n_total} drops in [{low:g}, {high:g}]", why="impossible range"
            )
        self.n_total, self.alpha, self.low, self.high = n_total, alpha, low, high
        self._x: Floats = np.empty(0)

    @property
    def n(self) -> int:
        """Samples seen so far."""
        return int(self._x.size)

    def update(self, d: ArrayLike) -> None:
        """Add one drop or an array of drops, in the order they were measured."""
        new = np.atleast_1d(np.asarray(d, dtype=np.float64))
        if not ((new >= self.low - 1e-9) & (new <= self.high + 1e-9)).all():
            raise MetricError("K230", f"a drop outside of [{self.low:g}, {self.high:g}]")
        if self.n_total is not None and self.n + new.size > self.n_total:
            raise MetricError("K230", f"{self.n + new.size} samples of {self.n_total}")
        scaled = np.clip((new - self.low) / (self.high - self.low), 0.0, 1.0)
        self._x = np.concatenate([self._x, scaled])

    def exceeds(self, drop: float) -> bool:
        """Whether the mean drop is by now proven larger than ``drop``."""
        if self.n == 0:
            return False
        mean = (drop - self.low) / (self.high - self.low)
        return mean < self._certain(self._x) - 1e-12 or self._rules_out(self._x, mean)

    @property
    def lower(self) -> float:
        """Lower bound of the mean drop of all samples."""
        bound = self.low + (self.high - self.low) * self._largest_ruled_out(self._x)
        most = self.high - (self.high - self.low) * self._certain(1.0 - self._x)
        return min(bound, most)

    @property
    def upper(self) -> float:
        """Upper bound of the mean drop of all samples."""
        bound = self.high - (self.high - self.low) * self._largest_ruled_out(1.0 - self._x)
        # Bets may have lost the mean (with probability alpha); what was seen for certain stands.
        return max(bound, self.low + (self.high - self.low) * self._certain(self._x))

    def _rules_out(self, x: Floats, mean: float) -> bool:
        path = capital_paths(x, stakes(x, self.alpha), mean, self.n_total)
        return bool(path.max() >= math.log(1 / self.alpha))

    def _largest_ruled_out(self, x: Floats) -> float:
        if x.size == 0:
            return 0.0
        return max(_bisect(lambda mean: self._rules_out(x, mean)), self._certain(x))

    def _certain(self, x: Floats) -> float:
        """What the mean is at least, were all samples still to come 0."""
        return 0.0 if self.n_total is None else float(x.sum()) / self.n_total


def betting_interval(
    d: ArrayLike, alpha: float = 0.05, low: float = -1.0, high: float = 1.0
) -> tuple[float, float]:
    """Bounds of a mean from a fixed number of bounded samples, valid at every sample size.

    Wider than a t or bootstrap interval (about 1.5 times), and true where those are not: few
    samples, or few that differ from zero. Each end holds with probability ``1 − alpha``.

    Args:
        d: Samples in [low, high], shape (n,).
        alpha: Error probability of one bound.
        low: Smallest possible value.
        high: Largest possible value.
    """
    check_alpha(alpha)
    x = np.clip((np.asarray(d, dtype=np.float64) - low) / (high - low), 0.0, 1.0)

    def ends_rich(values: Floats, mean: float) -> bool:
        path = capital_paths(values, stakes(values, alpha, values.size), mean, None)
        return bool(path.max() >= math.log(1 / alpha))

    lower = _bisect(lambda mean: ends_rich(x, mean))
    upper = 1.0 - _bisect(lambda mean: ends_rich(1.0 - x, mean))
    return low + (high - low) * lower, low + (high - low) * upper


def _bisect(ruled_out: Callable[[float], bool]) -> float:
    """The largest mean in [0, 1] that is ruled out; everything below it is ruled out as well."""
    if not ruled_out(0.0):
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if ruled_out(middle) else (low, middle)
    return low
