"""The parts of every site's error: where they come from, and that they add up."""

from __future__ import annotations

import pytest
import torch

from kompakt.measuring.error_split import ErrorSplit, SiteError, measure_alone, split_errors
from kompakt.network.network import Network
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import plan_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.schemes import w8a8, w8a8_dynamic

from ..nets import TARGETS, batches_for, network, ranged


def inputs(name: str) -> list[list[torch.Tensor]]:
    return [list(batch.inputs.values()) for batch in batches_for(name)]


def at(split: ErrorSplit, role: str, site: str) -> SiteError:
    return next(e for e in split.sites if (e.site.role, e.site.name) == (role, site))


def placed(name: str, scheme: object = None) -> Network:
    return ranged(network(name), scheme or w8a8(), batches_for(name))[0]  # type: ignore[arg-type]


def quantizer(net: Network, site: str) -> Quantizer:
    row = next(s for s in plan_of(net).quantized("activation") if s.name == site)
    found = net.get_submodule(str(row.quantizer))
    assert isinstance(found, Quantizer)
    return found


@pytest.mark.parametrize("name", ["residual", "concat", "encoder", "movers", "gate", "darknet"])
def test_the_parts_of_an_edge_add_up_to_its_error(name: str) -> None:
    split = split_errors(placed(name), network(name), inputs(name))
    for error in split.sites:
        parts = [error.clipping, error.rounding, error.propagated]
        assert error.total <= 3 * sum(parts) + 1e-12, error.site.name
        assert error.signal > 0
    assert 0 < split.output < 0.05
    assert split.samples == 8


def test_a_cut_range_is_clipping_and_a_wide_one_is_rounding() -> None:
    for factor, part, other in ((0.1, "clipping", "rounding"), (50.0, "rounding", "clipping")):
        net = placed("plain")
        found = quantizer(net, "a.2")
        scale, zero = found.parameters_()
        found.set_parameters(scale * factor, zero)
        edge = at(split_errors(net, network("plain"), inputs("plain")), "activation", "a.2")
        assert getattr(edge, part) > 20 * getattr(edge, other)
        assert edge.facts is not None
        assert (edge.facts.outside > 0) == (part == "clipping")


def test_what_came_in_wrong_is_counted_apart() -> None:
    net = placed("plain")
    found = quantizer(net, "x")
    scale, zero = found.parameters_()
    found.set_parameters(scale * 60, zero)
    split = split_errors(net, network("plain"), inputs("plain"))
    layer = at(split, "weight", "b.0")
    assert layer.propagated > 50 * layer.own
    measure_alone(split, net, network("plain"), inputs("plain"))
    loudest = max(split.sites, key=lambda e: e.alone or 0.0)
    assert loudest.site.name == "x"
    assert loudest.alone == pytest.approx(split.output, rel=0.3)


def test_the_referee_of_another_arithmetic_differs_by_its_formula() -> None:
    net = ranged(network("darknet"), w8a8(), batches_for("darknet"), target="litert")[0]
    split = split_errors(net, network("darknet"), inputs("darknet"))
    assert sum(e.formula for e in split.sites) > 0
    assert all(e.formula <= 4 * e.rounding + 1e-9 for e in split.sites)


def test_saturating_sums_are_told_where_they_happen() -> None:
    net = placed("dense")
    rules = TARGETS["onnxruntime"].rules("x86-avx2")
    layer = net.get_submodule("a")
    assert isinstance(layer, Treated)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.sign() * 0.1)
    reference = network("dense")
    calm = split_errors(net, reference, inputs("dense"), rules=rules)
    wild = split_errors(net, reference, inputs("dense"), rules=rules, saturates=True)
    assert at(calm, "weight", "a").saturation == 0
    assert at(wild, "weight", "a").saturation > 0
    assert wild.output > calm.output


def test_dynamic_layers_and_tables_of_words_are_split_too() -> None:
    net = placed("words", w8a8_dynamic())
    split = split_errors(net, network("words"), inputs("words"))
    assert {e.site.name for e in split.sites} >= {"body", "head"}
    assert all(e.own > 0 for e in split.sites)


def test_neither_network_is_changed() -> None:
    net, reference = placed("residual"), network("residual")
    before = {k: v.clone() for k, v in (*net.state_dict().items(), *reference.state_dict().items())}
    split = split_errors(net, reference, inputs("residual"))
    measure_alone(split, net, reference, inputs("residual"))
    after = dict((*net.state_dict().items(), *reference.state_dict().items()))
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(m.frozen for m in net.modules() if isinstance(m, Treated))
