"""The layer table: names, shapes, parameters, bytes and MACs, checked against known counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.network.capture import capture
from kompakt.network.layers import layers, totals

COUNTS = {
    "conv2d": (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 16, 16), 8 * 8 * 8 * 3 * 9),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), (8, 6, 6), 8 * 4 * 4 * 9),
    "conv1d": (nn.Conv1d(2, 4, 5), (2, 9), 4 * 5 * 2 * 5),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 3, 3), 4 * 9 * 6 * 4),
    "linear": (nn.Linear(7, 5), (7,), 35),
    "linear on a sequence": (nn.Linear(7, 5), (3, 7), 105),
    "lstm": (nn.LSTM(3, 4, batch_first=True), (6, 3), 6 * 4 * 4 * (3 + 4)),
    "norm": (nn.LayerNorm(4), (4,), 0),
}


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("name", COUNTS)
def test_macs_of_layers_are_for_one_sample(name, batch):
    layer, shape, macs = COUNTS[name]
    network = capture(nn.Sequential(layer).eval(), torch.randn(batch, *shape))
    (row,) = layers(network)
    assert row.macs == macs
    assert row.name == "0"
    assert row.parameters == sum(p.numel() for p in layer.parameters())
    assert row.bytes == 4 * row.parameters
    assert row.module_type == type(layer).__name__
    assert row.input_shape == ("batch", *shape)
    assert row.output_shape[0] == "batch"


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.position = nn.Parameter(torch.zeros(1, 1, 8))
        self.shared = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.position
        q = self.shared(self.shared(x)).unsqueeze(1)
        x = nn.functional.scaled_dot_product_attention(q, q, q).squeeze(1)
        return self.head(x @ (x.transpose(1, 2) @ x))


def test_a_whole_network():
    model = Mixed().eval()
    network = capture(model, torch.randint(0, 10, (2, 5)), dynamic={"ids": {1: "time"}})
    rows = {row.name: row for row in layers(network)}
    assert list(rows) == [
        "embedding", "position", "shared", "attention", "matmul", "matmul_1", "head"
    ]  # fmt: skip
    assert rows["shared"].nodes == ("shared", "shared_1")
    assert rows["shared"].macs == 2 * 5 * 64
    assert rows["attention"].macs == 5 * 5 * (8 + 8)
    assert rows["matmul"].macs == 8 * 8 * 5
    assert rows["position"].kind == "constant"
    assert rows["position"].parameters == 8
    assert rows["embedding"].macs == 0
    assert rows["shared"].input_shape == ("batch", "time", 8)
    total = totals(network)
    assert total.parameters == sum(p.numel() for p in model.parameters()), "tied weights count once"
    assert total.bytes == 4 * total.parameters
    assert total.macs == sum(row.macs for row in rows.values())


def test_formulas_keep_names():
    class Stretch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.cat([x, x], 1))

    network = capture(Stretch().eval(), torch.randn(2, 3, 4), dynamic={"x": {1: "time"}})
    (row,) = layers(network)
    assert row.output_shape == ("batch", "2*time", 4)
    assert row.macs == 6 * 16
