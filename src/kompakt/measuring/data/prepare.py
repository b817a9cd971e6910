"""Checking batches against a model's inputs before anything is computed from them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kompakt.errors import DataError
from kompakt.measuring.data.batch import Batch, InputSpec, split_batch
from kompakt.measuring.data.place import Place, title


class Prepared:
    """Data as checked :class:`Batch` objects; can be iterated as often as the data can.

    Attributes:
        source: The data as given.
        input_specs: The model's inputs.
        labelled: Whether batches carry labels, where that is known.
        needs_labels: Whether a batch without labels is an error.
        shuffled: Whether the samples are known to come in random order.
        role: What the data is for, for messages; may be empty.
    """

    def __init__(
        self,
        source: Iterable[Any],
        input_specs: Sequence[InputSpec],
        *,
        labelled: bool | None = None,
        needs_labels: bool = False,
        role: str = "",
    ) -> None:
        self.role = role
        self.source, self.input_specs = source, tuple(input_specs)
        self.labelled, self.needs_labels = labelled, needs_labels
        self.shuffled = bool(getattr(source, "shuffled", False))
        self._started = False

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.source)
        if self._started and batches is self.source:
            raise one_shot(self.source)
        self._started = True
        number = -1
        for number, batch in enumerate(batches):
            for part in fixed_parts(batch, self.input_specs, self.labelled):
                yield self._checked(part, number)
        if number < 0:
            why = f"{_kind(self.source)} yielded nothing"
            raise DataError("K203", "no batch", where=self.title, why=why)

    @property
    def batches(self) -> int | None:
        """How many batches there are, where the data knows."""
        count = operator.length_hint(self.source, -1)
        return count if count >= 0 else None

    @property
    def title(self) -> str:
        """What the data is for and what it is called; may be empty."""
        return title(self.role, self.source)

    def _checked(self, batch: Any, number: int) -> Batch:
        groups, rows = (batch.groups, batch.rows) if isinstance(batch, Batch) else (None, None)
        file = str(getattr(self.source, "file", "") or "") if rows is not None else ""
        place = Place(data=self.title, number=number, rows=rows, file=file)
        try:
            inputs, labels = split_batch(batch, self.input_specs, self.labelled)
            tensors = {
                spec.name: check_input(inputs[spec.name], spec, place) for spec in self.input_specs
            }
            size = _check_symbols(tensors, self.input_specs, place)
            if labels is None and self.needs_labels:
                why = "the metric needs them"
                raise DataError("K210", f"batch {number} without labels", why=why)
            labels = _checked_labels(labels, size)
        except DataError as error:
            error.where = error.where or place.batch()
            error.help = place.advice(error.code, self.input_specs) or error.help
            raise
        return Batch(tensors, labels, size, groups, rows)


def fixed_parts(batch: Any, specs: Sequence[InputSpec], labelled: bool | None) -> Iterator[Any]:
    """A batch in parts of the size a model demands, where its batch size is fixed and the batch is a multiple."""
    fixed = specs[0].shape[0] if specs and specs[0].shape else None
    if not isinstance(fixed, int) or fixed < 1:
        yield batch
        return
    try:
        inputs, labels = split_batch(batch, specs, labelled)
        sizes = {len(inputs[spec.name]) for spec in specs if spec.shape}
    except (DataError, TypeError):
        yield batch  # what is wrong with it is told later
        return
    size = next(iter(sizes))
    if len(sizes) != 1 or size <= fixed or size % fixed:
        yield batch
        return
    known = batch if isinstance(batch, Batch) else None
    for start in range(0, size, fixed):
        rows = slice(start, start + fixed)
        part = {s.name: inputs[s.name][rows] if s.shape else inputs[s.name] for s in specs}
        some = labels[rows] if labels is not None and len(labels) == size else labels
        groups = None if known is None or known.groups is None else known.groups[rows]
        places = None if known is None or known.rows is None else known.rows[rows]
        yield Batch(part, some, fixed, groups, places)


def prepare(
    data: Iterable[Any],
    input_specs: Sequence[InputSpec],
    *,
    labelled: bool | None = None,
    needs_labels: bool = False,
    role: str = "",
) -> Prepared:
    """Read data as batches that fit a model.

    Args:
        data: Any iterable of batches; a batch is the inputs (tensor, tuple or mapping), or
            ``(inputs, labels)``.
        input_specs: The model's inputs, in order.
        labelled: Whether batches carry labels; ``None`` decides by the number of parts.
        needs_labels: Whether a batch without labels is an error.
        role: What the data is for, such as ``calibration``; errors tell it.

    Returns:
        An iterable of :class:`Batch`. Iterating raises DataError: K203 empty, K204 number type,
        K205 shape, K206 a generator read twice, K207 NaN or infinity, K209 wrong parts, K210 and
        K211 labels.

    Raises:
        DataError: K203 when ``data`` is no iterable of batches at all.
    """
    _refuse_no_batches(data, role)
    if isinstance(data, Prepared):
        role = role or data.role
        data = data.source
    return Prepared(data, input_specs, labelled=labelled, needs_labels=needs_labels, role=role)


def _refuse_no_batches(data: object, role: str) -> None:
    """Raise K203 for what is not an iterable of batches, with the form that would be one."""
    name = role or "data"
    if isinstance(data, (str, bytes)):
        shown = data if isinstance(data, str) else "data.npz"
        help = f"open it first: {name}=kompakt.open_data({shown[:200]!r})"
    elif isinstance(data, Mapping):
        help = f"put the batch into a list: {name}=[batch]"
    elif isinstance(data, (Tensor, np.ndarray)):
        help = (
            f"put it into a list of batches: {name}=[x], or {name}=list(x.split(20)) for a tensor"
        )
    elif _is_pair(data):
        help = f"put the pair into a list of batches: {name}=[(inputs, labels)]"
    elif not hasattr(data, "__iter__"):
        help = f"give a list of batches: {name}=[batch, …]"
    else:
        return
    kind = "a pair of inputs and labels" if _is_pair(data) else f"data of type {_kind(data)}"
    raise DataError("K203", kind, where=role, why="it is not an iterable of batches", help=help)


def _is_pair(data: object) -> bool:
    """Whether it is (inputs, labels) of one length: as batches these two would differ in form."""
    if not isinstance(data, tuple) or len(data) != 2:
        return False
    return all(isinstance(part, (Tensor, np.ndarray)) and part.ndim for part in data) and (
        len(data[0]) == len(data[1]) and data[0].shape[1:] != data[1].shape[1:]
    )


def require_reiterable(data: Iterable[Any]) -> None:
    """Refuse a generator or iterator where data is read more than once.

    Raises:
        DataError: K206.
    """
    if iter(data) is data:
        raise one_shot(data)


def one_shot(data: object) -> DataError:
    """The error for data that cannot be read again."""
    return DataError(
        "K206",
        f"{_kind(data)} read a second time",
        why="it is used up after one pass, and calibration and evaluation need several",
    )


def check_input(value: Any, spec: InputSpec, place: Place) -> Tensor:
    """One input of one batch as a tensor of the right type, rank and shape, without NaN.

    Raises:
        DataError: K204, K205 or K207, naming the place and the input.
    """
    where = place.input(spec.name)
    tensor = _tensor(value, where)
    if tensor.dtype != spec.dtype:
        raise DataError(
            "K204",
            f"{_short(tensor.dtype)} values",
            where=where,
            why=f"the model takes {_short(spec.dtype)}",
        )
    wanted = tuple(spec.shape)
    fits = tensor.dim() == len(wanted) and all(
        isinstance(want, str) or want == size
        for want, size in zip(wanted, tensor.shape, strict=True)
    )
    if not fits:
        raise DataError(
            "K205",
            f"shape {tuple(tensor.shape)}",
            where=where,
            why=f"the model takes ({', '.join(map(str, wanted))})",
        )
    if tensor.numel() == 0:
        raise DataError(
            "K203", "a batch without samples", where=where, why=f"shape {tuple(tensor.shape)}"
        )
    if (tensor.is_floating_point() or tensor.is_complex()) and not finite(tensor):
        bad = int((~torch.isfinite(tensor)).sum())
        raise DataError(
            "K207",
            f"{bad} of {tensor.numel()} values are NaN or infinite",
            where=place.sample(spec.name, tensor),
            why="every result computed from them would be wrong",
        )
    return tensor


def finite(tensor: Tensor) -> bool:
    """Whether all values are finite; one cheap pass for good data."""
    total = tensor.sum()
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def _tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiubc":
        # numpy makes 0-d arrays 1-d when asked for contiguous ones.
        native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C", copy=None)
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    raise DataError(
        "K209",
        f"a batch with a {_kind(value)}",
        where=where,
        why="inputs are tensors or numeric numpy arrays",
    )


def _check_symbols(tensors: dict[str, Tensor], specs: Sequence[InputSpec], place: Place) -> int:
    """Equal sizes under equal names; returns the batch size."""
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        for want, size in zip(spec.shape, tensors[spec.name].shape, strict=True):
            if not isinstance(want, str):
                continue
            known, owner = sizes.setdefault(want, (size, spec.name))
            if known != size:
                raise DataError(
                    "K205",
                    f"dimension {want!r} is {size}",
                    where=place.input(spec.name),
                    why=f"it is {known} in input {owner!r}",
                )
    first = tensors[specs[0].name]
    return int(first.shape[0]) if first.dim() else 1


def _checked_labels(labels: Any, size: int) -> Tensor | list[Any] | None:
    if labels is None:
        return None
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "fiub":
        labels = torch.from_numpy(np.array(labels, dtype=labels.dtype.newbyteorder("=")))
    elif isinstance(labels, (list, tuple)):
        labels = _stacked(list(labels))
    elif not isinstance(labels, Tensor):
        raise DataError(
            "K211", f"labels of type {_kind(labels)}",
            why="labels are a tensor, an array or a list",
        )  # fmt: skip
    count = len(labels) if not isinstance(labels, Tensor) or labels.dim() else 0
    # Fewer labels are right where several rows make one sample, such as pairs of sentences.
    if count == 0 or size % count:
        raise DataError(
            "K211", f"{count} labels for {size} samples",
            why="each sample needs one",
        )  # fmt: skip
    return labels  # type: ignore[no-any-return]


def _stacked(labels: list[Any]) -> Tensor | list[Any]:
    """A list of numbers or of equal tensors as one tensor; anything else stays a list."""
    if labels and all(isinstance(label, Tensor) for label in labels):
        alike = all(label.shape == labels[0].shape for label in labels)
        return torch.stack(labels) if alike else labels
    try:
        values = np.asarray(labels)
    except ValueError:
        return labels
    return torch.from_numpy(values) if values.dtype.kind in "fiub" else labels


def _kind(value: object) -> str:
    return type(value).__name__


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
