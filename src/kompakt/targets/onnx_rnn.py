"""Recurrent layers in ONNX: one ``LSTM``, ``GRU`` or ``RNN`` operator for each stacked layer.

PyTorch and ONNX order the gates differently (LSTM: input, forget, cell, output against input, output, forget,
cell; GRU: reset, update, new against update, reset, new), so weights are reordered by constant operators that
runtimes fold when they load the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxscript import opset21

from kompakt.errors import TargetError

op: Any = opset21
"""Untyped: its stubs know concrete element types only."""

_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}
_BATCH_SECOND = (1, 0, 2)


def translate_rnn(
    x: Any,
    states: Sequence[Any],
    weights: Sequence[Any],
    path: str,
    mode: str,
    hidden: int,
    layers: int,
    directions: int,
    batch_first: bool,
    projection: int,
) -> tuple[Any, ...]:
    """``kompakt::rnn`` in ONNX; see :func:`kompakt.network.ops.rnn` for the arguments.

    Raises:
        TargetError: K401 for projected hidden states, which ONNX cannot express.
    """
    if projection:
        raise TargetError(
            "K401",
            f"writing the recurrent layer {path} as ONNX",
            why="ONNX knows no projection of the hidden state (proj_size)",
        )
    batched = x.shape is None or len(x.shape) == 3
    sequence = x if batched else op.Unsqueeze(x, op.Constant(value_ints=[1]))
    sequence = op.Transpose(sequence, perm=_BATCH_SECOND) if batched and batch_first else sequence
    starts = [_per_layer(state, layers, batched) for state in states]
    size = len(weights) // (layers * directions)
    ends: list[list[Any]] = [[], []]
    for layer in range(layers):
        groups = [
            weights[(layer * directions + d) * size : (layer * directions + d + 1) * size]
            for d in range(directions)
        ]
        results = _layer(sequence, groups, [s[layer] for s in starts], mode, hidden)
        sequence = _joined(results[0], directions)
        for place, end in enumerate(results[1:]):
            ends[place].append(end)
    if not batched:
        sequence = op.Squeeze(sequence, op.Constant(value_ints=[1]))
    elif batch_first:
        sequence = op.Transpose(sequence, perm=_BATCH_SECOND)
    final = [_stacked(values, batched) for values in ends if values]
    return (sequence, *final)


def _layer(
    x: Any, groups: Sequence[Sequence[Any]], starts: Sequence[Any], mode: str, hidden: int
) -> tuple[Any, ...]:
    """One layer in both directions: output (time, directions, batch, hidden) and last states."""
    gates = _GATES[mode]
    inputs = [_directions([_reordered(g[place], gates) for g in groups]) for place in (0, 1)]
    biases = [
        op.Concat(_reordered(g[2], gates), _reordered(g[3], gates), axis=0)
        for g in groups
        if len(g) == 4
    ]
    bias = _directions(biases) if biases else None
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if len(groups) == 2 else "forward",
    }
    first = starts[0] if starts else None
    if mode == "LSTM":
        cell = starts[1] if len(starts) > 1 else None
        return tuple(op.LSTM(x, *inputs, bias, None, first, cell, **attributes))
    if mode == "GRU":
        return tuple(op.GRU(x, *inputs, bias, None, first, linear_before_reset=1, **attributes))
    activation = "Relu" if mode == "RNN_RELU" else "Tanh"
    attributes["activations"] = [activation] * len(groups)
    return tuple(op.RNN(x, *inputs, bias, None, first, **attributes))


def _reordered(value: Any, gates: tuple[int, ...]) -> Any:
    """The blocks of a weight or bias, stacked along its first axis, in another order."""
    if len(gates) == 1:
        return value
    blocks = op.Split(value, axis=0, num_outputs=len(gates))
    return op.Concat(*(blocks[gate] for gate in gates), axis=0)


def _directions(values: Sequence[Any]) -> Any:
    """Values of each direction, stacked along a new first axis."""
    lifted = [op.Unsqueeze(v, op.Constant(value_ints=[0])) for v in values]
    return lifted[0] if len(lifted) == 1 else op.Concat(*lifted, axis=0)


def _joined(output: Any, directions: int) -> Any:
    """(time, directions, batch, hidden) to (time, batch, directions · hidden)."""
    axis = op.Constant(value_ints=[1])
    if directions == 1:
        return op.Squeeze(output, axis)
    parts = op.Split(output, axis=1, num_outputs=directions)
    return op.Concat(*(op.Squeeze(part, axis) for part in parts), axis=2)


def _per_layer(state: Any, layers: int, batched: bool) -> list[Any]:
    """Initial states (layers · directions, batch, hidden), cut into layers."""
    state = state if batched else op.Unsqueeze(state, op.Constant(value_ints=[1]))
    return [state] if layers == 1 else list(op.Split(state, axis=0, num_outputs=layers))


def _stacked(values: Sequence[Any], batched: bool) -> Any:
    """Last states of all layers, (layers · directions, batch, hidden)."""
    last = values[0] if len(values) == 1 else op.Concat(*values, axis=0)
    return last if batched else op.Squeeze(last, op.Constant(value_ints=[1]))
