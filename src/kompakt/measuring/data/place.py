"""Where in somebody's data an error is, in words: what the data is for, its file, the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from kompakt.measuring.data.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Place:
    """One batch of some data.

    Attributes:
        data: What the data is for and its name, such as ``calibration (faces.npz)``; may be empty.
        number: Number of the batch, from 0.
        rows: Where each row of the batch stands in its file, or ``None``.
        file: The ``.npz`` file, or empty.
    """

    data: str = ""
    number: int = 0
    rows: NDArray[Any] | None = None
    file: str = ""

    def batch(self) -> str:
        """The batch."""
        return ", ".join(part for part in (self.data, f"batch {self.number}") if part)

    def input(self, name: str) -> str:
        """One input of the batch."""
        return f"{self.batch()}, input {name!r}"

    def sample(self, name: str, tensor: Tensor) -> str:
        """The first sample of an input that holds a number that is not finite."""
        if not tensor.dim():
            return self.input(name)
        bad = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(dim=1)
        first = int(bad.int().argmax())
        if self.rows is None or len(self.rows) != len(tensor):
            return f"{self.input(name)}, sample {first} of the batch, counted from 0"
        parts = (self.data, f"sample {int(self.rows[first])}, counted from 0", f"input {name!r}")
        return ", ".join(part for part in parts if part)

    def advice(self, code: str, specs: Sequence[InputSpec]) -> str:
        """What to do about data in an ``.npz`` file; empty where the general advice is right."""
        if not self.file:
            return ""
        inputs = ", ".join(f"{spec.name}=…" for spec in specs)
        types = ", ".join(
            f"{spec.name}={spec.name}.astype({str(spec.dtype).removeprefix('torch.')!r})"
            for spec in specs
        )
        shapes = ", ".join(f"{spec.name} ({', '.join(map(str, spec.shape))})" for spec in specs)
        return {
            "K204": f"convert the array before it is saved: numpy.savez({self.file!r}, {types}, labels=…)",
            "K205": f"save arrays with one sample in each row of the first axis: {shapes}",
            "K207": f"clean or leave out that sample before numpy.savez({self.file!r}, …)",
            "K210": f"save the labels, too: numpy.savez({self.file!r}, {inputs}, labels=labels); or "
            "use the metric agreement, which needs none",
        }.get(code, "")


def title(role: str, source: object) -> str:
    """What data is for and what it is called: ``calibration (faces.npz)``."""
    name = str(getattr(source, "name", "") or "") if hasattr(source, "describe") else ""
    if role and name and name != role:
        return f"{role} ({name})"
    return role or name
