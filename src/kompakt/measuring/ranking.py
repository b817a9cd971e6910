"""Metrics of one score per sample against a target: Spearman, Pearson, average precision.

Each works on how often every sample counts, for thousands of resamples at once: samples are sorted
once, and the ranks of a resample follow from cumulative sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kompakt.measuring.metric import (
    Floats,
    Labels,
    Metric,
    Outputs,
    array_labels,
    first_output,
    misfit,
    no_nan,
)


def _pairs(name: str, outputs: Outputs, labels: Labels) -> Floats:
    """Rows of (score, label)."""
    scores, wanted = first_output(outputs, name), array_labels(labels, name)
    if scores.size != len(scores) or wanted.shape not in ((scores.size,), (scores.size, 1)):
        raise misfit(name, scores, wanted, "one score and one label for each sample")
    return np.stack([scores.reshape(-1), wanted.reshape(-1)], axis=1).astype(np.float64)


def _runs(ordered: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the run of equal values begins and ends, for each position of a sorted array."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], ordered.size)
    run = np.searchsorted(starts, np.arange(ordered.size), side="right") - 1
    return starts[run], ends[run]


def mid_ranks(values: Floats, counts: Floats) -> Floats:
    """Ranks within each resample, ties sharing their mean rank.

    Args:
        values: Shape (n,).
        counts: How often each value was drawn, shape (some, n).

    Returns:
        Shape (some, n).
    """
    order = np.argsort(values, kind="stable")
    start, end = _runs(values[order])
    cumulated = np.zeros((counts.shape[0], values.size + 1))
    np.cumsum(counts[:, order], axis=1, out=cumulated[:, 1:])
    ranks = np.empty(counts.shape)
    ranks[:, order] = (cumulated[:, start] + cumulated[:, end] + 1) / 2
    return ranks


def weighted_correlation(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Pearson correlation of each row, shape (some,); NaN where x or y is constant."""
    weight = counts.sum(axis=1, keepdims=True)
    sizes = [1e-20 * (counts * values * values).sum(axis=1) for values in (x, y)]
    x = x - (counts * x).sum(axis=1, keepdims=True) / weight
    y = y - (counts * y).sum(axis=1, keepdims=True) / weight
    xx, yy, xy = ((counts * product).sum(axis=1) for product in (x * x, y * y, x * y))
    varied = (xx > sizes[0]) & (yy > sizes[1])  # against the rounding of a constant's mean
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(varied, xy / np.sqrt(xx * yy), np.nan))


def _spearman_rows(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    return _pairs("spearman", outputs, labels)


def _spearman(rows: Floats, counts: Floats) -> Floats:
    return weighted_correlation(
        mid_ranks(rows[:, 0], counts), mid_ranks(rows[:, 1], counts), counts
    )


def _pearson_rows(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    return _pairs("pearson", outputs, labels)


def _pearson(rows: Floats, counts: Floats) -> Floats:
    return weighted_correlation(rows[None, :, 0], rows[None, :, 1], counts)


def _ap_rows(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    """Rows of C scores followed by C yes/no labels; C = 1 for a single score per sample.

    NaN for samples whose class is below 0.
    """
    scores, wanted = first_output(outputs, "ap"), array_labels(labels, "ap")
    scores = scores.reshape(len(scores), -1) if scores.ndim == 1 else scores
    ignored = np.zeros(len(scores), dtype=np.bool_)
    if scores.ndim == 2 and wanted.shape == (len(scores),) and scores.shape[1] > 1:
        ignored = wanted < 0
        classes = np.arange(2 if scores.shape[1] == 2 else scores.shape[1])
        wanted = (wanted[:, None] == classes).astype(np.float64)
        if scores.shape[1] == 2:  # two classes are one question: how sure of class 1
            scores, wanted = (scores[:, 1] - scores[:, 0])[:, None], wanted[:, 1:]
    wanted = wanted.reshape(len(wanted), -1)
    if scores.ndim != 2 or scores.shape != wanted.shape:
        raise misfit("ap", scores, wanted, "a yes/no label for each score")
    rows = np.concatenate([scores, wanted > 0], axis=1).astype(np.float64)
    rows[ignored] = np.nan
    return rows


def average_precision(scores: Floats, positive: Floats, counts: Floats) -> Floats:
    """Average precision of each resample, shape (some,); NaN without any positive."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    drawn = counts[:, order]
    hits = np.cumsum(drawn * positive[order], axis=1)[:, last]
    seen = np.cumsum(drawn, axis=1)[:, last]
    precision = hits / np.maximum(seen, 1e-300)
    gained = np.diff(hits, axis=1, prepend=0.0)
    total = hits[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, (gained * precision).sum(axis=1) / total, np.nan)


def _ap(rows: Floats, counts: Floats) -> Floats:
    classes = rows.shape[1] // 2
    values = np.stack(
        [average_precision(rows[:, k], rows[:, classes + k], counts) for k in range(classes)]
    )
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / np.where(present.any(axis=0), present.sum(axis=0), np.nan))


_SCORES = """ The model's first output holds one score for each sample, (N,) or (N, 1), and so do
the labels. Where it is a vector, `NAME@package.module:function` makes a score of it. It is one
figure for all samples together."""

SPEARMAN = Metric(
    name="spearman",
    kind="corpus",
    bounds=(-1.0, 1.0),
    per_sample=_spearman_rows,
    corpus=_spearman,
    about="Rank correlation of scores and labels: 1 when both put the samples in the same order.\n"
    "Ties share their mean rank.\n" + _SCORES,
)
PEARSON = Metric(
    name="pearson",
    kind="corpus",
    bounds=(-1.0, 1.0),
    per_sample=_pearson_rows,
    corpus=_pearson,
    about="Linear correlation of scores and labels: 1 when they lie on a rising line.\n" + _SCORES,
)
AP = Metric(
    name="ap",
    kind="corpus",
    bounds=(0.0, 1.0),
    per_sample=_ap_rows,
    corpus=_ap,
    counted=no_nan,
    about="""Average precision: the area under the curve of precision over recall; with more than one
class its mean over the classes that occur (mAP). It is one figure for all samples together.

The model's first output is one score per sample, (N,) or (N, 1), with yes/no labels (above 0 means
yes), or (N, C), with labels (N, C) of yes/no or (N,) of classes counted from 0. A sample whose class
is below 0 is not counted.""",
)
