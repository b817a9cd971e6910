"""Metrics of the user's own: ``package.module:function`` and ``spearman@package.module:function``.

The function takes ``(outputs, labels)``, or ``(outputs, labels, reference)`` when it wants the
float model's outputs too: dicts of numpy arrays by output name. It returns one score for each
sample, or a single number for all of them; for a single number, outputs and labels are kept and the
function is called again on every bootstrap resample.

Attributes set on the function say more about it: ``higher_is_better`` (default true),
``bounds = (0.0, 1.0)`` (the least and largest score: gives tighter statistics and lets hopeless
candidates be dropped early) and ``needs_labels`` (default true).

``NAME@package.module:function`` applies a built-in metric to an array the function makes from the
outputs, for instance the similarities of pairs of embeddings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.errors import KompaktError, MetricError
from kompakt.measuring.imported import import_function, told, where
from kompakt.measuring.metric import Floats, Labels, Metric, Outputs

MOST_KEPT_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class Kept:
    """Outputs and labels of some samples, kept whole for a metric that judges all of them at once.

    Attributes:
        outputs: Each of shape (rows · n, ...).
        labels: As given; an array of n or a list.
        reference: The float model's outputs, or ``None``.
        n: Number of samples.
    """

    outputs: dict[str, NDArray[Any]]
    labels: Labels
    reference: dict[str, NDArray[Any]] | None
    n: int

    def __len__(self) -> int:
        return self.n

    def copied(self) -> Kept:
        """The same with outputs of its own: runtimes may reuse their buffers."""
        theirs = None
        if self.reference is not None:
            theirs = {name: values.copy() for name, values in self.reference.items()}
        mine = {name: values.copy() for name, values in self.outputs.items()}
        return Kept(mine, self.labels, theirs, self.n)

    def take(self, index: NDArray[np.int64]) -> Kept:
        """The samples at ``index``; an output with r rows per sample keeps them together."""
        return Kept(
            {name: _take(values, index, self.n) for name, values in self.outputs.items()},
            None if self.labels is None else _take_labels(self.labels, index),
            None if self.reference is None
            else {name: _take(values, index, self.n) for name, values in self.reference.items()},
            index.size,
        )  # fmt: skip

    def same_as(self, other: Kept) -> NDArray[np.bool_]:
        """For each sample whether its outputs are equal."""
        same = np.ones(self.n, dtype=np.bool_)
        for name, values in self.outputs.items():
            equal = values == other.outputs[name]
            same &= equal.reshape(self.n, -1).all(axis=1)
        return same


def join_kept(parts: list[Kept]) -> Kept:
    """Put batches together.

    Raises:
        MetricError: K224 when their shapes differ or they are too large to keep.
    """
    first = parts[0]
    reference = None
    if first.reference is not None:
        reference = _join_arrays([part.reference or {} for part in parts])
    labels = [part.labels for part in parts]
    return Kept(
        _join_arrays([part.outputs for part in parts]),
        None if first.labels is None else _join_labels(labels),
        reference,
        sum(part.n for part in parts),
    )


def _join_arrays(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    if sum(values.nbytes for part in parts for values in part.values()) > MOST_KEPT_BYTES:
        raise MetricError(
            "K224",
            "a metric that returns one number for all samples",
            why=f"its outputs take more than {MOST_KEPT_BYTES >> 20} MiB",
            help="return one score for each sample",
        )
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise MetricError(
            "K224",
            "a metric that returns one number for all samples",
            why="outputs differ in shape from batch to batch",
            help="return one score for each sample",
        ) from error


def _join_labels(parts: list[Labels]) -> Labels:
    if all(isinstance(part, np.ndarray) for part in parts):
        try:
            return np.concatenate([np.asarray(part) for part in parts])
        except ValueError:
            pass  # labels of different lengths stay a list
    return [label for part in parts if part is not None for label in part]


def _take(values: NDArray[Any], index: NDArray[np.int64], n: int) -> NDArray[Any]:
    rows = len(values) // n
    if rows == 1:
        return values[index]
    return values.reshape(n, rows, *values.shape[1:])[index].reshape(-1, *values.shape[1:])


def _take_labels(labels: Labels, index: NDArray[np.int64]) -> Labels:
    return labels[index] if isinstance(labels, np.ndarray) else [labels[i] for i in index]  # type: ignore[index]


def custom_metric(spec: str) -> Metric:
    """The metric behind ``package.module:function``.

    Raises:
        MetricError: K221 when it cannot be imported or its attributes make no sense.
    """
    function = import_function(spec, "K221", MetricError, "metric")
    bounds = getattr(function, "bounds", None)
    if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
        raise MetricError("K221", f"metric {spec!r}", why=f"its bounds are {bounds!r}")
    call = _Call(spec, function)
    return Metric(
        name=spec,
        kind="bounded" if bounds is not None else "unbounded",
        higher_is_better=bool(getattr(function, "higher_is_better", True)),
        needs_labels=bool(getattr(function, "needs_labels", True)),
        needs_reference=call.takes_reference,
        bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        per_sample=call,
        corpus=call.corpus,
    )


def transformed_metric(name: str, spec: str, metric: Metric) -> Metric:
    """A built-in metric of what ``package.module:function`` makes of the outputs."""
    call = _Call(spec, import_function(spec, "K221", MetricError, "metric"))

    def per_sample(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Any:
        made = {"score": np.asarray(call.raw(outputs, labels, reference))}
        theirs = None
        if metric.needs_reference and reference is not None:
            theirs = {"score": np.asarray(call.raw(reference, labels, reference))}
        return metric.per_sample(made, labels, theirs)

    return replace(metric, name=name, per_sample=per_sample)


class _Call:
    """Calls the user's function and judges what it returns."""

    def __init__(self, spec: str, function: Callable[..., Any]) -> None:
        self.spec, self.function = spec, function
        self.takes_reference = _arguments(function) >= 3

    def raw(self, outputs: Outputs, labels: Labels, reference: Outputs | None) -> Any:
        arguments: tuple[Any, ...] = (dict(outputs), labels)
        if self.takes_reference:
            arguments += (None if reference is None else dict(reference),)
        try:
            return self.function(*arguments)
        except KompaktError:
            raise
        except Exception as error:
            raise MetricError(
                "K226", f"metric {self.spec!r}", where=where(error), why=told(error)
            ) from error

    def __call__(
        self, outputs: Outputs, labels: Labels, reference: Outputs | None
    ) -> Floats | Kept:
        result = self.number(self.raw(outputs, labels, reference))
        if result.ndim == 1:
            return result
        if not np.isfinite(result):
            raise MetricError("K222", f"metric {self.spec!r}", why=f"it returned {result}")
        n = len(labels) if labels is not None else len(next(iter(outputs.values())))
        if n == 0 or any(v.ndim == 0 or len(v) == 0 or len(v) % n for v in outputs.values()):
            shapes = {name: values.shape for name, values in outputs.items()}
            raise MetricError(
                "K223",
                f"metric {self.spec!r} for {n} samples",
                why=f"it returned one number, and outputs of shapes {shapes} cannot be resampled",
            )
        theirs = dict(reference) if self.takes_reference and reference is not None else None
        return Kept(dict(outputs), labels, theirs, n)

    def number(self, result: Any) -> Floats:
        """The result as a float64 array of no or one dimension."""
        try:
            if result is None:
                raise TypeError("nothing was returned")
            values = np.asarray(result, dtype=np.float64)
        except (TypeError, ValueError) as error:
            why = f"it returned {type(result).__name__}"
            raise MetricError("K222", f"metric {self.spec!r}", why=why) from error
        if values.ndim > 1:
            raise MetricError(
                "K223", f"metric {self.spec!r}", why=f"it returned an array of shape {values.shape}"
            )
        return values

    def corpus(self, kept: Kept, counts: Floats) -> Floats:
        """The function's single number for each resample."""
        values = np.empty(len(counts))
        for row, count in enumerate(counts):
            index = np.repeat(np.arange(kept.n), count.astype(np.int64))
            part = kept.take(index)
            result = self.number(self.raw(part.outputs, part.labels, part.reference))
            if result.ndim:
                why = f"it returned {result.size} scores where it returned one number before"
                raise MetricError("K223", f"metric {self.spec!r}", why=why)
            values[row] = result
        return values


def _arguments(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters)
