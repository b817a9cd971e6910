"""What a metric is: data about it, and one or two pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kompakt.errors import MetricError

Floats = NDArray[np.float64]
Outputs = Mapping[str, NDArray[Any]]
Labels = NDArray[Any] | Sequence[Any] | None
Kind = Literal["binary", "bounded", "unbounded", "corpus"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way of judging a model's outputs.

    Attributes:
        name: What it is called, also in records.
        kind: ``binary`` (each sample scores 0 or 1), ``bounded`` (within ``bounds``),
            ``unbounded``, or ``corpus``: one figure for all samples together. The kind decides
            which statistics are honest.
        higher_is_better: Direction.
        needs_labels: Whether it needs labels.
        needs_reference: Whether it compares with the float model's outputs.
        bounds: Smallest and largest value, or ``None``.
        per_sample: From the outputs, labels and reference outputs of one batch to scores, shape
            (n,); for a corpus metric to *sufficient statistics*, one row per sample, from which the
            figure of any resample follows without running the model again.
        corpus: From all those rows and how often each counts, shape (some, n), to one figure each,
            shape (some,).
        counted: From the rows of one batch to whether each sample counts at all, shape (n,); a
            sample whose labels all say "ignore me" leaves the figure and the number of samples.
            ``None`` when every sample counts.
        about: What it is and what it expects, for ``kompakt explain``.
    """

    name: str
    kind: Kind
    higher_is_better: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    bounds: tuple[float, float] | None = None
    per_sample: Callable[[Outputs, Labels, Outputs | None], Any]
    corpus: Callable[[Any, Floats], Floats] | None = None
    counted: Callable[[Any], NDArray[np.bool_]] | None = None
    about: str = ""

    def worse_by(self, reference: Floats, other: Floats) -> Floats:
        """How much worse ``other`` is than ``reference``, in the metric's units."""
        return reference - other if self.higher_is_better else other - reference


def no_nan(rows: Any) -> NDArray[np.bool_]:
    """Rows without NaN, shape (n,): how a metric marks samples that do not count."""
    return np.asarray(~np.isnan(rows).reshape(len(rows), -1).any(axis=1), dtype=np.bool_)


def any_nonzero(rows: Any) -> NDArray[np.bool_]:
    """Rows that are not empty, shape (n,): statistics of a sample in which nothing counts are 0."""
    return np.asarray((rows != 0).sum(axis=1)).reshape(-1) > 0


def first_output(outputs: Outputs, metric: str) -> NDArray[Any]:
    """The first output, as at least float32; refuses NaN.

    Raises:
        MetricError: K224 without any output, K225 for NaN.
    """
    if not outputs:
        raise MetricError("K224", f"metric {metric} of a model without outputs")
    name, values = next(iter(outputs.items()))
    refuse_nan(name, values)
    return values if values.dtype.kind in "fiub" else values.astype(np.float64)


def refuse_nan(name: str, values: NDArray[Any]) -> None:
    """Raise K225 when an output holds NaN."""
    if values.dtype.kind == "f" and np.isnan(values).any():
        share = float(np.isnan(values).mean())
        raise MetricError(
            "K225", f"output {name!r} holds NaN", why=f"{share:.2%} of it is no number"
        )


def array_labels(labels: Labels, metric: str) -> NDArray[Any]:
    """Labels as a numeric array.

    Raises:
        MetricError: K210 when there are none, K224 when they are not numbers.
    """
    if labels is None:
        raise MetricError("K210", f"metric {metric}", why="the data has no labels")
    try:
        values = np.asarray(labels)
    except ValueError as error:
        raise MetricError(
            "K224", f"labels for metric {metric}", why="they do not form an array"
        ) from error
    if values.dtype.kind not in "fiub":
        raise MetricError("K224", f"labels for metric {metric}", why="they are not numbers")
    return values


def misfit(metric: str, output: NDArray[Any], labels: NDArray[Any], wanted: str) -> MetricError:
    """The error for outputs and labels whose shapes do not belong together."""
    return MetricError(
        "K224",
        f"metric {metric} of an output of shape {output.shape} with labels of shape {labels.shape}",
        why=f"it needs {wanted}",
    )
