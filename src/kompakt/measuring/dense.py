"""Metrics of dense outputs: mean IoU, PSNR, cosine similarity, perplexity."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from kompakt.errors import MetricError
from kompakt.measuring.classification import decisions
from kompakt.measuring.metric import (
    Floats,
    Labels,
    Metric,
    Outputs,
    any_nonzero,
    array_labels,
    first_output,
    misfit,
)

IGNORED_PIXEL = 255
WORST_PSNR_DB, BEST_PSNR_DB = 0.0, 100.0


def _miou_rows(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    """Rows of (intersection, union) in pixels for each class."""
    scores, wanted = first_output(outputs, "miou"), array_labels(labels, "miou")
    if scores.ndim != 4:
        raise misfit("miou", scores, wanted, "scores of shape (N, classes, H, W)")
    chosen, classes = decisions(scores), scores.shape[1]
    wanted = wanted.reshape(chosen.shape) if wanted.size == chosen.size else wanted
    if wanted.shape != chosen.shape:
        raise misfit("miou", scores, wanted, f"labels of shape {chosen.shape}")
    counted = (wanted >= 0) & (wanted < classes)
    if ((wanted >= classes) & (wanted != IGNORED_PIXEL)).any():
        raise MetricError(
            "K224", f"metric miou: label {wanted.max()} with {classes} classes",
            why=f"labels count from 0; {IGNORED_PIXEL} and negative ones are not counted",
        )  # fmt: skip
    sample = np.arange(len(chosen))[:, None, None] * classes
    size = len(chosen) * classes
    wanted = np.where(counted, wanted, 0).astype(np.int64)
    hit = np.bincount((sample + chosen)[counted & (chosen == wanted)], minlength=size)
    predicted = np.bincount((sample + chosen)[counted], minlength=size)
    actual = np.bincount((sample + wanted)[counted], minlength=size)
    rows = np.stack([hit, predicted + actual - hit], axis=1).reshape(len(chosen), classes, 2)
    return rows.transpose(0, 2, 1).reshape(len(chosen), 2 * classes).astype(np.float64)


def _miou(rows: Floats, counts: Floats) -> Floats:
    intersection, union = np.split(counts @ rows, 2, axis=1)
    present = union > 0
    share = np.where(present, intersection / np.maximum(union, 1e-300), 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(share.sum(axis=1) / np.where(present.any(1), present.sum(axis=1), np.nan))


def _psnr(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    image, wanted = first_output(outputs, "psnr"), array_labels(labels, "psnr")
    if image.shape != wanted.shape:
        raise misfit("psnr", image, wanted, "images of one shape")
    peak = 1.0 if wanted.dtype.kind == "f" else float(np.iinfo(wanted.dtype).max)
    axes = tuple(range(1, image.ndim))
    error = ((image.astype(np.float64) - wanted) ** 2).mean(axis=axes)
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(10 * np.log10(peak**2 / error), WORST_PSNR_DB, BEST_PSNR_DB))


def _cosine(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    mine = first_output(outputs, "cosine").astype(np.float64)
    theirs = first_output(reference or {}, "cosine").astype(np.float64)
    if mine.shape != theirs.shape:
        raise misfit("cosine", mine, theirs, "outputs of one shape")
    mine, theirs = mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1)
    lengths = np.linalg.norm(mine, axis=1), np.linalg.norm(theirs, axis=1)
    both = lengths[0] * lengths[1]
    cosine = (mine * theirs).sum(axis=1) / np.where(both > 0, both, 1.0)
    alike = (lengths[0] == 0) & (lengths[1] == 0)
    return np.clip(np.where(alike, 1.0, cosine), -1.0, 1.0)


def _perplexity_rows(outputs: Outputs, labels: Labels, reference: Outputs | None) -> Floats:
    """Rows of (sum of negative log likelihoods in nats, tokens counted)."""
    logits, wanted = first_output(outputs, "perplexity"), array_labels(labels, "perplexity")
    if logits.ndim < 2 or wanted.shape != logits.shape[:-1]:
        raise misfit("perplexity", logits, wanted, "logits (N, T, vocabulary) and labels (N, T)")
    counted = wanted >= 0
    if wanted.size and wanted.max() >= logits.shape[-1]:
        raise MetricError("K224", f"metric perplexity: label {wanted.max()}", why="vocabulary ends")
    index = np.where(counted, wanted, 0).astype(np.int64)
    own = np.take_along_axis(logits, index[..., None], axis=-1)[..., 0].astype(np.float64)
    loss = np.where(counted, logsumexp(logits.astype(np.float64), axis=-1) - own, 0.0)
    loss, counted = loss.reshape(len(loss), -1), counted.reshape(len(loss), -1)
    return np.stack([loss.sum(axis=1), counted.sum(axis=1)], axis=1)


def _perplexity(rows: Floats, counts: Floats) -> Floats:
    loss, tokens = (counts @ rows).T
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return np.asarray(np.exp(np.where(tokens > 0, loss / tokens, np.nan)))


MIOU = Metric(
    name="miou",
    kind="corpus",
    bounds=(0.0, 1.0),
    per_sample=_miou_rows,
    corpus=_miou,
    counted=any_nonzero,
    about="""Mean over classes of intersection over union, both summed over all pixels of all samples. It
is one figure for all samples together.

The model's first output holds scores of shape (N, classes, H, W), the labels classes of shape
(N, H, W). Pixels with a label below 0, or with 255 where there are fewer classes, are not counted;
a sample without any other pixel leaves both the figure and the number of samples.""",
)
PSNR = Metric(
    name="psnr",
    kind="bounded",
    bounds=(WORST_PSNR_DB, BEST_PSNR_DB),
    per_sample=_psnr,
    about="""Peak signal to noise ratio in dB of each sample, from 0 (an error as large as the peak) to 100.
The peak is 1 for labels in floating point, the type's largest value for integers. Output and labels
are images of one shape.""",
)
COSINE = Metric(
    name="cosine",
    kind="bounded",
    needs_labels=False,
    needs_reference=True,
    bounds=(-1.0, 1.0),
    per_sample=_cosine,
    about="""Cosine of the angle between a model's first output and the float model's, of each sample:
1 when they point the same way. Outputs of any shape; labels are not looked at.""",
)
PERPLEXITY = Metric(
    name="perplexity",
    kind="corpus",
    higher_is_better=False,
    per_sample=_perplexity_rows,
    corpus=_perplexity,
    counted=any_nonzero,
    about="""Perplexity: e to the power of the mean negative log likelihood of the labels, over all
tokens of all samples. It is one figure for all samples together.

The model's first output holds logits of shape (N, T, vocabulary), the labels tokens of shape (N, T).
They are aligned: label t is the token that the logits at t predict. Labels below 0 are not counted;
a sample without any other label leaves both the figure and the number of samples.""",
)
