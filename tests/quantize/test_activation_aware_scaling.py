"""Columns that meet large activations are rounded finely; the network computes what it did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.quantize.activation_aware_scaling import scale_by_activations
from kompakt.schemes import Scheme, w4, w8a8

from ..nets import ONNXRUNTIME, Net, ranged

RULES = ONNXRUNTIME.rules("x86-vnni")


def decoder() -> nn.Module:
    """A norm that only linear layers read, and a gate: both can take factors."""
    torch.manual_seed(3)
    net = Net(
        _block,
        norm=nn.LayerNorm(64),
        gate=nn.Linear(64, 96),
        up=nn.Linear(64, 96),
        down=nn.Linear(96, 64),
    )
    with torch.no_grad():
        net.norm.weight[::32] *= 25  # a few channels are far larger than the others
    return net.eval()


def _block(s: Any, x: Tensor) -> Tensor:
    h = s.norm(x)
    return x + s.down(F.silu(s.gate(h)) * s.up(h))


def data(seed: int, count: int = 24) -> Tensor:
    return torch.randn(count, 5, 64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def captured() -> Network:
    return inference_form(capture(decoder(), data(1, 2)))


def error(network: Network, exact: Tensor, x: Tensor, scheme: Scheme) -> float:
    placed, _ = ranged(network, scheme, [])
    with torch.no_grad():
        return float((placed(x) - exact).norm())


def test_it_computes_the_same_and_loses_less_when_rounded(captured: Network) -> None:
    scheme, x = w4(group=64, keep_float=("down",)), data(9)
    scaled, changed = scale_by_activations(captured, scheme, RULES, [[data(2)]])
    assert changed >= 1, "what the norm hands to gate and up, at least"
    with torch.no_grad():
        exact = captured(x)
        assert torch.allclose(scaled(x), exact, atol=1e-4)
    nodes = [str(n) for n in captured.graph.nodes]
    assert [str(n) for n in scaled.graph.nodes] == nodes, "no operator was added"
    assert error(scaled, exact, x, scheme) < 0.75 * error(captured, exact, x, scheme)


def test_columns_that_meet_large_activations_grow(captured: Network) -> None:
    scaled, _ = scale_by_activations(captured, w4(group=64), RULES, [[data(2)]])
    before, after = (n.get_submodule("gate").weight.detach() for n in (captured, scaled))  # type: ignore[operator]
    growth = (after / before).median(0).values
    large = torch.zeros(64, dtype=torch.bool)
    large[::32] = True
    assert float(growth[large].min()) > float(growth[~large].max())


def test_what_it_leaves_alone(captured: Network) -> None:
    assert scale_by_activations(captured, w8a8(), RULES, [[data(2)]])[1] == 0
    assert scale_by_activations(captured, w4(group=64), RULES, [])[1] == 0
    torch.manual_seed(0)
    encoder = Net(
        lambda s, x: (lambda h: s.after(h + s.b(F.gelu(s.a(h)))))(s.norm(x)),
        norm=nn.LayerNorm(64),
        a=nn.Linear(64, 64),
        b=nn.Linear(64, 64),
        after=nn.Linear(64, 8),
    ).eval()
    norm_is_read_by_the_residual = inference_form(capture(encoder, data(1, 2)))
    found = scale_by_activations(norm_is_read_by_the_residual, w4(group=64), RULES, [[data(2)]])
    assert found[1] == 0
