"""Learned rounding makes a layer's output closer than nearest rounding does."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.numerics.formats import get_format
from kompakt.quantize import adaround
from kompakt.quantize.adaround import adaround_
from kompakt.quantize.layers import Treated, grid_of
from kompakt.schemes import Scheme, fp16, w4, w4a8

from ..nets import Net, batches_for, conv, grid, network, ranged


def error(net: nn.Module, exact: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((net(x) - exact(x)).norm() / exact(x).norm())


@pytest.mark.parametrize(
    ("name", "scheme", "shape"),
    [
        ("plain", w4a8(), (48, 3, 10, 10)),
        ("residual", w4a8(), (48, 3, 10, 10)),
        ("depthwise", w4a8(), (48, 3, 10, 10)),
        ("dense 3d", w4(group=16), (48, 7, 40)),
    ],
)
def test_the_output_is_closer_on_other_samples(
    name: str, scheme: Scheme, shape: tuple[int, ...]
) -> None:
    captured = network(name)
    placed, _ = ranged(captured, scheme, batches_for(name))
    held = grid(*shape, seed=6)
    nearest = error(placed, captured, held)
    assert adaround_(placed, captured, [[grid(*shape, seed=5)]]) >= 3
    assert error(placed, captured, held) < 0.75 * nearest


def test_weights_stand_on_the_grid_that_was_fixed() -> None:
    captured = network("plain")
    placed, _ = ranged(captured, w4a8(), batches_for("plain"))
    adaround_(placed, captured, [[grid(16, 3, 10, 10)]])
    layer = placed.get_submodule("b.0")
    assert isinstance(layer, Treated)
    codes = layer.weight.detach() / grid_of(layer)[0].reshape(-1, 1, 1, 1)
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert torch.allclose(layer.treated_weight(), layer.weight, rtol=1e-5)
    assert int(codes.min()) >= -8
    assert int(codes.max()) <= 7


def test_on_few_weights_it_finds_the_best_codes_of_all() -> None:
    """Three weights of 3 bits: every combination can be tried."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    gram = (mixing @ mixing.T)[None].float()
    aim = torch.randn(1, 1, 3, generator=generator)
    step, zero = torch.full_like(aim, 0.4), torch.zeros_like(aim)
    fmt = get_format("int3")
    found = adaround._codes(aim, gram, step, zero, fmt) * step - aim
    every = torch.tensor(list(itertools.product(range(-4, 4), repeat=3))).float()[None] * 0.4 - aim
    best = adaround._quadratic(every, gram).sum(-1).min()
    assert float(adaround._quadratic(found, gram).sum()) <= 1.05 * float(best)


def test_what_it_leaves_alone() -> None:
    twice, _ = ranged(network("twice"), w4a8(), batches_for("twice"))
    before = twice.get_parameter("b.weight").clone()
    assert adaround_(twice, network("twice"), [[grid(4, 3, 10, 10)]]) == 2
    assert torch.equal(twice.get_parameter("b.weight"), before)
    stored, _ = ranged(network("plain"), fp16(), [])
    assert adaround_(stored, network("plain"), [[grid(4, 3, 10, 10)]]) == 0


def test_large_activations_mean_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = network("plain")
    batches = [[grid(8, 3, 10, 10)], [grid(4, 3, 10, 10)]]
    assert [len(b[0]) for b in adaround._that_fit(batches, captured)] == [8, 4]
    monkeypatch.setattr(adaround, "MEMORY", 4 * 4 * 800 * 3)  # three samples of 8 · 10 · 10 numbers
    assert [len(b[0]) for b in adaround._that_fit(batches, captured)] == [2, 1]


def test_a_layer_without_a_bias_gets_one() -> None:
    model = Net(lambda s, x: s.b(s.a(x)), a=conv(3, 4), b=nn.Conv2d(4, 4, 3, bias=False)).eval()
    captured = inference_form(capture(model, grid(4, 3, 8, 8)))
    placed, _ = ranged(captured, w4(), [])
    assert adaround_(placed, captured, [[grid(8, 3, 8, 8)]]) == 2
    assert placed.get_submodule("b").bias is not None
    assert captured.get_submodule("b").bias is None
