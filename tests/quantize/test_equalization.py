"""Equalization: the function stays, channels that meet share their factor, and less is lost to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.channel_groups import channel_groups
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.numerics.granularity import PerTensor
from kompakt.quantize.equalization import equalize, scale_
from kompakt.schemes import Scheme, Treatment, w8a8

from ..nets import ONNXRUNTIME, Batch, Net, conv, deploy, grid, network

RULES = ONNXRUNTIME.rules("x86-vnni")
SHAPE = (3, 10, 10)


def prepared(model: nn.Module, x: Tensor) -> Network:
    return inference_form(capture(model.eval(), x))


def made(name: str) -> tuple[Network, Tensor]:
    """A network whose channels differ up to a thousandfold, and inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = WIRED[name](), grid(6, *SHAPE)
        net = prepared(model, x)
    groups = channel_groups(net)
    uneven = torch.ones(groups.count + 1, dtype=torch.float64)
    uneven[1:] = torch.logspace(-1.5, 1.5, groups.count, dtype=torch.float64)[
        torch.randperm(groups.count, generator=torch.Generator().manual_seed(1))
    ]
    if not groups.clipped:
        scale_(groups, uneven)
    return net, x


def _head(s: nn.Module, x: Tensor) -> Tensor:
    return s.head(x.mean((2, 3)))  # type: ignore[operator,no-any-return]


def _residual(s: nn.Module, x: Tensor) -> Tensor:
    y = s.a(x)  # type: ignore[operator]
    y = F.relu(y + s.b(y))  # type: ignore[operator]
    y = F.max_pool2d(F.pad(y, (0, 1, 0, 1)), 2)
    return _head(s, F.relu(F.pad(y, (0, 0, 0, 0, 4, 4)) + s.c(y)))  # type: ignore[operator]


def _joined(s: nn.Module, x: Tensor) -> Tensor:
    y = s.a(x)  # type: ignore[operator]
    y = torch.cat([s.b(y), y], 1)  # type: ignore[operator]
    n, c, h, w = y.shape
    y = y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
    return s.head(F.avg_pool2d(s.c(y), 2).flatten(1))  # type: ignore[operator,no-any-return]


WIRED = {
    "chain": lambda: Net(
        lambda s, x: _head(s, s.c(s.b(s.a(x)))),
        a=conv(3, 8),
        b=conv(8, 8, groups=8),
        c=conv(8, 8, lambda: nn.LeakyReLU(0.1), kernel=1),
        head=nn.Linear(8, 5),
    ),
    "residual": lambda: Net(
        _residual, a=conv(3, 8), b=conv(8, 8, None), c=conv(8, 16, None), head=nn.Linear(16, 5)
    ),
    "joined": lambda: Net(
        _joined, a=conv(3, 8), b=conv(8, 8), c=conv(16, 8, groups=2), head=nn.Linear(200, 5)
    ),
    "transposed": lambda: Net(
        lambda s, x: s.c(F.relu(s.b(F.relu(s.a(x))))),
        a=nn.Conv2d(3, 8, 3),
        b=nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4),
        c=nn.Conv2d(12, 4, 1),
    ),
}


@pytest.mark.parametrize("name", list(WIRED))
def test_any_factors_leave_the_function(name: str) -> None:
    net, x = made(name)
    groups = channel_groups(net)
    with torch.no_grad():
        before = net(x)
        generator = torch.Generator().manual_seed(3)
        factors = 4 ** torch.randn(groups.count + 1, generator=generator, dtype=torch.float64)
        factors[0] = 1
        assert groups.count >= 16
        assert scale_(groups, factors) >= 2
        assert float((net(x) - before).norm() / before.norm()) < 1e-5


@pytest.mark.parametrize("name", list(WIRED))
@pytest.mark.parametrize("shared", [False, True])
def test_uneven_channels_lose_less(name: str, shared: bool) -> None:
    net, x = made(name)
    scheme = w8a8()
    if shared:
        coarse = Treatment(
            mode="static",
            weight="int8_narrow",
            activation="auto8",
            granularity=PerTensor(),
        )
        scheme = Scheme(name="per tensor", default=coarse)
    better, changed = equalize(net, scheme, RULES, [[x]])
    assert changed >= 2

    def error(candidate: Network) -> float:
        placed = deploy(candidate, [Batch({"x": x}, None, len(x))], scheme).placed
        with torch.no_grad():
            return float((placed(x) - net(x)).norm() / net(x).norm())

    with torch.no_grad():
        assert torch.allclose(better(x), net(x), rtol=1e-4, atol=1e-4)
    assert error(better) < 0.5 * error(net)


def test_channels_that_meet_share_their_group() -> None:
    groups = channel_groups(network("residual"))
    by_name = {str(entry.node.target): entry for entry in groups.layers}
    assert torch.equal(by_name["a.0"].outputs, by_name["b.0"].outputs)
    assert torch.equal(by_name["a.0"].outputs, by_name["head"].inputs)
    assert bool((by_name["a.0"].inputs == 0).all())
    assert bool((by_name["head"].outputs == 0).all())


@pytest.mark.parametrize(
    ("name", "layers"), [("gate", ["gate"]), ("twice", ["a", "b"]), ("encoder", ["stem"])]
)
def test_what_does_not_let_factors_pass_stays(name: str, layers: list[str]) -> None:
    found = {str(e.node.target): e for e in channel_groups(network(name)).layers}
    for layer in layers:
        assert layer not in found or bool((found[layer].outputs == 0).all())


def test_a_clipped_channel_is_scaled_only_as_far_as_nothing_seen_is_clipped() -> None:
    captured, x = copy.deepcopy(network("depthwise")), grid(8, *SHAPE)
    groups = channel_groups(captured)
    assert len(groups.clipped) == 2
    first = captured.get_submodule("a.0")
    with torch.no_grad():
        first.weight[:4] *= 30.0  # type: ignore[index,operator]
        reached = first(x).amax((0, 2, 3)) >= 6  # type: ignore[operator]
        assert 0 < int(reached.sum()) < 8
        small = torch.ones(groups.count + 1, dtype=torch.float64)
        small[1:9][~reached] = 0.05
        scale_(groups, small)
        better, changed = equalize(captured, w8a8(), RULES, [[x]])
        assert changed >= 2
        assert torch.allclose(better(x), captured(x), rtol=1e-4, atol=1e-5)
        other = better.get_submodule("a.0").weight != first.weight
        assert not bool(other[reached].any())  # type: ignore[index]
        assert bool(other[~reached].any())  # type: ignore[index]


def test_without_samples_or_treated_layers_nothing_changes() -> None:
    captured = network("plain")
    _, without = equalize(captured, w8a8(), RULES, [])
    _, floats = equalize(captured, w8a8(keep_float=("*",)), RULES, [[grid(2, *SHAPE)]])
    assert (without, floats) == (0, 0)
