"""Where quantizers go, and that every site without one says why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.errors import SchemeError, TargetError
from kompakt.network.capture import capture
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.numerics.granularity import PerChannel, PerGroup, PerTensor, PerToken
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import (
    calls_by_quantizer,
    is_quantizer_call,
    place,
    plan_of,
    quantizer_calls,
    quantizer_of,
)
from kompakt.quantize.plan import Site
from kompakt.schemes import Scheme, Treatment, float32, w4, w8, w8a8, w8a8_dynamic, w8a16

from ..nets import IMAGE, MODELS, ONNXRUNTIME, Net, conv, grid, network

RULES = ONNXRUNTIME.rules("x86-vnni")
WIDE = Treatment(mode="static", weight="int8_narrow", activation="auto16")


def placed(model: nn.Module | str, scheme: Scheme | None = None, *shape: int) -> Network:
    if isinstance(model, str):
        return place(network(model), scheme or w8a8(), RULES)
    captured = capture(model.eval(), grid(2, *(shape or IMAGE)))
    return place(inference_form(captured), scheme or w8a8(), RULES)


def sites(net: Network, role: str = "activation") -> dict[str, Site]:
    return {s.name: s for s in plan_of(net).sites if s.role == role}


def codes_at(net: Network) -> set[str]:
    return {name for name, site in sites(net).items() if site.format}


def feeds(net: Network, layer: str) -> list[bool]:
    """For each call of a layer, whether it reads codes."""
    calls = [n for n in net.graph.nodes if n.op == "call_module" and n.target == layer]
    return [is_quantizer_call(net, call.args[0]) for call in calls]


def one_scheme(**settings: Any) -> Scheme:
    return Scheme(name="test", default=Treatment(**settings))


# --- layers and what is fused into them -------------------------------------------------------


def test_nothing_is_quantized_between_a_convolution_and_its_relu() -> None:
    net = placed("plain")
    assert codes_at(net) == {"x", "a.2", "b.2", "mean"}
    for node in net.graph.nodes:
        if kind_of(node) == "relu":
            assert node.args[0].op == "call_module"
            assert not is_quantizer_call(net, node.args[0])


def test_a_relu6_is_fused_like_a_relu() -> None:
    assert codes_at(placed("depthwise")) == {"x", "a.2", "b.2", "c.0", "mean"}


def test_a_linear_head_hands_out_float() -> None:
    head = sites(placed("plain"))["head"]
    assert head.format is None
    assert "hands out float" in str(head.why_float)


def test_a_convolution_at_the_end_hands_out_codes() -> None:
    net = placed(
        Net(lambda s, x: s.b(s.a(x)), a=conv(3, 4), b=nn.Conv2d(4, 2, 1)),
    )
    assert sites(net)["b"].format == "uint8"
    assert feeds(net, "b") == [True]


@pytest.mark.parametrize("name", ["dense", "dense 3d"])
def test_a_dense_net_has_codes_before_every_layer(name: str) -> None:
    net = placed(name)
    assert codes_at(net) == {"x", "relu", "relu_1"}
    assert feeds(net, "a") == feeds(net, "b") == feeds(net, "c") == [True]


def test_activations_are_signed_on_arm_only() -> None:
    for isa, wanted in (("arm", "int8"), ("arm64-dotprod", "int8"), ("x86", "uint8")):
        net = place(network("plain"), w8a8(), ONNXRUNTIME.rules(isa))
        assert {s.format for s in sites(net).values() if s.format} == {wanted}
    wide = place(network("plain"), w8a16(), ONNXRUNTIME.rules("arm"))
    assert {s.format for s in sites(wide).values() if s.format} == {"int16"}


# --- operators between layers -----------------------------------------------------------------


def test_a_residual_addition_reads_codes_on_both_sides() -> None:
    net = placed("residual")
    addition = next(n for n in net.graph.nodes if kind_of(n) == "add")
    assert all(is_quantizer_call(net, a) for a in addition.args)
    assert "add" not in codes_at(net), "its ReLU is fused: codes come after that"
    assert "relu" in codes_at(net)


def test_an_addition_of_the_input_itself_reads_its_codes() -> None:
    net = placed("input residual")
    addition = next(n for n in net.graph.nodes if kind_of(n) == "add")
    assert all(is_quantizer_call(net, a) for a in addition.args)


def test_an_addition_before_a_normalisation_stays_float() -> None:
    rows = sites(placed("encoder"))
    assert rows["block.add"].format is None
    assert rows["block.add"].why_float == "it does not lie between integer kernels"


def test_a_concatenation_shares_one_quantizer_with_its_inputs() -> None:
    net = placed("concat")
    calls = quantizer_calls(net)
    shared = {calls[site].target for site in ("b.2", "c.2", "cat")}
    assert len(shared) == 1
    assert set(plan_of(net).shared) | {plan_of(net).shared["b.2"]} == {"b.2", "c.2", "cat"}
    assert calls["a.2"].target not in shared


def test_a_concatenation_of_clipped_and_free_ranges_shares_nothing() -> None:
    net = placed("mixed concat")
    calls = quantizer_calls(net)
    assert len({calls[site].target for site in ("b.0", "c.2", "cat")}) == 3
    assert plan_of(net).shared == {}


def test_operators_that_move_codes_repeat_the_quantizer_before_them() -> None:
    net = placed("movers")
    listed = calls_by_quantizer(net)
    origin = next(path for path, names in listed.items() if "a.2" in names)
    assert listed[origin].count("a.2") >= 6
    movers = {"max_pool", "reshape", "transpose", "slice", "getitem", "pad"}
    for node in net.graph.nodes:
        if kind_of(node) in movers and kind_of(node.args[0]) not in ("input", "split", "pad"):
            assert is_quantizer_call(net, node.args[0]), node
    assert not movers & {s.kind for s in sites(net).values() if s.format}, "they make no new codes"


def test_spatial_zero_padding_is_left_to_the_convolution() -> None:
    net = placed("movers")
    first = next(n for n in net.graph.nodes if kind_of(n) == "pad")
    assert is_quantizer_call(net, first.args[0])
    assert not any(is_quantizer_call(net, user) for user in first.users)


@pytest.mark.parametrize(("mode", "value"), [("reflect", None), ("constant", 1.0)])
def test_other_padding_is_not_left_to_the_convolution(mode: str, value: float | None) -> None:
    net = placed(
        Net(
            lambda s, x: s.b(F.pad(s.a(x), (1, 1, 1, 1), mode=mode, value=value)),
            a=conv(3, 4),
            b=conv(4, 4, padding=0),
        )
    )
    pad = next(n for n in net.graph.nodes if kind_of(n) == "pad")
    assert all(is_quantizer_call(net, user) for user in pad.users)
    same = quantizer_calls(net)["a.2"].target == next(iter(pad.users)).target
    assert same is (mode == "reflect"), "a new number needs a range of its own"


def test_a_global_average_pool_has_its_own_codes() -> None:
    net = placed("plain")
    calls = quantizer_calls(net)
    assert calls["mean"].target != calls["b.2"].target


def test_a_scaled_addition_is_no_integer_addition() -> None:
    net = placed(
        Net(
            lambda s, x: s.b(torch.add(s.a(x), s.c(x), alpha=2.0)),
            a=conv(3, 4),
            c=conv(3, 4),
            b=conv(4, 4),
        )
    )
    row = sites(net)["add"]
    assert row.format == "uint8"
    assert row.kind == "add"


@pytest.mark.parametrize("name", ["gate", "darknet"])
def test_no_float_island_lies_between_integer_kernels(name: str) -> None:
    net = placed(name)
    floats = [s for s in sites(net).values() if s.format is None]
    assert [s.name for s in floats if s.name != "head"] == []
    for node in net.graph.nodes:
        if kind_of(node) in ("add", "mul"):
            assert all(is_quantizer_call(net, a) for a in node.args), node


# --- layers that cannot be treated ------------------------------------------------------------


def test_a_layer_that_stays_float_says_why() -> None:
    rows = sites(placed("encoder"), "weight")
    assert "normalisation" in str(rows["block.norm1"].why_float)
    linears = {name for name, row in rows.items() if row.kind == "linear"}
    assert linears == {
        "stem",
        "block.self_attn.in_proj",
        "block.self_attn.out_proj",
        "block.linear1",
        "block.linear2",
        "head",
    }
    assert all(rows[name].format == "int8_narrow" for name in linears)


def test_recurrent_layers_are_listed_and_say_why() -> None:
    for scheme in (w8a8(), w8a8_dynamic(), w8()):
        row = sites(placed("recurrent", scheme), "weight")["lstm"]
        assert row.format is None
        assert row.kind == "rnn"
        assert row.why_float


def test_a_transposed_convolution_says_why_but_may_store_few_bits() -> None:
    model = Net(
        lambda s, x: s.b(s.up(s.a(x))),
        a=conv(3, 4),
        up=nn.ConvTranspose2d(4, 4, 2, 2),
        b=conv(4, 4),
    )
    row = sites(placed(model), "weight")["up"]
    assert row.format is None
    assert "transposed" in str(row.why_float)
    assert sites(placed(model, w8()), "weight")["up"].format == "int8_narrow"


def test_an_embedding_is_stored_in_few_bits_beside_static_layers() -> None:
    net = placed("words")
    assert sites(net, "weight")["table"].format == "int8_narrow"
    assert feeds(net, "body") == [True]
    plain = Scheme(name="t", default=w8a8().default)
    assert sites(placed("words", plain), "weight")["table"].why_float == (
        "the scheme leaves it in float"
    )


def test_a_convolution_that_pads_otherwise_reads_padded_codes() -> None:
    net = placed(
        Net(
            lambda s, x: s.b(s.a(x)),
            a=conv(3, 4),
            b=nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        )
    )
    assert feeds(net, "b") == [True]


EVERY = [(name, scheme) for name in MODELS for scheme in (w8a8(), w8a8_dynamic(), w8())]


@pytest.mark.parametrize(("name", "scheme"), EVERY, ids=lambda v: getattr(v, "name", v))
def test_every_layer_and_every_edge_is_listed_once_with_format_or_reason(
    name: str, scheme: Scheme
) -> None:
    captured = network(name)
    try:
        net = place(captured, scheme, RULES)
    except SchemeError as error:
        refused = error.code
    else:
        refused = None
    if refused is not None:
        assert refused == "K345"
        return
    rows = plan_of(net).sites
    keys = [(row.name, row.role) for row in rows]
    assert len(keys) == len(set(keys))
    assert all((row.format is None) == bool(row.why_float) for row in rows)

    owners = {
        str(n.target)
        for n in captured.graph.nodes
        if n.op == "call_module"
        and next(captured.get_submodule(str(n.target)).parameters(), None) is not None
    }
    assert {row.name for row in rows if row.role == "weight"} == owners
    for row in rows:
        if row.role == "activation":
            assert (row.quantizer is not None) == (row.format is not None)


def test_a_layer_called_twice_is_one_site_with_two_calls() -> None:
    net = placed("twice")
    assert [s.name for s in plan_of(net).sites if s.role == "weight"] == ["a", "b", "head"]
    assert feeds(net, "b") == [True, True]
    inputs = [n.args[0].target for n in net.graph.nodes if n.target == "b"]
    assert len(set(inputs)) == 2, "each call has its own input range"


# --- selectors and formats --------------------------------------------------------------------


def test_what_is_kept_in_float_is_float_and_its_surroundings_are_not() -> None:
    net = placed("plain", w8a8(keep_float=("b.*",)))
    assert sites(net, "weight")["b.0"].why_float == "the scheme leaves it in float"
    assert not isinstance(net.get_submodule("b.0"), Treated)
    assert feeds(net, "head") == [True]
    assert feeds(placed("plain", w8a8(keep_float=("type:Linear",))), "head") == [False]


def test_the_last_override_wins() -> None:
    scheme = w8a8(keep_float=("kind:conv",)).with_override("a.*", w8a8().default)
    rows = sites(placed("plain", scheme), "weight")
    assert rows["a.0"].format == "int8_narrow"
    assert rows["b.0"].format is None


@pytest.mark.parametrize("select", ["convv.*", "kind:convolution", "type:Conv9d"])
def test_a_selector_that_matches_nothing_is_refused(select: str) -> None:
    with pytest.raises(SchemeError) as caught:
        placed("plain", w8a8(keep_float=(select,)))
    assert caught.value.code == "K320"


def test_a_scheme_that_would_treat_nothing_is_refused() -> None:
    only_convolutions = Net(lambda s, x: s.a(x), a=conv(3, 4))
    with pytest.raises(SchemeError) as caught:
        placed(only_convolutions, w8a8_dynamic())
    assert caught.value.code == "K345"
    assert plan_of(placed(only_convolutions, float32())).taps == {}


def test_the_widest_format_asked_for_wins_where_a_quantizer_is_shared() -> None:
    rows = sites(placed("plain", w8a8().with_override("head", WIDE)))
    assert rows["mean"].format == "uint16"
    assert rows["b.2"].format == "uint8"
    net = placed("concat", w8a8().with_override("b.*", WIDE))
    calls = quantizer_calls(net)
    for site in ("b.2", "c.2", "cat"):
        assert sites(net)[site].format == "uint16"
        assert quantizer_of(net, calls[site]).format.name == "uint16"


REFUSED = [
    {"mode": "static", "weight": "int2", "activation": "auto8"},
    {"mode": "static", "weight": "int8", "activation": "int4"},
    {"mode": "weight_only", "weight": "fp8_e4m3"},
    {"mode": "dynamic", "weight": "int8", "activation": "int16"},
    {"mode": "dynamic", "weight": "int8", "activation": "uint8", "symmetric_weight": False},
    {"mode": "static", "weight": "int8", "activation": "auto8", "granularity": PerGroup(1, 16)},
    {"mode": "static", "weight": "int8", "activation": "auto8", "granularity": PerChannel(1)},
    {"mode": "dynamic", "weight": "int8", "activation": "uint8", "granularity": PerGroup(1, 16)},
    {"mode": "weight_only", "weight": "int4", "granularity": PerGroup(0, 16)},
    {"mode": "weight_only", "weight": "int4", "granularity": PerGroup(1, 20)},
    {"mode": "weight_only", "weight": "int8", "granularity": PerToken()},
]


@pytest.mark.parametrize("settings", REFUSED, ids=str)
def test_what_the_runtime_has_no_kernel_for_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TargetError) as caught:
        placed("dense", one_scheme(**settings))
    assert caught.value.code == "K400"
    assert "it executes" in caught.value.help


def test_groups_become_channels_where_a_layer_has_no_features_to_group() -> None:
    net = placed("plain", w4())
    treatment = sites(net, "weight")["a.0"].treatment
    assert treatment is not None
    assert treatment.weight == "int8_narrow"
    assert treatment.granularity == PerChannel(0)
    head = sites(net, "weight")["head"].treatment
    assert head is not None
    assert head.granularity == PerGroup(1, 32)


def test_per_tensor_weights_are_possible() -> None:
    scheme = one_scheme(
        mode="static", weight="int8_narrow", activation="auto8", granularity=PerTensor()
    )
    treatment = sites(placed("plain", scheme), "weight")["a.0"].treatment
    assert treatment is not None
    assert treatment.granularity == PerTensor()


def test_placing_changes_a_copy_only() -> None:
    captured = network("residual")
    before = [str(n) for n in captured.graph.nodes]
    place(captured, w8a8(), RULES)
    assert [str(n) for n in captured.graph.nodes] == before
    assert not any(isinstance(m, Treated) for m in captured.modules())


class Tied(nn.Module):
    """One weight, used by an embedding and by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.table(ids)))


def test_tied_weights_are_two_sites() -> None:
    captured = inference_form(capture(Tied().eval(), torch.zeros(2, 3, dtype=torch.int64)))
    rows = sites(place(captured, w8a8(), RULES), "weight")
    assert {name: row.format for name, row in rows.items()} == {
        "table": "int8_narrow",
        "head": "int8_narrow",
    }
