"""From batches as they come to the tensors of one forward pass.

Large batches are cut and small ones joined: activations of a few images stay in the processor's
cache, those of dozens do not, and one image at a time is dominated by the cost of calls. What is
observed does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from kompakt.errors import DataError
from kompakt.network.checking import check_tensors
from kompakt.network.network import Network

FEWEST_AT_ONCE = 8
MOST_AT_ONCE = 64
_VALUES_AT_ONCE = 1 << 20

Batch = Tensor | Sequence[Any] | Mapping[str, Any]
"""The inputs of one forward pass: a tensor, a sequence (positional) or a mapping (by name)."""


class InputBinding:
    """How batches become the input tensors of a network.

    Args:
        network: The network that is calibrated.

    Attributes:
        names: Input names in placeholder order.
        batch_dims: For each input the dimension that runs over samples, or ``None``.
        batch_symbol: Symbol of the batch size in the shapes of the graph's nodes, where known.
        can_be_regrouped: Whether the network is known to take any number of samples at once.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network
        self.can_be_regrouped = isinstance(network, Network)
        placeholders = [node for node in network.graph.nodes if node.op == "placeholder"]
        self.names = [str(node.target) for node in placeholders]
        self.batch_dims: list[int | None] = [0] * len(placeholders)
        if isinstance(network, Network):
            self.names = [spec.name for spec in network.input_specs]
            self.batch_dims = [
                spec.shape.index("batch") if "batch" in spec.shape else None
                for spec in network.input_specs
            ]
            self.can_be_regrouped = None not in self.batch_dims
        self.batch_symbol = _symbol(placeholders, self.batch_dims)

    def tensors(self, batch: Batch, number: int) -> list[Tensor]:
        """The input tensors in placeholder order.

        Args:
            batch: The inputs, without labels.
            number: Number of the batch, counted from 0, for messages.

        Raises:
            DataError: K333 when the batch has other inputs than the network; K130–K133 when a
                Network refuses their structure, dtype or shape.
        """
        tensors = self._flat(batch)
        if tensors is None or len(tensors) != len(self.names):
            given = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else _kind(batch)
            raise DataError(
                "K333",
                f"calibration batch {number} with {given}",
                why=f"the network's inputs are {', '.join(self.names)}",
            )
        if isinstance(self.network, Network):
            check_tensors(self.network.interface, tensors)
        return tensors

    def samples(self, tensors: Sequence[Tensor], number: int) -> int:
        """Samples in a batch; 1 when no input has a batch dimension.

        Raises:
            DataError: K333 when inputs disagree, K330 when the batch is empty.
        """
        pairs = zip(tensors, self.batch_dims, strict=True)
        sizes = {x.shape[d] for x, d in pairs if d is not None and x.dim() > d}
        if len(sizes) > 1:
            raise DataError(
                "K333",
                f"calibration batch {number} with {' and '.join(map(str, sorted(sizes)))} samples",
                why="its inputs disagree about the number of samples",
            )
        if 0 in sizes or any(x.numel() == 0 for x in tensors):
            raise DataError("K330", f"calibration batch {number}", why="it holds no sample")
        return sizes.pop() if sizes else 1

    def part(self, tensors: Sequence[Tensor], start: int, count: int) -> list[Tensor]:
        """The samples ``start`` … ``start + count − 1``."""
        return [
            x if d is None else x.narrow(d, start, count)
            for x, d in zip(tensors, self.batch_dims, strict=True)
        ]

    def joined(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The samples of several batches in one."""
        if len(parts) == 1:
            return list(parts[0])
        columns = zip(zip(*parts, strict=True), self.batch_dims, strict=True)
        return [torch.cat(tensors, dim=d or 0) for tensors, d in columns]

    def fit_together(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
        """Whether two batches differ in nothing but their number of samples."""
        return all(
            x.dtype == y.dtype
            and x.device == y.device
            and x.dim() == y.dim()
            and all(x.shape[i] == y.shape[i] for i in range(x.dim()) if i != d)
            for x, y, d in zip(one, other, self.batch_dims, strict=True)
        )

    def samples_first(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """The inputs that run over samples, by name, with samples along dimension 0."""
        return {
            name: x.movedim(d, 0) if d else x
            for name, x, d in zip(self.names, tensors, self.batch_dims, strict=True)
            if d is not None and x.dim() > 0
        }

    def _flat(self, batch: Batch) -> list[Tensor] | None:
        if isinstance(batch, Tensor):
            return [batch]
        if isinstance(batch, Mapping):
            if set(batch) == set(self.names):
                values = [batch[name] for name in self.names]
                return values if _all_tensors(values) else None
            flatten: Any = getattr(self.network, "flatten_inputs", None)
            return list(flatten(**batch)) if flatten else None
        values = list(batch)
        if len(values) == len(self.names) and _all_tensors(values):
            return values
        flatten = getattr(self.network, "flatten_inputs", None)
        return list(flatten(*values)) if flatten else None


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What goes through the network at once.

    Attributes:
        tensors: Inputs in placeholder order.
        numbers: For each sample the number of the batch it came in, int64 ``(samples,)``.
    """

    tensors: list[Tensor]
    numbers: npt.NDArray[np.int64]

    @property
    def samples(self) -> int:
        """Samples in it."""
        return len(self.numbers)


def micro_batches(
    batches: Iterable[Batch], binding: InputBinding, size: int | None, max_samples: int | None
) -> Iterator[MicroBatch]:
    """Batches cut to at most ``size`` samples; whole batches are joined where ``size`` allows.

    Only a Network is known to take any number of samples; other graphs get batches as they come.
    Where float rounding of the network's kernels depends on the number of samples, statistics do
    too; so batches of more than half of ``size`` (of 8, when it is chosen) are never joined, and
    each gives the same statistics wherever it stands in the data.

    Args:
        batches: Inputs as they come.
        binding: How they become tensors.
        size: Samples to run at once, or ``None`` to choose by the size of the inputs.
        max_samples: Stop after this many samples.

    Raises:
        DataError: K330 for an empty batch, K333 and K130–K133 for one that does not fit.
    """
    waiting: list[MicroBatch] = []
    for piece in _limited(batches, binding, max_samples):
        joined = size or FEWEST_AT_ONCE
        if waiting and not _can_join(binding, waiting, piece, joined):
            yield _join(binding, waiting)
            waiting = []
        if binding.can_be_regrouped and piece.samples < joined:
            waiting.append(piece)
            continue
        # A batch is always cut the same way, whatever came before it.
        limit = piece.samples
        if binding.can_be_regrouped:
            limit = size or samples_at_once(piece.tensors, piece.samples)
        for start in range(0, piece.samples, limit):
            count = min(limit, piece.samples - start)
            yield MicroBatch(
                tensors=binding.part(piece.tensors, start, count), numbers=piece.numbers[:count]
            )
    if waiting:
        yield _join(binding, waiting)


def samples_at_once(tensors: Sequence[Tensor], samples: int) -> int:
    """How many samples of one batch to run at once: 8, of small images up to 64.

    Args:
        tensors: A batch.
        samples: How many samples it holds.
    """
    image_values = [x.numel() // samples for x in tensors if x.dim() >= 4]
    if not image_values:
        return FEWEST_AT_ONCE
    return min(MOST_AT_ONCE, max(FEWEST_AT_ONCE, _VALUES_AT_ONCE // max(image_values)))


def _limited(
    batches: Iterable[Batch], binding: InputBinding, max_samples: int | None
) -> Iterator[MicroBatch]:
    """Each batch as it comes, as tensors, until there are ``max_samples``."""
    seen = 0
    for number, batch in enumerate(batches):
        tensors = binding.tensors(batch, number)
        samples = binding.samples(tensors, number)
        if max_samples is not None and seen + samples > max_samples:
            samples = max_samples - seen
            tensors = binding.part(tensors, 0, samples)
        seen += samples
        yield MicroBatch(tensors=tensors, numbers=np.full(samples, number))
        if max_samples is not None and seen >= max_samples:
            return


def _can_join(
    binding: InputBinding, waiting: Sequence[MicroBatch], piece: MicroBatch, limit: int
) -> bool:
    together = sum(w.samples for w in waiting) + piece.samples
    return together <= limit and binding.fit_together(waiting[-1].tensors, piece.tensors)


def _join(binding: InputBinding, parts: Sequence[MicroBatch]) -> MicroBatch:
    return MicroBatch(
        tensors=binding.joined([part.tensors for part in parts]),
        numbers=np.concatenate([part.numbers for part in parts]),
    )


def _kind(batch: Batch) -> str:
    name = type(batch).__name__
    return f"a {name} of {len(batch)}" if isinstance(batch, Sequence) else f"a {name}"


def _all_tensors(values: Sequence[Any]) -> bool:
    return all(isinstance(value, Tensor) for value in values)


def _symbol(placeholders: Sequence[fx.Node], batch_dims: Sequence[int | None]) -> str | None:
    for node, dim in zip(placeholders, batch_dims, strict=True):
        value = node.meta.get("val")
        if dim is None or not isinstance(value, Tensor) or value.dim() <= dim:
            continue
        size = value.shape[dim]
        if isinstance(size, torch.SymInt):
            return str(size.node.expr)
    return None
