"""Operators that keep a network's structure visible to exporters.

``kompakt::global_average_pool`` is the mean over all spatial dimensions. ``torch.onnx`` would write
such a mean as ReduceMean, which no runtime fuses into its integer kernels; as one operator it is
written as GlobalAveragePool.

``kompakt::rnn`` stands for a whole recurrent layer while a model is exported: PyTorch would unroll
it over time and fix the sequence length. In a Network the call is the real ``nn`` layer again.

Importing this file registers both; importing it twice does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def global_average_pool(x_NCs: Tensor) -> Tensor:
    """Mean over every spatial dimension, which are kept with size 1.

    Args:
        x_NCs: Shape (N, C, ...) with at least one spatial dimension; floating point.

    Returns:
        Shape (N, C, 1, ...), equal to ``x.mean(dims, keepdim=True)`` to the bit.
    """
    return x_NCs.mean(tuple(range(2, x_NCs.ndim)), keepdim=True)


def rnn_shapes(
    x: Tensor, hidden: int, layers: int, directions: int, batch_first: bool, projection: int
) -> tuple[list[int | torch.SymInt], list[int | torch.SymInt], list[int | torch.SymInt]]:
    """Shapes of a recurrent layer's output, last hidden state and last cell state.

    Args:
        x: Input, (time, batch, features), (batch, time, features) or (time, features) without a
            batch.
        hidden: Size of the hidden state.
        layers: Number of stacked layers.
        directions: 1, or 2 when bidirectional.
        batch_first: Whether the batch comes before time.
        projection: Size of the projected hidden state, 0 for none.
    """
    batch = [] if x.ndim == 2 else [x.shape[0] if batch_first else x.shape[1]]
    width = projection or hidden
    output = [*x.shape[:-1], directions * width]
    return output, [layers * directions, *batch, width], [layers * directions, *batch, hidden]


def _rnn_fake(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    path: str,
    mode: str,
    hidden: int,
    layers: int,
    directions: int,
    batch_first: bool,
    projection: int,
) -> list[Tensor]:
    shapes = rnn_shapes(x, hidden, layers, directions, batch_first, projection)
    return [x.new_empty(shape) for shape in shapes[: 3 if mode == "LSTM" else 2]]


def rnn(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    path: str,
    mode: str,
    hidden: int,
    layers: int,
    directions: int,
    batch_first: bool,
    projection: int,
) -> list[Tensor]:
    """A recurrent layer in eval mode: output, last hidden state and, for an LSTM, last cell state.

    Args:
        x: (time, batch, features), (batch, time, features) when ``batch_first``, or (time,
            features).
        states: Initial hidden (and cell) state, (layers * directions, batch, hidden); empty for
            zeros.
        weights: The layer's flat weights in PyTorch's order.
        path: Name of the layer in its network.
        mode: ``LSTM``, ``GRU``, ``RNN_TANH`` or ``RNN_RELU``.
        hidden: Size of the hidden state.
        layers: Number of stacked layers.
        directions: 1, or 2 when bidirectional.
        batch_first: Whether the batch comes before time.
        projection: Size of the projected hidden state, 0 for none.
    """
    cells: dict[str, Callable[..., Any]] = {
        "LSTM": torch.lstm,
        "GRU": torch.gru,
        "RNN_TANH": torch.rnn_tanh,
        "RNN_RELU": torch.rnn_relu,
    }
    per_direction = len(weights) // (layers * directions) - (1 if projection else 0)
    settings = (per_direction == 4, layers, 0.0, False, directions == 2, batch_first)
    batched = x.ndim == 3
    if not batched:
        x, states = x.unsqueeze(0 if batch_first else 1), [s.unsqueeze(1) for s in states]
    if not states:
        _, *shapes = rnn_shapes(x, hidden, layers, directions, batch_first, projection)
        states = [x.new_zeros(shape) for shape in shapes]
    first = list(states) if mode == "LSTM" else states[0]
    output: Tensor
    output, *last = cells[mode](x, first, list(weights), *settings)
    if not batched:
        output, last = output.squeeze(0 if batch_first else 1), [s.squeeze(1) for s in last]
    return [output, *last]


def _pool_backward(ctx: Any, gradient: Tensor) -> Tensor:
    count = math.prod(ctx.shape[2:])
    spread: Tensor = (gradient / count).expand(ctx.shape)
    return spread


def _pool_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.shape = inputs[0].shape


_SCHEMAS = {
    "global_average_pool": "(Tensor x) -> Tensor",
    "rnn": "(Tensor x, Tensor[] states, Tensor[] weights, str path, str mode, int hidden, "
    "int layers, int directions, bool batch_first, int projection) -> Tensor[]",
}


def _register() -> None:
    pool: Callable[..., Any] = global_average_pool
    kernels = {"global_average_pool": pool, "rnn": rnn}
    shapes = {"global_average_pool": pool, "rnn": _rnn_fake}
    for name, schema in _SCHEMAS.items():
        torch.library.define(f"kompakt::{name}", schema)
        torch.library.impl(f"kompakt::{name}", "CompositeExplicitAutograd", kernels[name])
        torch.library.register_fake(f"kompakt::{name}", shapes[name])
    torch.library.register_autograd(
        "kompakt::global_average_pool", _pool_backward, setup_context=_pool_context
    )


if not hasattr(torch.ops.kompakt, "global_average_pool"):
    _register()
