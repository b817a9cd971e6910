"""Second moments of what layers multiply: the Gram matrices that second-order methods decide weights with.

A convolution is a matrix product of its weight with patches of its input; with G groups it is G such products. So every
layer is looked at as G matrices of shape (outputs, K) that multiply rows of K numbers, and its input as such rows. The
network runs twice side by side, in float and as it is deployed so far, and the rows of both are summed batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.nn import functional as F

from kompakt.errors import DataError
from kompakt.network.network import Network

CHUNK = 4_000_000
"""Numbers of unfolded patches held at once."""
ROWS_PER_COLUMN = 64
"""More rows than so many times their length say nothing new; of longer inputs every n-th row is taken."""
HELD_OUT = 8
"""Every so-manieth sample is kept to choose by."""


class Pair:
    """Runs the placed and the float network node by node and keeps only what is still needed.

    Attributes:
        size: Samples in the batch.
    """

    def __init__(self, placed: Network, reference: Network, inputs: Sequence[Tensor]) -> None:
        self.size = len(inputs[0])
        self._rounded, self._exact = fx.Interpreter(placed), fx.Interpreter(reference)
        self._rounded.args_iter, self._exact.args_iter = iter(list(inputs)), iter(list(inputs))
        self._uses = {n: len(n.users) for n in (*placed.graph.nodes, *reference.graph.nodes)}
        self._twins = {n.name: n for n in reference.graph.nodes}

    def run(self, node: Node) -> None:
        """Compute a node of the placed network, and its twin in the float network."""
        twin = self._twins.get(node.name)
        for walker, here in ((self._rounded, node), (self._exact, twin)):
            if here is not None and here.op != "output":
                walker.env[here] = walker.run_node(here)
                _release(here, self._uses, walker.env)

    def inputs(self, node: Node) -> tuple[Tensor, Tensor]:
        """What a layer reads: in the placed network, and in the float one."""
        return self._rounded.env[node.args[0]], self._exact.env[self._twins[node.name].args[0]]  # type: ignore[index]


def _release(node: Node, uses: dict[Node, int], env: dict[Node, Any]) -> None:
    for source in node.all_input_nodes:
        uses[source] -= 1
        if uses[source] == 0:
            env.pop(source, None)


def as_matrices(weight: Tensor, groups: int) -> Tensor:
    """A weight (O, …) as the matrices that multiply rows: (G, O / G, K); a view."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def rows_of(layer: nn.Module, x: Tensor) -> Tensor:
    """The rows that a linear layer or convolution multiplies its weights with.

    Args:
        layer: The layer.
        x: Its input: (…, I), or (N, C, …) for a convolution.

    Returns:
        (G, rows, K), ordered by sample; K runs through a weight's own axes (channels, then kernel positions).
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=str(mode))  # type: ignore[arg-type]
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), 2):  # type: ignore[arg-type]
        # (…, positions, …, taps): a window of the whole reach, of which every gap-th number is read.
        x = x.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    dims, groups = len(kernel), int(layer.groups)  # type: ignore[arg-type]
    channels = x.shape[1] // groups
    x = x.reshape(len(x), groups, channels, *x.shape[2:])
    positions, taps = range(3, 3 + dims), range(3 + dims, 3 + 2 * dims)
    x = x.permute(1, 0, *positions, 2, *taps)
    return x.reshape(groups, -1, channels * x.shape[-dims:].numel())


@dataclass(frozen=True)
class Moments:
    """Averages over rows x of the layer's own input and z of the float network's, for each of G groups.

    Attributes:
        gram: E[x xᵀ], float64, (G, K, K).
        cross: E[z xᵀ], the same shape.
        mean: E[x], (G, K).
        exact_mean: E[z], (G, K).
        rows: How many rows.
    """

    gram: Tensor
    cross: Tensor
    mean: Tensor
    exact_mean: Tensor
    rows: int

    def centred(self) -> Moments:
        """The same about the means: what is left for weights to do where a bias takes care of the means."""
        gram = self.gram - self.mean[:, :, None] * self.mean[:, None, :]
        cross = self.cross - self.exact_mean[:, :, None] * self.mean[:, None, :]
        none = torch.zeros_like(self.mean)
        return Moments(gram, cross, none, none, self.rows)

    def error(self, exact: Tensor, rounded: Tensor) -> float:
        """E‖exact·z − rounded·x‖² without the part that does not depend on ``rounded``.

        Args:
            exact: Float weights (G, O / G, K).
            rounded: Other weights.
        """
        rounded = rounded.double()
        own = ((rounded @ self.gram) * rounded).sum()
        return float(own - 2 * ((exact.double() @ self.cross) * rounded).sum())


@dataclass
class _Sums:
    gram: Tensor | float = 0.0
    cross: Tensor | float = 0.0
    mean: Tensor | float = 0.0
    exact_mean: Tensor | float = 0.0
    rows: int = 0

    def add(self, x: Tensor, z: Tensor) -> None:
        self.gram = self.gram + (x.mT @ x).double()
        self.cross = self.cross + (z.mT @ x).double()
        self.mean = self.mean + x.sum(1, dtype=torch.float64)
        self.exact_mean = self.exact_mean + z.sum(1, dtype=torch.float64)
        self.rows += x.shape[1]

    def average(self) -> Moments:
        sums = (self.gram, self.cross, self.mean, self.exact_mean)
        gram, cross, mean, exact_mean = (torch.as_tensor(s) / self.rows for s in sums)
        return Moments(gram, cross, mean, exact_mean, self.rows)


def moments_of(layer: nn.Module, node: Node, pairs: Sequence[Pair]) -> tuple[Moments, Moments]:
    """Second moments of a layer's input, on most samples and on the held-out ones.

    With fewer than :data:`HELD_OUT` samples, rows are held out instead; with fewer rows than that, none are.

    Args:
        layer: A linear layer or a convolution.
        node: Its call in the placed network, not yet run.
        pairs: One for each batch, run up to it.

    Raises:
        DataError: K350 when a number that the layer reads is not finite.
    """
    samples, seen = sum(pair.size for pair in pairs), 0
    fit, check = _Sums(), _Sums()
    generator = torch.Generator().manual_seed(0)
    for pair in pairs:
        for x, z, count in _chunks(layer, *pair.inputs(node), pair.size):
            rows = x.shape[1]
            if samples < HELD_OUT or rows % count:
                count = rows
            number = seen + torch.arange(rows) // (rows // count)
            held = number % HELD_OUT == HELD_OUT - 1
            most = -(-ROWS_PER_COLUMN * x.shape[2] * count // samples)
            for sums, chosen in ((fit, ~held), (check, held)):
                picked = torch.nonzero(chosen)[:, 0]
                if rows > most and len(picked):
                    order = torch.randperm(len(picked), generator=generator)
                    picked = picked[order[: -(-most * len(picked) // rows)]]
                sums.add(x[:, picked], z[:, picked])
            seen += count
    found = fit.average(), (check if check.rows else fit).average()
    if not all(bool(m.gram.isfinite().all() and m.cross.isfinite().all()) for m in found):
        raise DataError(
            "K350",
            "second moments of a layer's input",
            where=str(node.target),
            why="a number it reads on the calibration samples is NaN or infinite",
        )
    return found


def _chunks(
    layer: nn.Module, x: Tensor, z: Tensor, size: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Rows of a batch in pieces that fit memory, with the number of samples in each."""
    if isinstance(layer, nn.Linear):
        yield rows_of(layer, x), rows_of(layer, z), size
        return
    assert isinstance(layer.weight, Tensor)
    largest = x[0].numel() * layer.weight[0, 0].numel()
    step = max(1, CHUNK // largest)
    for start in range(0, len(x), step):
        part = x[start : start + step]
        yield rows_of(layer, part), rows_of(layer, z[start : start + step]), len(part)


__all__ = ["Moments", "Pair", "as_matrices", "moments_of", "rows_of"]
