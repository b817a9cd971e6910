"""Running models over data and scoring them, paired sample by sample.

The float model is evaluated once; every candidate is then evaluated on the same samples in the same
order, and may be dropped as soon as it is proven hopeless.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.errors import DataError, MetricError
from kompakt.measuring.custom import Kept
from kompakt.measuring.data.batch import Batch
from kompakt.measuring.data.prepare import Prepared
from kompakt.measuring.metric import Floats, Labels, Metric, refuse_nan
from kompakt.measuring.scores import Scores, join_rows
from kompakt.measuring.sequential import BettingSequence
from kompakt.progress import track

Arrays = dict[str, NDArray[Any]]
Runnable = Callable[[Arrays], Arrays]
KEPT_OUTPUT_BYTES = 256 * 1024 * 1024
_FINGERPRINTED_BYTES = 4096


def evaluate(
    run: Runnable,
    batches: Iterable[Batch],
    metric: Metric,
    *,
    reference: Runnable | None = None,
    task: str = "evaluating",
) -> Scores:
    """Score one model.

    Args:
        run: From input arrays by name to output arrays by name.
        batches: Prepared batches.
        metric: From :func:`~kompakt.measuring.metrics.get_metric`.
        reference: The float model, for metrics that compare with it.
        task: What to call it while it runs.

    Raises:
        DataError: K203 without batches, K210 without labels.
        MetricError: K222–K226 when the metric cannot use the outputs, K225 for NaN outputs.
    """
    runs = {"model": run, **({} if reference is None else {"reference": reference})}
    return evaluate_together(
        runs, batches, metric, reference="reference" if reference else None, task=task
    )["model"]


def evaluate_together(
    runs: Mapping[str, Runnable],
    batches: Iterable[Batch],
    metric: Metric,
    *,
    reference: str | None = None,
    task: str = "evaluating",
) -> dict[str, Scores]:
    """Score several models in one pass over the data, so that their scores are paired.

    Args:
        runs: The models by name.
        batches: Prepared batches.
        metric: The metric.
        reference: Name of the float model among ``runs``, for metrics that compare with it.
        task: What to call it while it runs.

    Raises:
        DataError: As :func:`evaluate`.
        MetricError: As :func:`evaluate`.
    """
    collectors = {name: _Collector(metric, name) for name in runs}
    for number, batch in enumerate(track(batches, task, batch_total(batches))):
        inputs = batch.arrays()
        outputs = {name: run(inputs) for name, run in runs.items()}
        theirs = outputs[reference] if reference is not None else None
        for name, collector in collectors.items():
            collector.add(batch, inputs, outputs[name], theirs, number)
    return {name: collector.scores() for name, collector in collectors.items()}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came of evaluating one candidate.

    Attributes:
        scores: Of all samples, or of those seen before it was dropped.
        complete: Whether all samples were used.
        lower: Anytime-valid lower bound of the drop over all samples, when it was dropped.
    """

    scores: Scores
    complete: bool
    lower: float | None = None


class PairedEvaluation:
    """The float model's scores on some data, and candidates measured against them.

    Args:
        baseline: The float model.
        data: Prepared batches that can be read again.
        metric: The metric.
        keep_bytes: Outputs of the float model are kept up to this size for metrics that need
            them; above it the float model runs again beside each candidate.
        random_order: Whether the samples come in random order, which dropping early relies on;
            ``None`` believes the data (:attr:`Prepared.shuffled`).
    """

    def __init__(
        self,
        baseline: Runnable,
        data: Iterable[Batch],
        metric: Metric,
        *,
        keep_bytes: int = KEPT_OUTPUT_BYTES,
        random_order: bool | None = None,
    ) -> None:
        self._run, self._data, self.metric = baseline, data, metric
        shuffled = bool(getattr(data, "shuffled", False))
        self.random_order = shuffled if random_order is None else random_order
        self._room = keep_bytes if metric.needs_reference else 0
        self._kept: list[Arrays] | None = []
        self._scores: Scores | None = None

    @property
    def baseline(self) -> Scores:
        """The float model's own scores; evaluated at the first use."""
        if self._scores is None:
            collector = _Collector(self.metric, "float model")
            batches = track(self._data, "evaluating the float model", batch_total(self._data))
            for number, batch in enumerate(batches):
                inputs = batch.arrays()
                outputs = self._run(inputs)
                self._keep(outputs)
                collector.add(batch, inputs, outputs, outputs, number)
            self._scores = collector.scores()
            self.metric = self._scores.metric
        return self._scores

    def _keep(self, outputs: Arrays) -> None:
        self._room -= sum(values.nbytes for values in outputs.values())
        if self._room < 0:
            self._kept = None
        elif self._kept is not None:
            # Runtimes may reuse their output buffers.
            self._kept.append({name: values.copy() for name, values in outputs.items()})

    def run(
        self,
        candidate: Runnable,
        *,
        name: str = "candidate",
        margin: float | None = None,
        alpha: float = 0.05,
    ) -> Evaluation:
        """Evaluate a candidate on the same samples.

        Args:
            candidate: The model.
            name: What to call it.
            margin: Drop it as soon as its drop over all samples is proven larger than this, with
                an error probability of ``alpha`` however long it runs. Only for scores with
                bounds, on samples in random order; else it always runs to the end.
            alpha: Error probability of dropping it wrongly.

        Raises:
            DataError: K213 when the data is not what the float model saw.
            MetricError: As :func:`evaluate`.
        """
        float_scores = self.baseline
        collector = _Collector(self.metric, name)
        sequence = self._sequence(float_scores, alpha) if margin is not None else None
        reference_outputs = iter(self._kept) if self._kept else None
        for number, batch in enumerate(
            track(self._data, f"evaluating {name}", batch_total(self._data))
        ):
            inputs = batch.arrays()
            theirs = None
            if self.metric.needs_reference:
                kept = reference_outputs is not None
                theirs = next(reference_outputs) if kept else self._run(inputs)  # type: ignore[arg-type]
            start = collector.n
            collector.add(batch, inputs, candidate(inputs), theirs, number)
            self._same_data(float_scores, collector, number, name)
            if sequence is None or margin is None:
                continue
            new = float_scores.values[start : collector.n], collector.rows[-1]
            sequence.update(self.metric.worse_by(*new))
            if collector.n < float_scores.n and sequence.exceeds(margin):
                return Evaluation(scores=collector.scores(), complete=False, lower=sequence.lower)
        if collector.n != float_scores.n:
            raise _changed(name, f"{collector.n} samples, the float model saw {float_scores.n}")
        return Evaluation(scores=collector.scores(), complete=True)

    def _sequence(self, scores: Scores, alpha: float) -> BettingSequence | None:
        bounds = self.metric.bounds
        if self.metric.kind == "corpus" or bounds is None or not self.random_order:
            return None
        width = bounds[1] - bounds[0]
        return BettingSequence(scores.n, alpha, -width, width)

    def _same_data(self, scores: Scores, mine: _Collector, number: int, name: str) -> None:
        if number >= len(scores.order) or scores.order[number] != mine.order[number]:
            raise _changed(name, f"batch {number} is not the batch the float model saw")


def _changed(name: str, why: str) -> DataError:
    return DataError("K213", f"evaluating {name}", why=why)


class _Collector:
    """Gathers the scores of one model batch by batch and judges what the metric returned."""

    def __init__(self, metric: Metric, name: str) -> None:
        self.metric, self.name = metric, name
        self.rows: list[Any] = []
        self.order: list[int] = []
        self.n = 0
        self._groups: list[NDArray[Any]] = []

    def add(
        self, batch: Batch, inputs: Arrays, outputs: Arrays, reference: Arrays | None, number: int
    ) -> None:
        labels = batch.label_arrays()
        where = f"batch {number}, {self.name}"
        if labels is None and self.metric.needs_labels:
            raise DataError(
                "K210", f"metric {self.metric.name}", where=where, why="the data has no labels"
            )
        if self.metric.needs_reference and reference is None:
            raise MetricError(
                "K224", f"metric {self.metric.name}", why="there is no float model to compare with"
            )
        try:
            rows = self._rows(batch, outputs, labels, reference)
        except MetricError as error:
            error.where = error.where or where
            raise
        groups = None if batch.groups is None else np.asarray(batch.groups)
        if self.metric.counted is not None:
            counts = self.metric.counted(rows)
            rows, groups = rows[counts], None if groups is None else groups[counts]
        self.rows.append(rows)
        self.n += len(rows) if isinstance(rows, Kept) else int(rows.shape[0])
        self.order.append(fingerprint(inputs))
        if groups is not None:
            self._groups.append(groups)

    def _rows(self, batch: Batch, outputs: Arrays, labels: Labels, reference: Arrays | None) -> Any:
        metric = self.metric
        for name, values in outputs.items():
            refuse_nan(name, values)
        rows = metric.per_sample(outputs, labels, reference)
        if isinstance(rows, Kept):  # the user's metric turned out to judge all samples at once
            self.metric = replace(metric, kind="corpus")
            return rows.copied()
        if int(rows.shape[0]) not in (batch.size, batch.samples):
            raise MetricError(
                "K223",
                f"metric {metric.name} for {batch.samples} samples",
                why=f"it returned {rows.shape[0]} scores",
            )
        if metric.kind != "corpus":
            self._check_scores(rows if metric.counted is None else rows[metric.counted(rows)])
        return rows

    def _check_scores(self, scores: Floats) -> None:
        bad = np.flatnonzero(~np.isfinite(scores))
        if bad.size:
            raise MetricError(
                "K222",
                f"metric {self.metric.name} returned {scores[bad[0]]}",
                why=f"for sample {bad[0]} of the batch, {bad.size} in all",
            )
        low, high = self.metric.bounds or (-np.inf, np.inf)
        if scores.size and (scores.min() < low - 1e-9 or scores.max() > high + 1e-9):
            raise MetricError(
                "K222",
                f"metric {self.metric.name} returned {scores.min():g} … {scores.max():g}",
                why=f"it said its scores lie within {low:g} … {high:g}",
            )

    def scores(self) -> Scores:
        if not self.rows:
            raise DataError("K203", f"evaluating {self.name}", why="the data has no batch")
        if self.n == 0:
            raise MetricError(
                "K227",
                f"metric {self.metric.name} of no sample",
                why="every sample is left out: no label of any of them is 0 or more",
                help="give labels; those below 0 mean that a sample is not counted",
            )
        groups = np.concatenate(self._groups) if self._groups else None
        rows = join_rows(self.metric, self.rows)
        return Scores(metric=self.metric, rows=rows, order=tuple(self.order), groups=groups)


def fingerprint(inputs: Mapping[str, NDArray[Any]]) -> int:
    """A cheap fingerprint of a batch: the beginning of each of its samples."""
    found = 0
    for values in inputs.values():
        rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
        each = max(1, _FINGERPRINTED_BYTES // max(1, rows.itemsize * len(rows)))
        found = zlib.crc32(str(values.shape).encode(), found)
        found = zlib.crc32(np.ascontiguousarray(rows[:, :each]).tobytes(), found)
        found = zlib.crc32(np.ascontiguousarray(rows[:, -each:]).tobytes(), found)
    return found


def batch_total(batches: Iterable[Batch]) -> int | None:
    """How many batches there will be, where that is known."""
    if isinstance(batches, Prepared):
        return batches.batches
    count = operator.length_hint(batches, -1)
    return count if count >= 0 else None
