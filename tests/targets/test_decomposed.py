"""Networks in PyTorch's own quantize/dequantize operators compute what was simulated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kompakt.errors import TargetError
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.freeze import freeze_
from kompakt.schemes import Scheme, bf16, float32, w4, w8, w8a8, w8a8_dynamic
from kompakt.targets.decomposed import ATEN, MOVERS, PAIR, decomposed

from ..nets import MODELS, Net, batches_for, conv, grid, inputs, network, ranged

STATIC = tuple(name for name in MODELS if name != "recurrent")
LAYERS = (ATEN.conv2d.default, ATEN.linear.default)


def frozen(name: str, scheme: Scheme | None = None) -> Any:
    return freeze_(ranged(network(name), scheme or w8a8(), batches_for(name))[0])


def calls(module: Any, *targets: Any) -> list[Any]:
    return [node for node in module.graph.nodes if node.target in targets]


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize(
    "settings", [{}, {"pairs_behind_padding": False, "one_grid_for_cat": True}]
)
def test_it_computes_the_very_numbers_of_the_simulation(name: str, settings: Any) -> None:
    placed = frozen(name)
    x = inputs(name, seed=7, samples=3)
    with torch.no_grad():
        (found,) = decomposed(placed, **settings)(x)
        assert torch.equal(found, placed(x))


@pytest.mark.parametrize("name", ["dense", "encoder", "words"])
@pytest.mark.parametrize("scheme", [w8a8_dynamic(), w8(group=16), w4(group=16), bf16(), float32()])
def test_other_schemes_are_written_as_well(name: str, scheme: Scheme) -> None:
    placed = frozen(name, scheme)
    x = inputs(name, seed=7, samples=3)
    with torch.no_grad():
        (found,) = decomposed(placed)(x)
        exact = placed(x)
    assert float((found - exact).norm() / exact.norm()) < 1e-5


@pytest.mark.parametrize("name", ["plain", "movers", "depthwise", "encoder", "dense 3d"])
def test_a_dequantize_feeds_every_integer_layer_directly(name: str) -> None:
    module = decomposed(frozen(name))
    layers = calls(module, *LAYERS)
    assert layers
    for layer in layers:
        assert layer.args[0].target is PAIR.dequantize_per_tensor.default, layer
        assert layer.args[1].target is PAIR.dequantize_per_channel.default, layer


def test_a_second_pair_stands_behind_a_flatten_that_has_none() -> None:
    placed = frozen("plain")
    repeats = [
        n for n in placed.graph.nodes
        if "quantizes" in n.meta and str(n.args[0].target).startswith("aten.") and "flatten" in n.args[0].name
    ]  # fmt: skip
    for node in repeats:  # as if placement had not repeated the quantizer there
        node.replace_all_uses_with(node.args[0])
        placed.graph.erase_node(node)
    placed.recompile()
    assert repeats
    module = decomposed(placed)
    (linear,) = calls(module, ATEN.linear.default)
    pair = linear.args[0]
    assert pair.target is PAIR.dequantize_per_tensor.default
    assert "flatten" in pair.args[0].args[0].name
    grids = [n.args[1:] for n in calls(module, PAIR.quantize_per_tensor.default)]
    assert grids.count(pair.args[1:]) == 2, "the grid of the pair before the flatten"


def test_every_reader_has_a_dequantize_of_its_own() -> None:
    module = decomposed(frozen("residual"))
    pairs = calls(module, PAIR.dequantize_per_tensor.default)
    assert all(len(node.users) == 1 for node in pairs)
    assert len(pairs) > len(calls(module, PAIR.quantize_per_tensor.default)), "some had two readers"


def test_weights_are_stored_as_their_codes() -> None:
    placed = frozen("plain")
    module = decomposed(placed)
    stored = dict(module.named_buffers())
    layer = placed.get_submodule("a.0")
    assert torch.equal(stored["a_0_weight_codes"], layer.weight_codes)
    assert stored["a_0_weight_codes"].dtype == torch.int8
    assert not list(module.parameters()), "no float weights stay behind"


def padded(amounts: list[int], **settings: Any) -> Any:
    def wiring(s: Any, x: torch.Tensor) -> torch.Tensor:
        return s.b(F.pad(s.a(x), amounts)).mean((2, 3))

    model = Net(wiring, a=conv(3, 4), b=nn.Conv2d(4, 4, 3, **settings)).eval()
    captured = inference_form(capture(model, grid(2, 3, 8, 8)))
    batches = [{captured.input_specs[0].name: grid(2, 3, 8, 8, seed=1)}]
    from kompakt.measuring.data import Batch

    return freeze_(ranged(captured, w8a8(), [Batch(b, None, 2) for b in batches])[0])


@pytest.mark.parametrize(
    ("amounts", "settings", "padding"),
    [
        ([1, 1, 1, 1], {}, [1, 1]),
        ([2, 2, 1, 1], {"padding": 1}, [2, 3]),
        ([0, 1, 0, 1], {}, None),
        ([1, 1], {}, [0, 1]),
    ],
)
def test_even_padding_becomes_the_convolutions_own(
    amounts: list[int], settings: Any, padding: list[int] | None
) -> None:
    placed = padded(amounts, **settings)
    module = decomposed(placed)
    second = calls(module, ATEN.conv2d.default)[1]
    pads = [n for n in module.graph.nodes if "pad" in str(n.target)]
    assert bool(pads) == (padding is None)
    assert second.args[4] == (padding or [0, 0])
    x = grid(2, 3, 8, 8, seed=3)
    with torch.no_grad():
        assert torch.equal(module(x)[0], placed(x))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_repeats_values_keeps_its_layer_in_integers(mode: str) -> None:
    placed = padded([0, 0], padding=1, padding_mode=mode)
    module = decomposed(placed)
    for layer in calls(module, ATEN.conv2d.default):
        assert layer.args[0].target is PAIR.dequantize_per_tensor.default
    x = grid(2, 3, 8, 8, seed=3)
    with torch.no_grad():
        assert torch.equal(module(x)[0], placed(x))


def test_concatenated_tensors_are_brought_to_one_grid() -> None:
    placed = frozen("mixed concat")
    module = decomposed(placed, one_grid_for_cat=True)
    (cat,) = calls(module, ATEN.cat.default)
    grids = {part.args[1:] for part in cat.args[0]} | {next(iter(cat.users)).args[1:]}
    assert len(grids) == 1
    plain = decomposed(placed)
    (cat,) = calls(plain, ATEN.cat.default)
    assert len({part.args[1:] for part in cat.args[0]}) == 2


def test_a_layer_that_is_not_frozen_is_refused() -> None:
    placed = ranged(network("plain"), w8a8(), batches_for("plain"))[0]
    with pytest.raises(TargetError) as caught:
        decomposed(placed)
    assert caught.value.code == "K401"
    assert "a.0" in str(caught.value)


def test_what_can_stand_between_is_what_only_moves_codes() -> None:
    from kompakt.targets import TARGETS

    known = {"split", "getitem", "upsample_nearest"}
    for name in ("executorch", "torch", "torch-aoti", "coreml"):
        assert TARGETS[name].rules("x86").pass_through <= MOVERS | known
