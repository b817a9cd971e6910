"""Metrics of decisions: top-1, top-5, agreement with the float model, F1.

An output of shape (N, C) holds scores of C classes; (N, T, C) does for each of T tokens; (N, C, H,
W) for each pixel. Labels below 0 are not counted (padding, −100 by custom); a sample without any
other label leaves both the figure and the number of samples. A single score per sample, (N,) or
(N, 1), is a logit: above 0 means yes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from kompakt.errors import MetricError
from kompakt.measuring.metric import (
    Floats,
    Labels,
    Metric,
    Outputs,
    any_nonzero,
    array_labels,
    first_output,
    misfit,
    no_nan,
)

Indices = NDArray[np.int64]


def class_axis(scores: NDArray[Any]) -> int:
    """Which axis of an output holds the classes: 1 for images, else the last."""
    return 1 if scores.ndim >= 4 else -1


def decisions(scores: NDArray[Any]) -> Indices:
    """The class chosen: shape (N,), (N, T) or (N, H, W)."""
    if scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1):
        return (scores.reshape(-1) > 0).astype(np.int64)
    return np.asarray(scores.argmax(axis=class_axis(scores)), dtype=np.int64)


def _share(hits: NDArray[Any], counted: NDArray[Any]) -> Floats:
    """Share of the counted positions that are hits, per sample; NaN where nothing is counted."""
    hits, counted = hits.reshape(len(hits), -1), counted.reshape(len(counted), -1)
    total = counted.sum(axis=1)
    return np.where(total > 0, (hits & counted).sum(axis=1) / np.maximum(total, 1), np.nan)


def _labelled(name: str, outputs: Outputs, labels: Labels) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores and integer labels whose shapes belong together."""
    scores, wanted = first_output(outputs, name), array_labels(labels, name)
    if wanted.ndim == 2 and wanted.shape[1] == 1 and scores.ndim == 2:
        wanted = wanted[:, 0]
    chosen = decisions(scores).shape
    if wanted.shape != chosen:
        raise misfit(name, scores, wanted, f"labels of shape {chosen}")
    classes = scores.shape[class_axis(scores)] if scores.ndim > 1 else 2
    if wanted.size and wanted.max() >= max(classes, 2):
        raise MetricError(
            "K224",
            f"metric {name}: label {wanted.max():g} with {classes} classes",
            why="labels count from 0",
        )
    return scores, wanted.astype(np.int64)


def _top1(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    scores, wanted = _labelled("top1", outputs, labels)
    return _share(decisions(scores) == wanted, wanted >= 0)


def _top5(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    scores, wanted = _labelled("top5", outputs, labels)
    if scores.ndim == 1 or scores.shape[class_axis(scores)] <= 5:
        raise MetricError("K224", "metric top5", why="the model has no more than five classes")
    moved = np.moveaxis(scores, class_axis(scores), -1)
    own = np.take_along_axis(moved, np.maximum(wanted, 0)[..., None], axis=-1)
    # Ties go against the model: equal scores of other classes count as above.
    above = (moved >= own).sum(axis=-1) - 1
    return _share(above < 5, wanted >= 0)


def _agreement(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    mine = decisions(first_output(outputs, "agreement"))
    theirs = decisions(first_output(reference or {}, "agreement"))
    if mine.shape != theirs.shape:
        raise misfit("agreement", mine, theirs, "outputs of one shape")
    return _share(mine == theirs, np.ones_like(mine, dtype=np.bool_))


def _f1_rows(outputs: Outputs, labels: Labels, reference: Outputs | None) -> csr_matrix:
    """Sparse rows of (true positives, predicted, actual) for each class."""
    scores, wanted = _labelled("f1", outputs, labels)
    chosen = decisions(scores).reshape(len(wanted), -1)
    wanted = wanted.reshape(len(wanted), -1)
    classes = max(scores.shape[class_axis(scores)] if scores.ndim > 1 else 2, 2)
    row = np.broadcast_to(np.arange(len(wanted))[:, None], wanted.shape)
    counted = wanted >= 0
    row, chosen, wanted = row[counted], chosen[counted], wanted[counted]
    hit = chosen == wanted
    column = np.concatenate([chosen[hit], classes + chosen, 2 * classes + wanted])
    rows = np.concatenate([row[hit], row, row])
    shape = (len(scores), 3 * classes)
    return csr_matrix((np.ones(column.size), (rows, column)), shape=shape)


def _f1(rows: csr_matrix, counts: Floats) -> Floats:
    totals = np.asarray((rows.T @ counts.T).T)
    hit, predicted, actual = np.split(totals, 3, axis=1)
    present = (predicted + actual) > 0
    score = np.where(present, 2 * hit / np.maximum(predicted + actual, 1e-300), 0.0)
    if score.shape[1] == 2:
        return np.asarray(score[:, 1])
    return np.asarray(score.sum(axis=1) / np.maximum(present.sum(axis=1), 1))


_SHAPES = """
A model's first output of shape (N, C) holds scores of C classes; (N, T, C) does for each of T
tokens, (N, C, H, W) for each pixel. One score per sample, (N,) or (N, 1), is a logit: above 0 means
yes."""
_IGNORED = """ Labels below 0 are not counted (padding, −100 by custom); a sample without any other
label leaves both the figure and the number of samples."""

TOP1 = Metric(
    name="top1",
    kind="binary",
    bounds=(0.0, 1.0),
    per_sample=_top1,
    counted=no_nan,
    about="Accuracy: the share of samples whose class with the highest score is the label.\n"
    + _SHAPES
    + _IGNORED,
)
TOP5 = Metric(
    name="top5",
    kind="binary",
    bounds=(0.0, 1.0),
    per_sample=_top5,
    counted=no_nan,
    about="Top-5 accuracy: the share of samples whose label is among the five classes with the\n"
    "highest scores. It needs more than five classes; ties go against the model.\n"
    + _SHAPES
    + _IGNORED,
)
AGREEMENT = Metric(
    name="agreement",
    kind="binary",
    needs_labels=False,
    needs_reference=True,
    bounds=(0.0, 1.0),
    per_sample=_agreement,
    about="The share of samples on which a model chooses the same class as the float model. Labels\n"
    "are not looked at: every sample and every position counts, padding too.\n" + _SHAPES,
)
F1 = Metric(
    name="f1",
    kind="corpus",
    bounds=(0.0, 1.0),
    per_sample=_f1_rows,
    corpus=_f1,
    counted=any_nonzero,
    about="F1, the harmonic mean of precision and recall: with two classes that of class 1, with more\n"
    "the mean over all classes seen (macro). It is one figure for all samples together.\n"
    + _SHAPES
    + _IGNORED,
)
