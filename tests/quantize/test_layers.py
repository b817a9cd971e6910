"""Treated layers: what they simulate before freezing is trainable, what they compute afterwards is what is written."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.errors import NumericsError, SchemeError
from kompakt.numerics import reference
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import Granularity, PerChannel, PerGroup, PerTensor
from kompakt.quantize.integer import centred_weight
from kompakt.quantize.layers import (
    BIAS_LIMIT,
    TREATED,
    Treated,
    freeze_layer_,
    treat_,
    weight_parameters,
)
from kompakt.quantize.quantizer import stage
from kompakt.schemes import Treatment


def treated(layer: nn.Module, treatment: Treatment) -> Treated:
    treat_(layer, "site", treatment)
    assert isinstance(layer, Treated)
    return layer


def weight_only(weight: str, granularity: Granularity, *, symmetric: bool = True) -> Treatment:
    return Treatment(
        mode="weight_only", weight=weight, granularity=granularity, symmetric_weight=symmetric
    )


STATIC = Treatment(mode="static", weight="int8_narrow", activation="uint8")
DYNAMIC = Treatment(mode="dynamic", weight="int8_narrow", activation="uint8")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


MAKERS = {
    nn.Conv1d: (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    nn.Conv2d: (lambda: nn.Conv2d(4, 6, 3, padding=1, stride=2), (2, 4, 9, 9)),
    nn.Conv3d: (lambda: nn.Conv3d(4, 6, 2), (2, 4, 5, 5, 5)),
    nn.ConvTranspose1d: (lambda: nn.ConvTranspose1d(4, 6, 3, 2, output_padding=1), (2, 4, 9)),
    nn.ConvTranspose2d: (lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (2, 4, 7, 7)),
    nn.ConvTranspose3d: (lambda: nn.ConvTranspose3d(4, 6, 2), (2, 4, 4, 4, 4)),
    nn.Linear: (lambda: nn.Linear(4, 6), (2, 3, 4)),
    nn.Embedding: (lambda: nn.Embedding(9, 6, padding_idx=0), None),
}


def example(kind: type[nn.Module]) -> Tensor:
    shape = MAKERS[kind][1]
    return torch.arange(8).reshape(2, 4) if shape is None else torch.randn(*shape)


def test_every_treated_layer_is_tested() -> None:
    assert set(MAKERS) == set(TREATED)


@pytest.mark.parametrize("kind", TREATED, ids=lambda k: k.__name__)
@pytest.mark.parametrize("frozen", [False, True], ids=["simulated", "frozen"])
def test_a_treated_layer_computes_like_its_own_layer_with_rounded_weights(
    kind: type[nn.Module], frozen: bool
) -> None:
    x = example(kind)
    plain = MAKERS[kind][0]()
    layer = treated(copy.deepcopy(plain), weight_only("int8_narrow", PerChannel(0)))
    if frozen:
        freeze_layer_(layer, None, integer_bias=False)
    scale, zero_point = weight_parameters(plain.weight, layer.treatment)
    codes = reference.quantize(
        plain.weight.detach().numpy(), scale.numpy(), zero_point.numpy(), -127, 127, PerChannel(0)
    )
    decoded = reference.dequantize(codes, scale.numpy(), zero_point.numpy(), PerChannel(0))
    with torch.no_grad():
        exact = plain(x)
        plain.weight.copy_(torch.from_numpy(decoded))
        assert torch.allclose(layer(x), plain(x), atol=1e-6)
        with stage(layer, "off"):
            assert torch.allclose(layer(x), exact, atol=1e-6), "off: its own unrounded weights"
            assert not torch.equal(layer(x), plain(x))
    assert set(layer.state_dict()) >= set(plain.state_dict()), "keys stay what they were"


@pytest.mark.parametrize("kind", TREATED, ids=lambda k: k.__name__)
def test_gradients_reach_the_weights_straight_through(kind: type[nn.Module]) -> None:
    layer = treated(MAKERS[kind][0](), weight_only("int4", PerChannel(0)))
    layer(example(kind)).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0
    with torch.no_grad():
        rounded = layer.treated_weight()
    assert torch.equal(layer.treated_weight().detach(), rounded), "rounded to the bit in training"


CASES = [
    ("int8_narrow", PerTensor(), True),
    ("int8_narrow", PerChannel(0), True),
    ("int8", PerChannel(1), False),
    ("uint8", PerChannel(0), True),
    ("uint8", PerTensor(), False),
    ("int4", PerGroup(1, 16), True),
    ("int4", PerGroup(-1, 16), True),
    ("uint4", PerGroup(1, 16), True),
    ("uint4", PerGroup(1, 16), False),
    ("int8_narrow", PerGroup(1, 32), True),
    ("fp16", PerTensor(), True),
    ("bf16", PerTensor(), True),
]


@pytest.mark.parametrize(("fmt", "granularity", "symmetric"), CASES, ids=str)
@pytest.mark.parametrize("features", [48, 40, 5], ids=["whole groups", "ragged group", "one group"])
def test_freezing_changes_no_number(
    fmt: str, granularity: Granularity, symmetric: bool, features: int
) -> None:
    layer = treated(nn.Linear(features, 6), weight_only(fmt, granularity, symmetric=symmetric))
    with torch.no_grad():
        layer.weight.add_(0.05)  # zero points that matter
        before = layer.treated_weight().clone()
        freeze_layer_(layer, None, integer_bias=False)
        assert torch.equal(layer.treated_weight(), before)
        x = torch.randn(3, features)
        assert torch.allclose(layer(x), F.linear(x, before, layer.bias), atol=1e-5)
    bits = get_format(fmt).bits
    weight = layer.weight.detach()
    worst = float((before - weight).abs().max() / weight.abs().max())
    assert worst < 1.6 / (2**bits - 2) if bits <= 8 else worst < 2**-8


@pytest.mark.parametrize("features", [64, 40])
def test_group_codes_decode_as_the_independent_reference_says(features: int) -> None:
    layer = treated(nn.Linear(features, 6), weight_only("uint4", PerGroup(1, 16), symmetric=False))
    freeze_layer_(layer, None, integer_bias=False)
    assert layer.weight_codes is not None
    assert layer.weight_scale is not None
    assert layer.weight_zero_point is not None
    groups = -(-features // 16)
    assert layer.weight_codes.shape == (features, 6), "as blocked kernels want it"
    assert layer.weight_scale.shape == layer.weight_zero_point.shape == (groups, 6)
    codes, scale = layer.weight_codes.numpy().astype(np.int64), layer.weight_scale.numpy()
    zero = layer.weight_zero_point.numpy().astype(np.int64)
    assert codes.min() >= 0
    assert codes.max() <= 15
    wanted = np.empty((6, features), np.float32)
    for o in range(6):
        for i in range(features):
            wanted[o, i] = np.float32(codes[i, o] - zero[i // 16, o]) * scale[i // 16, o]
    assert np.array_equal(layer.treated_weight().detach().numpy(), wanted)


@pytest.mark.parametrize(
    ("fmt", "granularity", "symmetric"),
    [
        ("int8_narrow", PerChannel(0), True),
        ("uint8", PerChannel(0), False),
        ("uint8", PerChannel(0), True),
        ("int8", PerTensor(), True),
        ("fp16", PerTensor(), True),
    ],
    ids=str,
)
def test_an_embedding_looks_up_rows_and_decodes_those(
    fmt: str, granularity: Granularity, symmetric: bool
) -> None:
    layer = treated(nn.Embedding(30, 6), weight_only(fmt, granularity, symmetric=symmetric))
    with torch.no_grad():
        layer.weight.add_(1.0)
        ids = torch.randint(0, 30, (4, 7))
        wanted = F.embedding(ids, layer.treated_weight())
        freeze_layer_(layer, None, integer_bias=False)
        assert torch.equal(layer(ids), wanted)
        assert torch.allclose(layer(ids), F.embedding(ids, layer.weight), atol=0.05)


def test_a_dynamic_layer_rounds_with_the_range_of_its_input() -> None:
    layer = treated(nn.Linear(16, 4), DYNAMIC)
    x = torch.randn(3, 5, 16) * 3 + 1
    simulated = layer(x)
    freeze_layer_(layer, None, integer_bias=False)
    assert torch.equal(layer(x), simulated)
    assert layer.weight_scale is not None
    assert layer.weight_codes is not None
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32(np.float32(high - low) / np.float32(255))
    zero = np.clip(np.rint(-np.float32(low) / scale), 0, 255)
    codes = np.clip(np.rint(x.numpy() / scale) + zero, 0, 255) - zero
    sums = codes.astype(np.int64) @ layer.weight_codes.numpy().astype(np.int64)
    exact = sums * (scale * layer.weight_scale.numpy()) + layer.bias.detach().numpy()  # type: ignore[union-attr]
    assert np.allclose(simulated.detach().numpy(), exact, rtol=1e-6, atol=1e-6)


# --- static layers ----------------------------------------------------------------------------


def test_a_static_bias_is_stored_in_the_scale_of_the_sums() -> None:
    layer = treated(nn.Conv2d(3, 4, 3), STATIC)
    freeze_layer_(layer, torch.tensor(0.02), integer_bias=True)
    assert layer.bias_codes is not None
    assert layer.bias_scale is not None
    assert layer.weight_scale is not None
    assert layer.bias_codes.dtype == torch.int32
    assert torch.equal(layer.bias_scale, torch.tensor(0.02) * layer.weight_scale)
    exact = layer.bias_codes.double() * layer.bias_scale.double()
    assert layer.bias is not None
    assert (
        float((exact - layer.bias.detach()).abs().max())
        <= float(layer.bias_scale.max()) / 2 * 1.001
    )
    bias = layer.treated_bias()
    assert bias is not None
    assert torch.allclose(bias, exact.float())


@pytest.mark.parametrize("granularity", [PerChannel(0), PerTensor()], ids=str)
def test_a_dead_channel_does_not_make_its_bias_overflow(granularity: Granularity) -> None:
    treatment = Treatment(
        mode="static", weight="int8_narrow", activation="uint8", granularity=granularity
    )
    layer = treated(nn.Conv2d(3, 4, 3), treatment)
    tiny = slice(1, 2) if granularity == PerChannel(0) else slice(None)
    with torch.no_grad():
        layer.weight[tiny] *= 1e-12
        layer.bias[1] = 3.0  # type: ignore[index]
    unguarded = 3.0 / (0.02 * float(layer.weight[tiny].abs().max()) / 127)
    assert unguarded > 2**31
    freeze_layer_(layer, torch.tensor(0.02), integer_bias=True)
    bias = layer.treated_bias()
    assert bias is not None
    assert layer.bias_codes is not None
    assert int(layer.bias_codes.abs().max()) <= BIAS_LIMIT
    assert float(bias[1]) == pytest.approx(3.0, rel=1e-6)
    assert torch.allclose(bias, layer.bias, rtol=1e-2, atol=1e-6)


def test_codes_without_their_zero_points() -> None:
    treatment = Treatment(mode="static", weight="uint8", activation="uint8", symmetric_weight=False)
    layer = treated(nn.Conv2d(3, 4, 3), treatment)
    freeze_layer_(layer, torch.tensor(0.02), integer_bias=True)
    assert layer.weight_scale is not None
    centred = centred_weight(layer)
    assert torch.equal(centred, centred.round())
    decoded = centred * layer.weight_scale.reshape(-1, 1, 1, 1)
    assert torch.allclose(decoded, layer.weight, atol=float(layer.weight_scale.max()) * 0.51)


# --- what cannot be stored --------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["int8", "int4", "fp16", "bf16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(fmt: str, bad: float) -> None:
    layer = treated(nn.Linear(4, 4), weight_only(fmt, PerTensor()))
    with torch.no_grad():
        layer.weight[0, 0] = bad
    with pytest.raises(NumericsError) as caught:
        freeze_layer_(layer, None, integer_bias=False)
    assert caught.value.code == "K301"
    assert caught.value.where == "site"


def test_weights_that_half_precision_cannot_hold_are_refused() -> None:
    layer = treated(nn.Linear(4, 4), weight_only("fp16", PerTensor()))
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
    with pytest.raises(NumericsError) as caught:
        freeze_layer_(layer, None, integer_bias=False)
    assert caught.value.code == "K301"
    assert "bf16" in caught.value.help
    freeze_layer_(
        treated(nn.Linear(4, 4), weight_only("bf16", PerTensor())), None, integer_bias=False
    )


def test_a_layer_without_a_treated_form_is_refused() -> None:
    with pytest.raises(SchemeError) as caught:
        treat_(nn.LayerNorm(4), "norm", STATIC)
    assert caught.value.code == "K344"
    assert "LayerNorm" in caught.value.why
