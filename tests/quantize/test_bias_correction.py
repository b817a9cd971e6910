"""Bias correction gives back planted mean shifts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.layers import Treated
from kompakt.schemes import fp16, w4, w8a8, w8a8_dynamic

from ..nets import Net, batches_for, conv, grid, network, ranged


def error(net: nn.Module, exact: Tensor, x: Tensor) -> float:
    with torch.no_grad():
        return float((net(x) - exact).square().mean().sqrt())


def mean_shift(net: nn.Module, exact: Tensor, x: Tensor) -> float:
    with torch.no_grad():
        return float((net(x) - exact).mean(0).abs().max())


@pytest.mark.parametrize("shifted", ["b.0", "head"])
def test_a_planted_shift_of_a_bias_is_given_back(shifted: str) -> None:
    captured = network("plain")
    placed, _ = ranged(captured, w8a8(), batches_for("plain"))
    # At the head a shift shows as it is; before a ReLU it also changes shapes, so less is given back.
    layer = placed.get_submodule(shifted)
    assert isinstance(layer, Treated)
    with torch.no_grad():
        layer.bias.add_(0.3 * torch.sign(torch.arange(layer.bias.numel()) % 2 - 0.5))  # type: ignore[union-attr]
    samples = grid(16, 3, 10, 10, seed=5)
    held = grid(64, 3, 10, 10, seed=6)
    with torch.no_grad():
        exact = captured(held)
    before = error(placed, exact, held), mean_shift(placed, exact, held)
    assert correct_biases_(placed, captured, [[samples]]) == 3
    after = error(placed, exact, held), mean_shift(placed, exact, held)
    assert after[0] < before[0] / 2
    assert after[1] < before[1] / 4


def test_coarse_weights_lose_their_bias_in_the_mean() -> None:
    captured = network("dense 3d")
    placed, _ = ranged(captured, w4(group=16), batches_for("dense 3d"))
    x = grid(32, 7, 40, seed=3)
    with torch.no_grad():
        exact = captured(x)
    before = error(placed, exact, x)
    assert correct_biases_(placed, captured, [[x]]) == 3
    assert error(placed, exact, x) < before
    with torch.no_grad():
        shift = (placed(x) - exact).mean((0, 1))
    assert float(shift.abs().max()) < 1e-5, "on these very samples no mean is left"


def test_layers_without_a_bias_get_one() -> None:
    model = Net(
        lambda s, x: s.b(F.relu(s.a(x))),
        a=nn.Linear(20, 16, bias=False),
        b=nn.Linear(16, 4, bias=False),
    ).eval()
    captured = inference_form(capture(model, grid(4, 20)))
    placed, _ = ranged(captured, w8a8_dynamic(), [])
    assert correct_biases_(placed, captured, [[grid(8, 20)]]) == 2
    assert placed.get_submodule("a").bias is not None
    assert model.a.bias is None
    assert captured.get_submodule("a").bias is None


def test_what_it_leaves_alone() -> None:
    twice, _ = ranged(network("twice"), w8a8(), batches_for("twice"))
    kept = {n: p.clone() for n, p in twice.named_parameters()}
    assert correct_biases_(twice, network("twice"), [[grid(4, 3, 10, 10)]]) == 2
    assert torch.equal(twice.get_parameter("b.bias"), kept["b.bias"])
    stored, _ = ranged(network("plain"), fp16(), [])
    assert correct_biases_(stored, network("plain"), [[grid(4, 3, 10, 10)]]) == 0
    words, _ = ranged(network("words"), w8a8(), batches_for("words"))
    corrected = correct_biases_(words, network("words"), [[batches_for("words")[0].inputs["ids"]]])
    assert corrected == 2, "an embedding has no bias"


def test_two_calls_of_one_batch_norm_stay_as_they_are() -> None:
    """A layer before a batch norm that cannot be folded is corrected where its own output is."""
    block = conv(3, 3)
    model = Net(lambda s, x: s.block(s.block(x)), block=block).eval()
    captured = inference_form(capture(model, grid(2, 3, 8, 8)))
    placed, _ = ranged(captured, w8a8(), [Batch({"x": grid(4, 3, 8, 8)}, None, 4)])
    assert correct_biases_(placed, captured, [[grid(4, 3, 8, 8)]]) == 0
