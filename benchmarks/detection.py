"""The COCO detector of the assets: its input, the boxes in its outputs, and AP50."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 416
MEAN = (103.53, 116.28, 123.675)
DEVIATION = (57.375, 57.12, 58.395)
STRIDES = (8, 16, 32)
BINS = 8
Floats = NDArray[np.float32]


def detector_input(image: Image.Image) -> Floats:
    """An RGB picture as the detector takes it: BGR, normalised, stretched to 416²; float32 (1, 3, 416, 416)."""
    pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    bgr = pixels[:, :, ::-1].astype(np.float32)
    normal = (bgr - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def boxes_in(outputs: Sequence[Floats], width: int, height: int) -> NDArray[np.float64]:
    """Rows (class, score, x1, y1, x2, y2) in pixels of the picture, after per-class suppression at IoU 0.6.

    Args:
        outputs: Scores (1, cells, 80) for strides 8, 16, 32, then distances (1, cells, 32) for each.
        width: Of the picture.
        height: Of the picture.
    """
    found = []
    for stride, scores, logits in zip(STRIDES, outputs[:3], outputs[3:], strict=True):
        cells = SIZE // stride
        y, x = np.divmod(np.arange(cells * cells), cells)
        centre = np.stack([x, y], 1) * stride + (stride - 1) / 2
        shaped = logits[0].reshape(-1, 4, BINS).astype(np.float64)
        weights = np.exp(shaped - shaped.max(-1, keepdims=True))
        distance = (weights / weights.sum(-1, keepdims=True)) @ np.arange(BINS) * stride
        corners = np.concatenate([centre - distance[:, :2], centre + distance[:, 2:]], 1)
        rows, classes = np.nonzero(scores[0] > 0.05)
        kept = np.column_stack([classes, scores[0][rows, classes], corners[rows]])
        found.append(kept)
    boxes = np.concatenate(found)
    boxes[:, 2::2] *= width / SIZE
    boxes[:, 3::2] *= height / SIZE
    return _suppressed(boxes)


def _suppressed(boxes: NDArray[np.float64], limit: float = 0.6) -> NDArray[np.float64]:
    kept = []
    for label in np.unique(boxes[:, 0]):
        same = boxes[boxes[:, 0] == label]
        same = same[np.argsort(-same[:, 1])]
        while len(same):
            kept.append(same[0])
            same = same[1:][overlaps(same[0, 2:], same[1:, 2:]) < limit]
    return np.array(kept) if kept else np.zeros((0, 6))


def overlaps(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of one box with others, as x1, y1, x2, y2."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    inside = np.clip(high - low, 0, None).prod(1)
    area = (one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - inside
    result: NDArray[np.float64] = inside / np.maximum(area, 1e-9)
    return result


def truth(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Rows (class, x1, y1, x2, y2) by image name."""
    found: dict[str, list[list[float]]] = {}
    with (folder / "boxes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            corners = [float(row[key]) for key in ("x1", "y1", "x2", "y2")]
            found.setdefault(row["image"], []).append([float(row["class_id"]), *corners])
    return {name: np.array(rows) for name, rows in found.items()}


def ap50(
    found: Mapping[str, NDArray[np.float64]], wanted: Mapping[str, NDArray[np.float64]]
) -> float:
    """Mean over classes of the area under the precision-recall curve (101 points), at IoU 0.5."""
    scores = []
    for label in sorted({c for rows in wanted.values() for c in rows[:, 0]}):
        positives = sum(int((rows[:, 0] == label).sum()) for rows in wanted.values())
        ranked = sorted(
            (
                (row[1], name, row[2:])
                for name, rows in found.items()
                for row in rows
                if row[0] == label
            ),
            key=lambda entry: -entry[0],
        )
        free = {n: [r[1:] for r in rows if r[0] == label] for n, rows in wanted.items()}
        hits = np.array([_claims(box, free[name]) for _, name, box in ranked], bool)
        right = np.cumsum(hits)
        recall, precision = right / positives, right / np.arange(1, len(hits) + 1)
        best = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)]
        scores.append(float(np.mean(best)))
    return float(np.mean(scores))


def _claims(box: NDArray[np.float64], free: list[NDArray[np.float64]]) -> bool:
    """Whether a box finds one of the boxes nobody has found yet; it is taken then."""
    if not free:
        return False
    fits = overlaps(box, np.array(free))
    best = int(fits.argmax())
    if fits[best] < 0.5:
        return False
    free.pop(best)
    return True
