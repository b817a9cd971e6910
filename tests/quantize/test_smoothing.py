"""Smoothing changes no result, evens out the channels that linear layers read, and adds no operator needlessly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.quantize.smoothing import smooth
from kompakt.schemes import w8a8

from ..nets import ISA, ONNXRUNTIME, Batch, deploy

RULES = ONNXRUNTIME.rules(ISA)


def outliers(size: int = 16) -> Tensor:
    """One channel a hundred times larger than the others."""
    found = torch.ones(size)
    found[3] = 100.0
    return found


class Outliers(nn.Module):
    """Two linear layers on one tensor with an outlier channel, which a residual reads as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.register_buffer("size", outliers())
        with torch.no_grad():
            for layer in (self.a, self.b):
                layer.weight[:, 3] /= 100.0  # every channel matters alike

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(x) * self.size
        return self.c(torch.sigmoid(self.a(y)) + torch.sigmoid(self.b(y)) + y / 100.0)


class Attention(nn.Module):
    """A pre-norm block: norm and values have outlier channels, and nothing else reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.norm.weight.mul_(outliers())
            self.v.weight[3] *= 100.0
            for layer in (self.q, self.k, self.v):
                layer.weight[:, 3] /= 100.0
            self.out.weight[:, 3] /= 100.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        b, t, c = y.shape
        q, k, v = (
            layer(y).reshape(b, t, 2, c // 2).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c)
        return self.head(torch.sigmoid(x + self.out(mixed)))


def network_of(model: nn.Module, x: Tensor) -> Network:
    return inference_form(capture(model.eval(), x))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def float_network(x: Tensor) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network_of(Outliers(), x)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randn(8, 6, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def block(tokens: Tensor) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network_of(Attention(), tokens)


def smoothed_sites(network: Network) -> set[str]:
    sites = (str(n.meta.get("site")) for n in network.graph.nodes)
    return {site.removesuffix(".smoothed") for site in sites if site.endswith(".smoothed")}


def error(network: Network, reference: Network, x: Tensor) -> float:
    """Of the outputs, simulated."""
    placed = deploy(network, [Batch({"x": x}, None, len(x))], w8a8()).placed
    with torch.no_grad():
        return float((placed(x) - reference(x)).norm())


def test_the_result_stays_and_the_network_given_too(float_network: Network, x: Tensor) -> None:
    before = {name: value.clone() for name, value in float_network.state_dict().items()}
    smoothed, count = smooth(float_network, w8a8(), RULES, [[x]])
    assert count >= 1
    with torch.no_grad():
        assert torch.allclose(smoothed(x), float_network(x), atol=1e-4)
    assert all(
        torch.equal(value, before[name]) for name, value in float_network.state_dict().items()
    )


def test_layers_that_read_one_tensor_share_a_multiplication(
    float_network: Network, x: Tensor
) -> None:
    smoothed, _ = smooth(float_network, w8a8(), RULES, [[x]])
    divided = [n for n in smoothed.graph.nodes if str(n.meta.get("site")).endswith(".smoothed")]
    assert [len(node.users) for node in divided] == [2]


def test_less_is_lost_to_rounding(float_network: Network, x: Tensor) -> None:
    smoothed, _ = smooth(float_network, w8a8(), RULES, [[x]])
    assert error(smoothed, float_network, x) < 0.7 * error(float_network, float_network, x)


def test_norms_and_attention_take_the_factors_in(block: Network, tokens: Tensor) -> None:
    smoothed, count = smooth(block, w8a8(), RULES, [[tokens]])
    assert count >= 2  # before q, k and v; before out
    assert not smoothed_sites(smoothed)
    assert len(smoothed.graph.nodes) == len(block.graph.nodes)
    norm, before = (n.get_submodule("norm").weight for n in (smoothed, block))
    assert norm.abs().amax() < 0.2 * before.abs().amax()
    with torch.no_grad():
        assert torch.allclose(smoothed(tokens), block(tokens), atol=1e-4)
    assert error(smoothed, block, tokens) < 0.5 * error(block, block, tokens)


def test_values_with_their_heads_mixed_up_are_left_alone(tokens: Tensor) -> None:
    class Mixed(Attention):
        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            v = self.v(y).reshape(*y.shape[:2], 2, 8).transpose(2, 3).reshape(y.shape)
            return self.head(torch.sigmoid(x + self.out(v)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network_of(Mixed(), tokens)
    smoothed, _ = smooth(network, w8a8(), RULES, [[tokens]])
    with torch.no_grad():
        assert torch.allclose(smoothed(tokens), network(tokens), atol=1e-4)


def test_layers_left_in_float_and_no_samples_change_nothing(
    float_network: Network, x: Tensor
) -> None:
    kept = w8a8(keep_float=("a", "b"))
    assert not smoothed_sites(smooth(float_network, kept, RULES, [[x]])[0])
    assert smooth(float_network, w8a8(), RULES, [])[1] == 0


def test_the_strength_is_searched(float_network: Network, x: Tensor) -> None:
    """No fixed strength is better than the searched one by more than the search's steps."""
    smoothed, _ = smooth(float_network, w8a8(), RULES, [[x]])
    multiplied = next(b for name, b in smoothed.named_buffers() if name.startswith("smoothing_"))
    assert float(multiplied.amax() / multiplied.amin()) > 10  # most of the factor of 100
    assert {kind_of(n) for n in smoothed.graph.nodes} >= {"mul"}
