"""From a batch as it comes to the tensors of one forward pass.

Large batches are cut into small ones: activations of a few images fit into the processor's cache, those of
dozens do not, and nothing that is observed depends on the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from kompakt.errors import DataError
from kompakt.network.checking import check_tensors
from kompakt.network.network import Network

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
    """

    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network
        placeholders = [node for node in network.graph.nodes if node.op == "placeholder"]
        self.names = [str(node.target) for node in placeholders]
        self.batch_dims: list[int | None] = [0] * len(placeholders)
        if isinstance(network, Network):
            self.names = [spec.name for spec in network.input_specs]
            self.batch_dims = [
                spec.shape.index("batch") if "batch" in spec.shape else None
                for spec in network.input_specs
            ]
        self.batch_symbol = _symbol(placeholders, self.batch_dims)

    def tensors(self, batch: Batch, number: int) -> list[Tensor]:
        """The input tensors in placeholder order.

        Args:
            batch: The inputs, without labels.
            number: Number of the batch, counted from 0, for messages.

        Raises:
            DataError: K333 when the batch has other inputs than the network; K130–K133 when a Network
                refuses their structure, dtype or shape.
        """
        tensors = self._flat(batch)
        if tensors is None or len(tensors) != len(self.names):
            given = list(batch) if isinstance(batch, Mapping) else f"{type(batch).__name__}"
            raise DataError(
                "K333",
                f"batch {number}: {given}",
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
                f"batch {number} with {' and '.join(map(str, sorted(sizes)))} samples",
                why="its inputs disagree about the number of samples",
            )
        if 0 in sizes or any(x.numel() == 0 for x in tensors):
            raise DataError("K330", f"batch {number}", why="it holds no sample")
        return sizes.pop() if sizes else 1

    def pieces(self, tensors: Sequence[Tensor], samples: int, size: int) -> Iterator[list[Tensor]]:
        """The batch in pieces of at most ``size`` samples; whole when it cannot be cut."""
        if samples <= size or any(d is None for d in self.batch_dims):
            yield list(tensors)
            return
        for start in range(0, samples, size):
            count = min(size, samples - start)
            yield self.first(tensors, count, start)

    def first(self, tensors: Sequence[Tensor], count: int, start: int = 0) -> list[Tensor]:
        """The samples ``start`` … ``start + count − 1``."""
        return [
            x if d is None else x.narrow(d, start, count)
            for x, d in zip(tensors, self.batch_dims, strict=True)
        ]

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
