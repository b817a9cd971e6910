"""Calibration inputs for those who have none: made from what the network's batch norms remember."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kompakt.errors import DataError
from kompakt.measuring.data.dataset import ArrayDataset, Dataset
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe.synthetic import SAMPLES, STEPS, generate_inputs
from kompakt.progress import note

GENERATED = "generated"
"""The name that stands for such data where data is named."""


class Generated(Dataset):
    """Data that is made once the network is known; see :func:`for_network`.

    Args:
        samples: How many inputs to make.
        steps: How often they are improved.
        seed: Of the random start.
    """

    name = GENERATED

    def __init__(self, *, samples: int = SAMPLES, steps: int = STEPS, seed: int = 0) -> None:
        self.samples, self.steps, self.seed = samples, steps, seed

    def made_for(self, network: Network) -> ArrayDataset:
        """The inputs for a network.

        Raises:
            DataError: K247, K248 or K249 where inputs cannot be generated.
        """
        prepared = inference_form(network)
        note("no data: inputs are generated; a few real samples would serve better", "calibrating")
        inputs = generate_inputs(prepared, samples=self.samples, steps=self.steps, seed=self.seed)
        arrays = {name: np.asarray(x) for name, x in inputs.items()}
        rows = min(len(x) for x in arrays.values())
        return ArrayDataset(arrays, name=self.describe(), batch=rows, shuffle=None)

    def __iter__(self) -> Iterator[Any]:
        raise DataError(
            "K200",
            f"reading {GENERATED!r} data",
            why="inputs are generated for a network, and only to calibrate it",
            help="give real data here",
        )

    def describe(self) -> str:
        """The data in one line."""
        return f"{self.samples} samples generated from batch norms"

    def count(self) -> int:
        """Number of samples."""
        return self.samples

    def sha256(self) -> str:
        """Fingerprint of how they are made."""
        return hashlib.sha256(
            f"{GENERATED}:{self.samples}:{self.steps}:{self.seed}".encode()
        ).hexdigest()


def for_network(data: Iterable[Any] | str | None, network: Network) -> Iterable[Any] | None:
    """Data as it is, or made for a network where it is to be generated.

    Args:
        data: Any data, ``"generated"`` or a :class:`Generated`.
        network: A captured network.
    """
    if isinstance(data, str) and data == GENERATED:
        data = Generated()
    return data.made_for(network) if isinstance(data, Generated) else data
