"""The scores of one model on one set of samples, in the order of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse, vstack

from kompakt.errors import MetricError
from kompakt.measuring.custom import Kept, join_kept
from kompakt.measuring.metric import Floats, Metric


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a metric says about one model.

    Attributes:
        metric: The metric.
        rows: float64 scores, shape (n,); for a corpus metric its sufficient statistics, one row per
            sample.
        order: A fingerprint of the inputs of each batch: scores are paired only if these agree.
        groups: Group label of each sample, or ``None``.
    """

    metric: Metric
    rows: Any
    order: tuple[int, ...]
    groups: NDArray[Any] | None = None

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.rows.shape[0]) if hasattr(self.rows, "shape") else len(self.rows)

    @property
    def values(self) -> Floats:
        """The score of each sample.

        Raises:
            MetricError: K224 for a corpus metric, which has none.
        """
        if self.metric.kind == "corpus":
            raise MetricError("K224", f"single scores of {self.metric.name}", why="it has none")
        return cast(Floats, self.rows)

    def value(self) -> float:
        """The figure: the mean score, or the corpus metric of all samples.

        Raises:
            MetricError: K227 where the metric has no value.
        """
        if self.metric.kind != "corpus":
            return float(np.mean(self.rows))
        found = float(self.resampled(np.ones((1, self.n)))[0])
        if not np.isfinite(found):
            raise MetricError(
                "K227", f"metric {self.metric.name} of {self.n} samples", why=f"it is {found}"
            )
        return found

    def resampled(self, counts: Floats) -> Floats:
        """The corpus metric when each sample counts so often.

        Args:
            counts: Shape (some, n).

        Returns:
            Shape (some,); NaN where it has no value.
        """
        if self.metric.corpus is None:
            raise MetricError("K224", f"resamples of {self.metric.name}", why="it is no corpus one")
        return self.metric.corpus(self.rows, counts)

    def differs(self, other: Scores) -> NDArray[np.bool_]:
        """For each sample whether the two models' scores or statistics differ, shape (n,)."""
        if isinstance(self.rows, Kept):
            return ~self.rows.same_as(other.rows)
        if issparse(self.rows):
            apart = abs(self.rows - other.rows)
            return np.asarray(apart.sum(axis=1)).reshape(-1) > 0
        return np.asarray((self.rows != other.rows).reshape(self.n, -1).any(axis=1))

    def take(self, index: NDArray[np.int64]) -> Scores:
        """The scores of some samples."""
        rows = self.rows.take(index) if isinstance(self.rows, Kept) else self.rows[index]
        return replace(self, rows=rows, groups=None if self.groups is None else self.groups[index])


def join_rows(metric: Metric, parts: Sequence[Any]) -> Any:
    """Put the rows of all batches together.

    Raises:
        MetricError: K223 when batches gave rows of different kinds or widths.
    """
    first = parts[0]
    try:
        if any(type(part) is not type(first) for part in parts):
            raise ValueError("some batches gave one number, others one for each sample")
        if isinstance(first, Kept):
            return join_kept(list(parts))
        if issparse(first):
            return vstack(parts, format="csr")
        return np.concatenate(parts)
    except ValueError as error:
        raise MetricError("K223", f"metric {metric.name}", why=str(error)) from error
