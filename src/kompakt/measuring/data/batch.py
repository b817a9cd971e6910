"""One batch of data, and how to read what users yield as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kompakt.errors import DataError

LABEL_KEYS = ("labels", "label")


class InputSpec(Protocol):
    """What a model says about one of its inputs (a network's ``TensorSpec`` is one)."""

    @property
    def name(self) -> str:
        """Input name."""

    @property
    def shape(self) -> Sequence[int | str]:
        """Sizes; a string names a dimension that may vary, the same one everywhere in a batch."""

    @property
    def dtype(self) -> torch.dtype:
        """Number type."""


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        inputs: Tensors by input name, in the model's order.
        labels: One label for each sample, or ``None``.
        size: Rows of the inputs.
        groups: Which group (video, document …) each sample belongs to, or ``None``.
        rows: Where each row of the inputs stands in the data it was taken from, or ``None``.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | list[Any] | None
    size: int
    groups: NDArray[Any] | None = None
    rows: NDArray[Any] | None = None

    @property
    def samples(self) -> int:
        """How many samples are scored: one for each label; without labels one for each row."""
        return self.size if self.labels is None else len(self.labels)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The inputs as numpy arrays, for a runtime."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.inputs.items()}

    def label_arrays(self) -> NDArray[Any] | list[Any] | None:
        """The labels as a numpy array or list, for a metric."""
        return (
            self.labels.detach().cpu().numpy() if isinstance(self.labels, Tensor) else self.labels
        )


def split_batch(
    batch: Any, input_specs: Sequence[InputSpec], labelled: bool | None = None
) -> tuple[dict[str, Any], Any]:
    """Tell inputs from labels in whatever a data source yields.

    A pair of two tensors is (input, label) for a model of one input, and two inputs for a model of
    two, unless ``labelled`` says otherwise.

    Args:
        batch: A tensor, a tuple or list, or a mapping; alone or with labels.
        input_specs: The model's inputs.
        labelled: Whether batches carry labels; ``None`` decides by the number of parts.

    Returns:
        Inputs by name in the model's order, and the labels or ``None``.

    Raises:
        DataError: K209 when the parts are not the model's inputs.
    """
    names = [spec.name for spec in input_specs]
    if isinstance(batch, Batch):
        return _by_name(batch.inputs, names), batch.labels
    if isinstance(batch, Mapping):
        return _split_mapping(batch, names)
    if not isinstance(batch, (tuple, list)):
        return _by_position([batch], names), None
    parts = list(batch)
    if _ends_with_labels(parts, len(names), labelled):
        inputs, labels = parts[:-1], parts[-1]
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return _by_name(inputs[0], names), labels
        if len(inputs) == 1 and isinstance(inputs[0], (tuple, list)) and not _is_rows(inputs[0]):
            inputs = list(inputs[0])
        return _by_position(inputs, names), labels
    if len(parts) == 1 and isinstance(parts[0], Mapping):
        return _split_mapping(parts[0], names)
    return _by_position(parts, names), None


def _ends_with_labels(parts: list[Any], inputs: int, labelled: bool | None) -> bool:
    if labelled is not None:
        return labelled and len(parts) in (2, inputs + 1)
    nested = len(parts) == 2 and isinstance(parts[0], (tuple, list, Mapping))
    return len(parts) == inputs + 1 or (nested and len(parts) != inputs) or (
        nested and not isinstance(parts[1], (tuple, list, Mapping))
    )  # fmt: skip


def _is_rows(value: Sequence[Any]) -> bool:
    """Whether a list is rows of numbers rather than a sequence of tensors."""
    return bool(value) and not isinstance(value[0], (Tensor, np.ndarray))


def _split_mapping(batch: Mapping[str, Any], names: list[str]) -> tuple[dict[str, Any], Any]:
    rest = dict(batch)
    labels = None
    for key in LABEL_KEYS:
        if key in rest and key not in names:
            labels = rest.pop(key)
    rest = {key: value for key, value in rest.items() if value is not None or key in names}
    return _by_name(rest, names), labels


def _by_name(inputs: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    missing = [name for name in names if name not in inputs]
    unknown = [str(name) for name in inputs if name not in names]
    if missing or unknown:
        raise DataError(
            "K209",
            f"a batch with {_listed(map(str, inputs))}",
            why=(f"{_listed(missing)} is missing" if missing else f"{_listed(unknown)} is no input")
            + f"; the model's inputs are {_listed(names)}",
        )
    return {name: inputs[name] for name in names}


def _by_position(parts: Sequence[Any], names: list[str]) -> dict[str, Any]:
    if len(parts) != len(names):
        raise DataError(
            "K209",
            f"a batch of {len(parts)} parts",
            why=f"the model has {len(names)} inputs: {_listed(names)}",
        )
    return dict(zip(names, parts, strict=True))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"
