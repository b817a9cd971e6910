"""Quantizers: what they need, what they compute in each stage, and where their ranges come from."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from kompakt.errors import SchemeError
from kompakt.network.network import Network
from kompakt.numerics.granularity import PerChannel
from kompakt.observe import OBSERVERS, calibrate
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import place, plan_of, quantizer_calls, quantizer_of
from kompakt.quantize.quantizer import Quantizer, stage
from kompakt.quantize.ranges import find_observer, set_ranges_
from kompakt.schemes import w8a8

from ..nets import ONNXRUNTIME, batches_for, grid, network, ranged


def quantizer(low: float = -1.0, high: float = 3.0, name: str = "uint8") -> Quantizer:
    made = Quantizer("site", name, symmetric=False, rounding="divide_even")
    made.set_range(torch.tensor(low), torch.tensor(high))
    return made


def test_without_a_range_it_names_its_site() -> None:
    fresh = Quantizer("layer.3", "uint8", symmetric=False, rounding="divide_even")
    assert not fresh.calibrated
    for use in (fresh, fresh.codes, lambda _: fresh.represented_range()):
        with pytest.raises(SchemeError) as caught:
            use(torch.zeros(2))
        assert caught.value.code == "K343"
        assert "layer.3" in caught.value.what
    with pytest.raises(SchemeError) as caught:
        freeze_(place(network("plain"), w8a8(), ONNXRUNTIME.rules("x86")))
    assert caught.value.code == "K343"


@pytest.mark.parametrize("name", ["uint8", "int8", "uint16", "int16", "int4"])
def test_the_stages_agree_and_off_is_off(name: str) -> None:
    made = quantizer(name=name)
    x = torch.cat([grid(64), torch.tensor([-9.0, 9.0])])
    simulated = made(x)
    with stage(made, "write"):
        assert torch.equal(made(x), simulated)
        with stage(made, "off"):
            assert made(x) is x
        assert made.stage == "write"
    assert made.stage == "simulate"
    scale, zero_point = made.parameters_()
    codes = made.codes(x)
    assert codes.dtype == made.format.torch_dtype
    assert torch.equal((codes.int() - zero_point.int()).float() * scale, simulated)
    low, high = made.represented_range()
    assert float(simulated.min()) == pytest.approx(low)
    assert float(simulated.max()) == pytest.approx(high)


def test_a_stage_is_given_back_when_something_fails() -> None:
    made = quantizer()
    with pytest.raises(ZeroDivisionError), stage(made, "off"):
        raise ZeroDivisionError
    assert made.stage == "simulate"


def test_its_gradient_passes_where_nothing_is_clipped() -> None:
    x = torch.tensor([-5.0, -0.5, 0.0, 1.234, 2.9, 7.0], requires_grad=True)
    quantizer()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_channels_have_their_own_scales() -> None:
    made = Quantizer("w", "int8_narrow", PerChannel(0), symmetric=True, rounding="divide_even")
    x = torch.stack([torch.linspace(-1, 1, 9), torch.linspace(-100, 100, 9)])
    made.set_range(x.amin(1), x.amax(1))
    assert torch.allclose(made(x), x, rtol=1e-2, atol=0.5)
    assert made.represented_range() == pytest.approx((-100.0, 100.0))


# --- ranges -----------------------------------------------------------------------------------


def test_sites_that_share_a_quantizer_get_the_union_of_their_ranges() -> None:
    placed, seen = ranged(network("concat"), w8a8(), batches_for("concat"))
    assert seen is not None
    members = ["b.2", "c.2", "cat"]
    high = max(seen.statistics[site].high for site in members)
    lows = {seen.statistics[site].high for site in members}
    assert len(lows) == 2, "the two branches differ"
    for site in members:
        found = quantizer_of(placed, quantizer_calls(placed)[site]).represented_range()
        assert found == pytest.approx((0.0, high), rel=1e-5)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_behind_a_relu6_no_observer_reaches_beyond_six(observer: str) -> None:
    captured = network("depthwise")
    placed = place(captured, w8a8(), ONNXRUNTIME.rules("x86"))
    big = [b.inputs["x"] * 20 for b in batches_for("depthwise")]
    seen = calibrate(captured, plan_of(placed).taps, big)
    assert seen.statistics["a.2"].high == 6.0
    set_ranges_(placed, seen, observer)
    low, high = quantizer_of(placed, quantizer_calls(placed)["a.2"]).represented_range()
    assert low == 0.0
    assert high <= 6.0 * (1 + 1e-6), "else the file needs a clip and its layer runs in float"


def test_each_site_may_have_its_own_observer() -> None:
    placed, seen = ranged(network("plain"), w8a8(), batches_for("plain"))
    assert seen is not None
    other = copy.deepcopy(placed)
    names = dict.fromkeys(plan_of(placed).taps, "minmax") | {"a.2": "moving_average"}
    set_ranges_(other, seen, names)

    def highs(net: Network) -> dict[str, float]:
        calls = quantizer_calls(net).items()
        return {site: quantizer_of(net, call).represented_range()[1] for site, call in calls}

    before, after = highs(placed), highs(other)
    assert after["a.2"] != before["a.2"]
    assert {k: v for k, v in after.items() if k != "a.2"} == {
        k: v for k, v in before.items() if k != "a.2"
    }


def test_unknown_observers_and_unseen_sites_are_refused() -> None:
    with pytest.raises(SchemeError) as caught:
        find_observer("median")
    assert caught.value.code == "K346"
    assert "minmax" in caught.value.help
    placed, seen = ranged(network("plain"), w8a8(), batches_for("plain"))
    assert seen is not None
    del seen.statistics["b.2"]
    with pytest.raises(SchemeError) as caught:
        set_ranges_(placed, seen)
    assert caught.value.code == "K347"
    assert "b.2" in caught.value.what


# --- freezing ---------------------------------------------------------------------------------


def test_freezing_fixes_every_treated_layer_once() -> None:
    placed, _ = ranged(network("twice"), w8a8(), batches_for("twice"))
    freeze_(placed)
    layers = {n: m for n, m in placed.named_modules() if isinstance(m, Treated)}
    assert all(layer.frozen for layer in layers.values())
    assert layers["a"].bias_codes is not None
    assert layers["b"].bias_codes is None, "two calls, two input scales: no single integer bias"
    codes = {name: layer.weight_codes for name, layer in layers.items()}
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.mul_(2)
    freeze_(placed)
    assert all(layers[name].weight_codes is kept for name, kept in codes.items())


def test_a_frozen_network_computes_what_it_simulated() -> None:
    placed, _ = ranged(network("residual"), w8a8(), batches_for("residual"))
    x: Tensor = batches_for("residual")[0].inputs["x"]
    with torch.no_grad():
        simulated = placed(x)
        freeze_(placed)
        frozen = placed(x)
    assert torch.allclose(frozen, simulated, rtol=0.02, atol=0.02), "only biases are rounded now"
