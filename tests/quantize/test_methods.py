"""The contract of every registered method."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kompakt.network.network import Network
from kompakt.quantize import METHODS
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.layers import Treated, fix_grid_, grid_of, weight_parameters
from kompakt.schemes import w8a8

from ..nets import ONNXRUNTIME, batches_for, network, ranged

NETS = ["plain", "residual", "depthwise", "encoder"]
PLACED = [name for name, method in METHODS.items() if method.works_on == "placed"]
FLOAT = [name for name, method in METHODS.items() if method.works_on == "float"]


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def shapes(net: Network) -> list[str]:
    """Every shape the network knows, in words: a dynamic size that was fixed shows as a number."""
    values = [node.meta.get("val") for node in net.graph.nodes]
    return [str(tuple(v.shape)) for v in values if isinstance(v, Tensor)]


def samples(name: str) -> list[list[Tensor]]:
    return [list(batch.inputs.values()) for batch in batches_for(name)]


def relative(ours: Tensor, exact: Tensor) -> float:
    return float((ours - exact).norm() / exact.norm())


def run(method: str, *arguments: Any) -> Any:
    return METHODS[method].run(*arguments)


@pytest.mark.parametrize("method", PLACED)
@pytest.mark.parametrize("name", NETS)
def test_it_edits_the_placed_network_only_and_is_deterministic(method: str, name: str) -> None:
    captured = network(name)
    first, _ = ranged(captured, w8a8(), batches_for(name))
    second = copy.deepcopy(first)
    before, nodes = snapshot(captured), [str(n) for n in first.graph.nodes]
    sizes = shapes(captured)
    changed = run(method, first, captured, samples(name))
    assert changed == run(method, second, captured, samples(name))
    assert same(before, snapshot(captured))
    assert [str(n) for n in first.graph.nodes] == nodes
    assert shapes(captured) == sizes, "dynamic sizes stay dynamic"
    assert same(snapshot(first), snapshot(second))
    x = samples(name)[0][0]
    with torch.no_grad():
        exact = captured(x)
        assert relative(first(x), exact) < 0.2
        assert relative(freeze_(first)(x), exact) < 0.2


@pytest.mark.parametrize("method", FLOAT)
@pytest.mark.parametrize("name", NETS)
def test_it_gives_back_the_same_function(method: str, name: str) -> None:
    captured = network(name)
    before, nodes = snapshot(captured), [str(n) for n in captured.graph.nodes]
    rules, sizes = ONNXRUNTIME.rules("x86-vnni"), shapes(captured)
    changed, count = run(method, captured, w8a8(), rules, samples(name))
    again, same_count = run(method, captured, w8a8(), rules, samples(name))
    assert count == same_count
    assert same(before, snapshot(captured)), "the network given to it stays as it is"
    assert [str(n) for n in captured.graph.nodes] == nodes
    assert shapes(captured) == sizes, "dynamic sizes stay dynamic"
    assert same(snapshot(changed), snapshot(again))
    x = samples(name)[0][0]
    with torch.no_grad():
        assert relative(changed(x), captured(x)) < 1e-5
    assert [s.name for s in changed.input_specs] == [s.name for s in captured.input_specs]


@pytest.mark.parametrize("method", [n for n in PLACED if METHODS[n].samples])
def test_without_samples_nothing_changes(method: str) -> None:
    captured = network("plain")
    placed, _ = ranged(captured, w8a8(), batches_for("plain"))
    before = snapshot(placed)
    assert run(method, placed, captured, []) == 0
    assert same(before, snapshot(placed))


def test_a_registered_method_says_what_a_user_must_know() -> None:
    for method in METHODS.values():
        text = inspect.getdoc(inspect.getmodule(method.run)) or ""
        for heading in ("What it does", "When to use", "Cost", "Formula", "Limits", "Reference"):
            assert f"\n{heading}\n" in text
        assert method.samples >= 0


def test_a_grid_that_a_method_chose_is_the_one_that_is_written() -> None:
    placed, _ = ranged(network("plain"), w8a8(), batches_for("plain"))
    layer = placed.get_submodule("b.0")
    assert isinstance(layer, Treated)
    scale, zero_point = weight_parameters(layer.weight, layer.treatment)
    chosen = scale * 0.75
    simulated = layer.treated_weight()
    fix_grid_(layer, chosen, zero_point)
    assert torch.equal(grid_of(layer)[0], chosen)
    clipped = layer.treated_weight()
    assert not torch.equal(simulated, clipped)
    freeze_(placed)
    assert layer.weight_scale is not None
    assert torch.equal(layer.weight_scale, chosen)
    assert torch.equal(layer.treated_weight(), clipped)
