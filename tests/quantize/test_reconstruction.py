"""Learning all blocks together brings the simulated network closer to the float one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from kompakt.measuring.data import Batch
from kompakt.network.network import Network
from kompakt.network.onnx import import_onnx
from kompakt.network.rewrites import inference_form
from kompakt.progress import Event, listening
from kompakt.quantize import reconstruction
from kompakt.quantize.layers import Treated, grid_of
from kompakt.quantize.place import quantizer_calls, quantizer_of
from kompakt.quantize.reconstruction import reconstruct_
from kompakt.schemes import fp16, w4, w4a8

from ..nets import batches_for, grid, network, ranged
from ..network.onnx.files import model, saved, weights


def error(net: nn.Module, exact: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((net(x) - exact(x)).norm() / exact(x).norm())


def in_four_bits(name: str = "residual") -> tuple[Network, Network]:
    captured = network(name)
    placed, _ = ranged(captured, w4a8(), batches_for(name))
    return placed, captured


@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_the_output_is_closer_on_other_samples(name: str) -> None:
    placed, captured = in_four_bits(name)
    held = grid(48, 3, 10, 10, seed=6)
    nearest = error(placed, captured, held)
    assert reconstruct_(placed, captured, [[grid(48, 3, 10, 10, seed=5)]]) >= 3
    assert error(placed, captured, held) < 0.85 * nearest


def test_weights_stand_on_the_grid_and_scales_have_moved() -> None:
    placed, captured = in_four_bits()
    calls = quantizer_calls(placed)
    before = {site: quantizer_of(placed, node).scale for site, node in calls.items()}
    reconstruct_(placed, captured, [[grid(32, 3, 10, 10)]])
    layer = placed.get_submodule("b.0")
    assert isinstance(layer, Treated)
    codes = layer.weight.detach() / grid_of(layer)[0].reshape(-1, 1, 1, 1)
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert torch.allclose(layer.treated_weight(), layer.weight, rtol=1e-5)
    assert any(quantizer_of(placed, n).scale != before[site] for site, n in calls.items())


def test_what_does_not_help_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "WEIGHT_RATE", 50.0)
    placed, captured = in_four_bits()
    before = copy.deepcopy(placed.state_dict())
    events: list[Event] = []
    with listening(events.append):
        assert reconstruct_(placed, captured, [[grid(16, 3, 10, 10)]]) == 0
    assert all(torch.equal(value, before[key]) for key, value in placed.state_dict().items())
    assert any("nothing was changed" in event.message for event in events)


def test_samples_of_several_shapes_are_learned_from() -> None:
    placed, captured = in_four_bits("plain")
    batches = [[grid(6, 3, 10, 10)], [grid(5, 3, 12, 12)], [grid(3, 3, 10, 10, seed=2)]]
    pools = reconstruction._pools(batches)
    assert [tuple(pool[0].shape) for pool in pools] == [(9, 3, 10, 10), (5, 3, 12, 12)]
    assert reconstruct_(placed, captured, batches) == 3


def test_what_it_leaves_alone() -> None:
    stored, _ = ranged(network("plain"), fp16(), [])
    assert reconstruct_(stored, network("plain"), [[grid(4, 3, 10, 10)]]) == 0
    words, _ = ranged(network("words"), w4(), [])
    table = words.get_parameter("table.weight").clone()
    ids = batches_for("words")[0].inputs["ids"]
    assert reconstruct_(words, network("words"), [[ids]]) == 2
    assert torch.equal(words.get_parameter("table.weight"), table)


def test_gradients_are_left_as_they_were() -> None:
    placed, captured = in_four_bits("plain")
    reconstruct_(placed, captured, [[grid(8, 3, 10, 10)]])
    assert all(parameter.grad is None for parameter in placed.parameters())
    assert all(parameter.grad is None for parameter in captured.parameters())


def test_layers_around_an_operator_without_a_gradient_learn_from_their_own_blocks(
    tmp_path: Path,
) -> None:
    made = model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "first"),
            helper.make_node("LpNormalization", ["c"], ["n"], "exotic", axis=1, p=1),
            helper.make_node("Conv", ["n", "w2"], ["y"], "second"),
        ],
        {"w": weights(4, 3, 3, 3), "w2": weights(2, 4, 1, 1)},
    )
    captured = inference_form(import_onnx(saved(made, tmp_path)))
    placed, _ = ranged(captured, w4a8(), [Batch({"x": grid(8, 3, 8, 8)}, None, 8)])
    before = {name: value.clone() for name, value in placed.named_parameters()}
    assert reconstruct_(placed, captured, [[grid(16, 3, 8, 8, seed=1)]]) == 2
    assert not torch.equal(placed.get_parameter("first.weight"), before["first.weight"])
