"""Many architectures as tiny random instances, by name: what ``capture`` is tried on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.architecture import Architecture
from benchmarks.zoo_language import LANGUAGE
from benchmarks.zoo_speech import SPEECH
from benchmarks.zoo_vision import VISION


class _Recurrent(nn.Module):
    """A recurrent layer and a head, batch first."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = cell(8, 16, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 8) to (B, T, 5)."""
        return self.head(self.rnn(x)[0])


def _recurrent(cell: type[nn.RNNBase]) -> Architecture:
    return Architecture(
        build=lambda: _Recurrent(cell),
        inputs=lambda batch, length: {"x": torch.randn(batch, length, 8)},
        lengths=(9, 5),
        dynamic={"x": {1: "time"}},
    )


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


PYTORCH: dict[str, Architecture] = {
    "nn.TransformerEncoder": Architecture(
        build=_encoder,
        inputs=lambda batch, length: {"src": torch.randn(batch, length, 32)},
        lengths=(7, 12),
        dynamic={"src": {1: "time"}},
    ),
    "nn.Transformer": Architecture(
        build=lambda: nn.Transformer(32, 4, 2, 2, 64, batch_first=True),
        inputs=lambda batch, length: {
            "src": torch.randn(batch, length, 32),
            "tgt": torch.randn(batch, length + 1, 32),
        },
        lengths=(7, 12),
        dynamic={"src": {1: "source"}, "tgt": {1: "target"}},
    ),
    "nn.LSTM": _recurrent(nn.LSTM),
    "nn.GRU": _recurrent(nn.GRU),
}

ARCHITECTURES: dict[str, Architecture] = {**PYTORCH, **VISION, **LANGUAGE, **SPEECH}
