"""Which 16-bit sums saturate without VNNI: found where they were planted, invented nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.avoid_saturation import NARROW, UNSIGNED, avoid_saturation_
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import plan_of
from kompakt.quantize.saturation import HIGHEST, LOWEST, PairSums, pair_sums
from kompakt.schemes import w8a8, w8a8_dynamic
from kompakt.targets import get_target

from ..nets import Deployed, deploy, deployed, ranged

RULES = get_target("onnxruntime").rules("any")


def made(layer: nn.Module, *shape: int, seed: int = 0, isa: str = "x86-vnni") -> Deployed:
    """A layer calibrated on values whose codes fill the whole range."""
    generator = torch.Generator().manual_seed(seed)
    batches = [
        Batch({"input": torch.rand(shape, generator=generator) * 2 - 0.1}, None, shape[0])
        for _ in range(2)
    ]
    network = inference_form(capture(nn.Sequential(layer).eval(), batches[0].inputs["input"]))
    name = network.input_specs[0].name
    named = [Batch({name: batch.inputs["input"]}, None, shape[0]) for batch in batches]
    return deploy(network, named, isa=isa)


def watched(made: Deployed) -> dict[str, PairSums]:
    tensors: list[Sequence[Tensor]] = [list(batch.inputs.values()) for batch in made.batches]
    return {entry.layer: entry for entry in pair_sums(made.placed, tensors, RULES)}


def brute_force(made: Deployed, path: str) -> NDArray[np.int64]:
    """Every pair sum of a convolution or linear layer that reads the input, computed one by one."""
    layer: Any = made.placed.get_submodule(path)
    quantizer: Any = next(iter(made.placed.get_submodule("quantizers").children()))
    weight = layer.weight_codes.numpy().astype(np.int64)
    found = []
    for batch in made.batches:
        codes = quantizer.codes(next(iter(batch.inputs.values()))).numpy().astype(np.int64)
        for row, outputs in _rows(layer, codes, int(quantizer.zero_point)):
            for o in outputs:
                w = weight[o] if weight.ndim == 2 else np.moveaxis(weight[o], 0, -1).ravel()
                products = row * w
                products = np.append(products, 0) if products.size % 2 else products
                found.append(products[0::2] + products[1::2])
    return np.stack(found)


def _rows(layer: Any, codes: NDArray[np.int64], zero: int) -> Any:
    """The input codes of each output position, in packed order, with the outputs that read them."""
    if isinstance(layer, nn.Linear):
        for row in codes.reshape(-1, codes.shape[-1]):
            yield row, range(layer.out_features)
        return
    (ph, pw), (sh, sw), (dh, dw) = layer.padding, layer.stride, layer.dilation
    kh, kw = layer.kernel_size
    padded = np.pad(codes, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=zero)
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for image in padded:
        for y in range(0, image.shape[1] - dh * (kh - 1), sh):
            for x in range(0, image.shape[2] - dw * (kw - 1), sw):
                for g in range(layer.groups):
                    patch = image[
                        g * inputs : (g + 1) * inputs,
                        y : y + dh * (kh - 1) + 1 : dh,
                        x : x + dw * (kw - 1) + 1 : dw,
                    ]
                    yield patch.transpose(1, 2, 0).ravel(), range(g * outputs, (g + 1) * outputs)


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "odd channels": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
    "strided, dilated": (lambda: nn.Conv2d(4, 4, (3, 2), (2, 1), 2, (1, 2)), (2, 4, 7, 6)),
    "groups": (lambda: nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "pointwise": (lambda: nn.Conv2d(5, 16, 1), (2, 5, 6, 6)),
    "linear": (lambda: nn.Linear(9, 5), (6, 9)),
    "linear, three dimensions": (lambda: nn.Linear(8, 5), (2, 3, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_saturates_is_what_brute_force_finds(name: str) -> None:
    torch.manual_seed(1)
    build, shape = LAYERS[name]
    deployment = made(build(), *shape)
    found, sums = watched(deployment)["0"], brute_force(deployment, "0")
    saturating = int(((sums < LOWEST) | (sums > HIGHEST)).sum())
    assert found.sums == sums.size
    assert found.saturating == saturating > 0
    assert (found.least, found.most) == (
        pytest.approx(min(0, sums.min()), abs=0 if sums.min() < LOWEST else 2**15),
        pytest.approx(max(0, sums.max()), abs=0 if sums.max() > HIGHEST else 2**15),
    )
    assert found.low <= sums.min() <= sums.max() <= found.high
    assert found.verdict == "seen"


def planted(weights: Sequence[float]) -> Deployed:
    """A linear layer whose first row has these two weights first, all others small; inputs reach the largest code."""
    layer = nn.Linear(8, 3)
    with torch.no_grad():
        layer.weight.fill_(0.0)
        layer.weight[:, 7] = 1.0  # the scale: one weight of each row has the largest code
        layer.weight[0, : len(weights)] = torch.tensor(weights)
        layer.weight[0, 7] = 1.0
    return made(layer, 16, 8)


@pytest.mark.parametrize(
    ("weights", "verdict"),
    [
        ((0.9, 0.9), "seen"),
        ((-0.9, -0.9), "seen"),
        ((0.9, -0.9), "impossible"),  # opposite signs cannot add up
        ((0.4, 0.9, 0.1), "possible to tell"),
        ((0.2, 0.5, 0.5, 0.2), "impossible"),  # large ones, but in different pairs
    ],
)
def test_planted_saturation_is_found_and_none_is_invented(
    weights: tuple[float, ...], verdict: str
) -> None:
    deployment = planted(weights)
    found, sums = watched(deployment)["0"], brute_force(deployment, "0")
    happens = bool(((sums < LOWEST) | (sums > HIGHEST)).any())
    assert (found.verdict == "seen") is happens
    if verdict != "possible to tell":
        assert found.verdict == verdict


def test_weights_alone_settle_what_no_data_can_change() -> None:
    deployment = planted((0.2, 0.5, 0.5, 0.2))

    def unread() -> Any:
        raise AssertionError("the data need not be read")
        yield

    assert [f.verdict for f in pair_sums(deployment.placed, unread(), RULES)] == ["impossible"]
    risky = planted((0.9, 0.9))
    assert [f.verdict for f in pair_sums(risky.placed, (), RULES)] == ["possible"]


def test_small_codes_saturate_nothing() -> None:
    """The weights allow it, the data never does: the channels of the large weights hold small codes."""
    layer = nn.Linear(8, 3)
    with torch.no_grad():
        layer.weight.fill_(0.1)
        layer.weight[:, :2] = 1.0
    network = inference_form(capture(nn.Sequential(layer).eval(), torch.rand(2, 8)))
    x = torch.rand(16, 8, generator=torch.Generator().manual_seed(0))
    x[:, :2] *= 0.3
    deployment = deploy(network, [Batch({network.input_specs[0].name: x}, None, 16)])
    found = watched(deployment)["0"]
    assert found.verdict == "not seen"
    assert not found.at_risk
    assert HIGHEST >= found.most >= brute_force(deployment, "0").max()


@pytest.mark.parametrize(
    ("layer", "isa"),
    [
        (lambda: nn.Conv2d(4, 4, 3, groups=4), "x86-vnni"),  # depthwise kernels widen
        (lambda: nn.Conv2d(4, 4, 3), "arm"),  # signed activations
    ],
)
def test_kernels_that_widen_are_left_out(layer: Any, isa: str) -> None:
    assert watched(made(layer(), 2, 4, 6, 6, isa=isa)) == {}


def test_layers_that_find_their_ranges_while_they_run_are_judged_by_their_weights() -> None:
    found = pair_sums(deployed("dense", w8a8_dynamic()).placed, (), RULES)
    assert [f.layer for f in found] == ["a", "b", "c"]
    assert all(f.verdict == "possible" for f in found)


# --- other weights ----------------------------------------------------------------------------


def avoided(name: str, **settings: Any) -> tuple[Deployed, list[str]]:
    before = deployed(name)
    placed, _ = ranged(before.network, w8a8(), before.batches, "any")
    tensors = [list(batch.inputs.values()) for batch in before.batches]
    changed, _ = avoid_saturation_(placed, lambda: tensors, RULES, **settings)
    freeze_(placed)
    return Deployed(before.network, placed, before.written, before.batches, RULES, None), changed


@pytest.mark.parametrize("name", ["plain", "dense", "residual"])
def test_only_layers_at_risk_get_other_weights(name: str) -> None:
    risky = [path for path, found in watched(deployed(name)).items() if found.at_risk]
    after, changed = avoided(name)
    assert set(risky) <= set(changed)
    assert not any(found.at_risk for found in watched(after).values())
    for site in plan_of(after.placed).quantized("weight"):
        layer = after.placed.get_submodule(site.name)
        assert isinstance(layer, Treated)
        assert layer.treatment.weight == site.format
        assert site.treatment == layer.treatment
        assert site.format == (NARROW if site.name in changed else "int8_narrow")
        assert bool(site.why_format) is (site.name in changed)


def test_unsigned_weights_are_taken_where_seven_bits_cost_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = deployed("dense")
    settings: dict[str, Any] = {
        "reference": before.network,
        "samples": [list(batch.inputs.values()) for batch in before.batches],
    }
    monkeypatch.setattr("kompakt.quantize.avoid_saturation.WORTH", 0.0)
    after, changed = avoided("dense", **settings)
    assert changed
    formats = {s.name: s.format for s in plan_of(after.placed).quantized("weight")}
    assert all(formats[path] == UNSIGNED for path in changed)
    monkeypatch.setattr("kompakt.quantize.avoid_saturation.WORTH", 1e6)
    after, changed = avoided("dense", **settings)
    formats = {s.name: s.format for s in plan_of(after.placed).quantized("weight")}
    assert all(formats[path] == NARROW for path in changed)
