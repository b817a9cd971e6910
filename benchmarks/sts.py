"""Sentence similarity: pairs of sentences in, one similarity a pair out.

A batch holds 2n sentences, the two of a pair side by side, and n human scores. Used as the metric
``spearman@benchmarks.sts:pair_scores``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.datasets import SentencePairs, stsb

METRIC = "spearman@benchmarks.sts:pair_scores"


def pair_scores(outputs: Mapping[str, NDArray[np.float32]], labels: object) -> NDArray[np.float64]:
    """Cosine similarity of each pair of neighbouring unit vectors.

    Args:
        outputs: One array of unit vectors (2·pairs, C).
        labels: Not used.

    Returns:
        Shape (pairs,).
    """
    embedding = next(iter(outputs.values())).astype(np.float64)
    return np.asarray((embedding[::2] * embedding[1::2]).sum(1))


@dataclass(frozen=True, kw_only=True)
class PairBatches:
    """Re-iterable batches of ``(inputs, labels)``: 2n sentences, n human scores.

    Args:
        data: The pairs.
        size: Pairs in a batch.
        labelled: Whether to yield the scores as well.
    """

    data: SentencePairs
    size: int
    labelled: bool = True

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.data) // (2 * self.size))

    def __iter__(self) -> Iterator[Any]:
        """Yield ``(inputs by name, labels)``, or the inputs alone."""
        for start in range(0, len(self.data), 2 * self.size):
            rows = slice(start, start + 2 * self.size)
            inputs: dict[str, Tensor] = {
                "input_ids": torch.from_numpy(self.data.input_ids[rows]),
                "attention_mask": torch.from_numpy(self.data.attention_mask[rows]),
            }
            labels = torch.from_numpy(self.data.labels[rows][::2].copy())
            yield (inputs, labels) if self.labelled else inputs


def pairs(assets: Path, split: str, rows: slice, *, length: int) -> SentencePairs:
    """Some pairs of a split of STS-B.

    Args:
        assets: The folder of real models and data.
        split: ``"train"`` or ``"dev"``.
        rows: Which pairs.
        length: Tokens a sentence is padded and cut to.
    """
    data = stsb(assets, split, length=length)
    start, stop, _ = rows.indices(len(data) // 2)
    cut = slice(2 * start, 2 * stop)
    return replace(
        data,
        input_ids=data.input_ids[cut],
        attention_mask=data.attention_mask[cut],
        labels=data.labels[cut],
    )
