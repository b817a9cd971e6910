"""The form of an observer: statistics in, a range out."""

from __future__ import annotations

from typing import Protocol

from kompakt.numerics.formats import Format
from kompakt.observe.statistics import EdgeStatistics


class Observer(Protocol):
    """Answers the range a quantizer should cover.

    The range lies inside the exact extremes of what was observed; data that is never negative keeps
    its exact low end. Deterministic.
    """

    def range(
        self, statistics: EdgeStatistics, fmt: Format, symmetric: bool
    ) -> tuple[float, float]:
        """The range (low, high) for codes of format ``fmt``.

        Args:
            statistics: What calibration saw on the edge.
            fmt: Format of the codes.
            symmetric: Whether the quantizer's zero point is fixed in the middle; then
                ``max(−low, high)`` is the threshold.

        Raises:
            DataError: K339 when nothing was observed.
        """
        ...
