"""Analytic bias correction takes out the shift of rounded weights without any data."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.folding import NORMALIZED
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.quantize.analytic_bias_correction import (
    correct_biases_analytically_,
    expected_moments,
)
from kompakt.schemes import Scheme, Treatment, w8a8

from ..nets import Batch, Net, conv, deploy, network, ranged

COARSE = Scheme(name="coarse", default=Treatment(mode="weight_only", weight="int4"))


def _residual(s: nn.Module, x: Tensor) -> Tensor:
    y = F.relu6(s.a(x))  # type: ignore[operator]
    y = F.leaky_relu(y + s.b(y), 0.1)  # type: ignore[operator]
    return s.d(s.c(y).mean((2, 3)))  # type: ignore[operator,no-any-return]


def trained(seed: int = 0) -> tuple[Network, Tensor]:
    """A network whose batch norms know the data it is given."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Net(
            _residual,
            a=conv(3, 16, None),
            b=conv(16, 16, None, groups=4),
            c=conv(16, 16, nn.SiLU, kernel=1),
            d=nn.Linear(16, 5),
        )
        x = torch.randn(64, 3, 12, 12)
        model.train()
        for _ in range(60):
            model(x)
        return inference_form(capture(model.eval(), x[:2])), x


@pytest.fixture(scope="module")
def prepared() -> tuple[Network, Tensor]:
    return trained()


def means(net: Network, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    class Look(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node):  # type: ignore[no-untyped-def]
            result = super().run_node(n)
            if isinstance(result, Tensor) and result.dim() > 1:
                found[n.name] = result.transpose(0, 1).flatten(1).double().mean(1)
            return result

    Look(net).run(x, enable_io_processing=False)
    return found


def test_expected_means_are_those_of_the_data(prepared: tuple[Network, Tensor]) -> None:
    net, x = prepared
    expected = expected_moments(net)
    with torch.no_grad():
        seen = means(net, x)
    assert len(expected) >= 8
    for node, (mean, spread) in expected.items():
        assert float((mean - seen[node.name]).abs().max()) < 0.12 + 0.1 * float(spread.max())


def test_the_mean_error_becomes_small(prepared: tuple[Network, Tensor]) -> None:
    net, x = prepared

    def shift(method: bool) -> float:
        placed, _ = ranged(net, COARSE, [])
        if method:
            assert correct_biases_analytically_(placed, net, []) == 3
        with torch.no_grad():
            return float((placed(x) - net(x)).mean(0).norm())

    assert shift(True) < 0.5 * shift(False)


def test_a_static_network_comes_closer_too(prepared: tuple[Network, Tensor]) -> None:
    net, x = prepared
    placed, _ = ranged(net, w8a8(), [Batch({"x": x}, None, len(x))])
    assert correct_biases_analytically_(placed, net, []) == 3


def test_without_batch_norm_nothing_changes() -> None:
    captured = network("twice")
    assert not any(NORMALIZED in node.meta for node in captured.graph.nodes)
    placed, _ = ranged(captured, COARSE, [])
    before = copy.deepcopy(placed.state_dict())
    assert correct_biases_analytically_(placed, captured, []) == 0
    assert all(torch.equal(v, before[k]) for k, v in placed.state_dict().items())


def test_scaling_channels_scales_what_their_batch_norm_knew(
    prepared: tuple[Network, Tensor],
) -> None:
    from kompakt.network.channel_groups import channel_groups
    from kompakt.quantize.equalization import scale_

    scaled = copy.deepcopy(prepared[0])
    groups = channel_groups(scaled)
    factors = torch.full((groups.count + 1,), 0.5, dtype=torch.float64)
    factors[0] = 1
    scale_(groups, factors)
    before, after = expected_moments(prepared[0]), expected_moments(scaled)
    first = next(n for n in scaled.graph.nodes if NORMALIZED in n.meta)
    twin = next(n for n in before if n.name == first.name)
    assert torch.allclose(after[first][0], before[twin][0] * 0.5)
    assert deploy(scaled, [Batch({"x": prepared[1]}, None, 64)]).placed is not None
