"""``builtin:digits``: 1797 handwritten digits of 8×8 pixels that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from kompakt.errors import DataError
from kompakt.measuring.data.dataset import DEFAULT_BATCH, SHUFFLE_SEED, ArrayDataset

SIZES = {"calibration": 400, "validation": 600, "test": 400, "train": 397}
"""Images in each split; the splits share none."""
_SPLIT_SEED = 1797


def digits(
    split: str,
    input_name: str = "x",
    *,
    batch: int = DEFAULT_BATCH,
    shuffle: int | None = SHUFFLE_SEED,
) -> ArrayDataset:
    """One fixed split of the digits, as float32 (N, 1, 8, 8) in [0, 1] with labels 0 … 9.

    Args:
        split: ``calibration``, ``validation``, ``test`` or ``train``.
        input_name: Name of the model's input.
        batch: Images in a batch.
        shuffle: Seed of the order within the split, or ``None``.

    Raises:
        DataError: K201 for an unknown split.

    Reference:
        E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine
        Learning Repository.
    """
    if split not in SIZES:
        raise DataError(
            "K201", f"split {split!r} of the digits", why=f"there are {', '.join(SIZES)}"
        )
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    loaded = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(loaded.target))
    start = sum(SIZES[name] for name in list(SIZES)[: list(SIZES).index(split)])
    index = order[start : start + SIZES[split]]
    images = (loaded.images[index] / 16.0).astype(np.float32)[:, None]
    labels = loaded.target[index].astype(np.int64)
    return ArrayDataset(
        {input_name: images}, labels, name=f"digits, {split}", batch=batch, shuffle=shuffle
    )
