"""Recurrent layers written as ONNX operators: equal outputs at other lengths and batch sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kompakt.network.capture import capture
from kompakt.targets.onnx_files import MODEL_FILE
from kompakt.targets.onnxruntime import load, write


class Reader(nn.Module):
    def __init__(self, kind: Any, *, states: bool = False, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(5, 7, **options)
        self.states = states

    def forward(self, x: Tensor) -> Any:
        output, last = self.rnn(x)
        return (output, last) if self.states else output


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "lstm": (nn.LSTM, {"batch_first": True, "states": True}),
    "lstm, two layers, both directions": (
        nn.LSTM,
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "states": True},
    ),
    "lstm, no bias": (nn.LSTM, {"bias": False, "batch_first": True}),
    "gru": (nn.GRU, {"batch_first": True, "states": True}),
    "gru, two layers, both directions": (
        nn.GRU,
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "states": True},
    ),
    "rnn": (nn.RNN, {"batch_first": True}),
    "rnn, relu": (nn.RNN, {"nonlinearity": "relu", "batch_first": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_pytorch_at_every_length(name: str) -> None:
    kind, options = CASES[name]
    torch.manual_seed(0)
    model = Reader(kind, **options).eval()
    network = capture(model, torch.randn(2, 6, 5), dynamic={"x": {1: "time"}})
    session = load(write(network).files[MODEL_FILE])
    for batch, time in ((2, 6), (3, 11), (1, 1)):
        x = torch.randn(batch, time, 5)
        expected = [t.detach().numpy() for t in network.flatten_outputs(model(x))]
        got = list(session({"x": x.numpy()}).values())
        assert len(got) == len(expected)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_time_first() -> None:
    model = Reader(nn.LSTM).eval()
    network = capture(model, torch.randn(6, 2, 5), batch_dim=1)
    session = load(write(network).files[MODEL_FILE])
    x = torch.randn(6, 3, 5)
    np.testing.assert_allclose(
        next(iter(session({"x": x.numpy()}).values())), model(x).detach().numpy(), atol=2e-6
    )
