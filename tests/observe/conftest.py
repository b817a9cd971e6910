"""Two small networks that calibration tests run on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.network.capture import capture
from kompakt.network.network import Network


class Images(nn.Module):
    """Depthwise and pointwise convolutions, a residual add, a flatten that is a view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1)
        self.bn = nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, 1, 1, groups=24)
        self.pointwise = nn.Conv2d(24, 24, 1)
        self.head = nn.Linear(24 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(x + self.pointwise(nn.functional.relu6(self.depthwise(x))))
        x = nn.functional.adaptive_avg_pool2d(x, 4)
        return self.head(x.view(x.shape[0], -1))


class Words(nn.Module):
    """Embedding, attention, two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor, weight: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(ids)) * weight[..., None])


@pytest.fixture(scope="session")
def images() -> Network:
    torch.manual_seed(0)
    model = Images()
    with torch.no_grad():
        model.stem.weight[5] = 0.0
        model.stem.bias[5] = 0.0
        model.bn.bias[5] = -1.0
    return capture(model.eval(), torch.randn(2, 3, 32, 32))


@pytest.fixture(scope="session")
def words() -> Network:
    torch.manual_seed(0)
    example = {"ids": torch.randint(0, 50, (2, 6)), "weight": torch.rand(2, 6)}
    lengths = {"ids": {1: "length"}, "weight": {1: "length"}}
    return capture(Words().eval(), example, dynamic=lengths)
