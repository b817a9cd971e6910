"""Smoothing changes no result and evens out the channels that linear layers read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.quantize.smoothing import smooth
from kompakt.schemes import w8a8

from ..nets import Batch, deploy


class Outliers(nn.Module):
    """Two linear layers on one tensor with a channel a hundred times larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.size = nn.Parameter(torch.ones(16))
        with torch.no_grad():
            self.size[3] = 100.0
            for layer in (self.a, self.b):
                layer.weight[:, 3] /= 100.0  # every channel matters alike

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(x) * self.size
        return self.c(torch.sigmoid(self.a(y)) + torch.sigmoid(self.b(y)))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def float_network(x: Tensor) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return inference_form(capture(Outliers().eval(), x))


def test_the_result_stays_and_the_network_given_too(float_network: Network, x: Tensor) -> None:
    before = {name: value.clone() for name, value in float_network.state_dict().items()}
    smoothed = smooth(float_network, [{"x": x}])
    with torch.no_grad():
        assert torch.allclose(smoothed(x), float_network(x), atol=1e-4)
    assert all(
        torch.equal(value, before[name]) for name, value in float_network.state_dict().items()
    )


def test_layers_that_read_one_tensor_share_their_factors(float_network: Network, x: Tensor) -> None:
    smoothed = smooth(float_network, [{"x": x}])
    factors = [name for name, _ in smoothed.named_buffers() if name.startswith("smoothing_")]
    assert len(factors) == 2
    divided = [n for n in smoothed.graph.nodes if str(n.meta.get("site")).endswith(".smoothed")]
    assert sorted(len(node.users) for node in divided) == [1, 2]


def test_less_is_lost_to_rounding(float_network: Network, x: Tensor) -> None:
    def error(network: Network) -> float:
        placed = deploy(network, [Batch({"x": x}, None, len(x))], w8a8()).placed
        with torch.no_grad():
            return float((placed(x) - float_network(x)).norm())

    assert error(smooth(float_network, [{"x": x}])) < 0.7 * error(float_network)
