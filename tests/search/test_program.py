"""The integer program picks what trying everything would pick; costs learn from what files took."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from kompakt.search.candidates import static
from kompakt.search.costs import (
    Costs,
    boundary_elements,
    latency_costs,
    owners_of,
    size_costs,
)
from kompakt.search.program import cheapest
from kompakt.search.sensitivity import CHOICES, Terms
from kompakt.search.split import example_batch

from ..nets import network
from .benches import workbench

LAYERS = dict.fromkeys("abcd", ("int8", "int4"))
ON_CODES = frozenset({"int8", "int4"})


def planted(seed: int) -> tuple[Costs, Terms]:
    rng = np.random.default_rng(seed)
    own = {(layer, name): float(rng.random()) for layer in LAYERS for name in LAYERS[layer]}
    table = {
        (layer, name): float(rng.random() + (name == "float"))
        for layer in LAYERS
        for name in ("float", *LAYERS[layer])
    }
    pairs = {pair: float(0.3 * rng.random()) for pair in [("a", "b"), ("b", "c"), ("c", "d")]}
    edges = {("edge", a): float(0.2 * rng.random()) for a in "abc"}
    switched = {
        ("edge", a): {(a, "int8"), (a, "int4"), (b, "int8"), (b, "int4")}
        for a, b in ["ab", "bc", "cd"]
    }
    terms = Terms(layers=own, edges=edges, switched_by=switched)  # type: ignore[arg-type]
    return Costs(unit="ms", layers=table, boundaries=pairs), terms


def loss(plan: dict[str, str], terms: Terms) -> float:
    chosen = set(plan.items())
    own = sum(terms.layers.get(pair, 0.0) for pair in chosen)
    return own + sum(v for e, v in terms.edges.items() if terms.switched_by[e] & chosen)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [0.05, 0.5, 1.2, 9.0])
def test_it_finds_the_cheapest_plan(seed: int, limit: float) -> None:
    costs, terms = planted(seed)
    plans = [
        dict(zip(LAYERS, names, strict=True))
        for names in itertools.product(("float", "int8", "int4"), repeat=len(LAYERS))
    ]
    best = min(costs.of(p, ON_CODES) for p in plans if loss(p, terms) <= limit)
    found = cheapest(LAYERS, costs, terms, limit, ON_CODES)
    assert found is not None
    assert loss(found, terms) <= limit + 1e-9
    assert costs.of(found, ON_CODES) == pytest.approx(best, rel=2e-3)


def test_dear_conversions_keep_neighbours_alike() -> None:
    layers = {"a": ("int8",), "b": ("int8",), "c": ("int8",)}
    table = {
        (layer, name): float(name == "float") for layer in layers for name in ("float", "int8")
    }
    table["b", "int8"] = 1.5  # this layer alone is slower on codes
    cheap = Costs(unit="ms", layers=table, boundaries={("a", "b"): 0.1, ("b", "c"): 0.1})
    dear = Costs(unit="ms", layers=table, boundaries={("a", "b"): 0.4, ("b", "c"): 0.4})
    assert cheapest(layers, cheap, Terms(), 1.0, ON_CODES) == {
        "a": "int8",
        "b": "float",
        "c": "int8",
    }
    assert cheapest(layers, dear, Terms(), 1.0, ON_CODES) == dict.fromkeys("abc", "int8")


def test_costs_learn_what_conversions_take() -> None:
    costs, _ = planted(0)
    plan = {"a": "int8", "b": "float", "c": "int8", "d": "int8"}
    own = costs.of(dict.fromkeys("abcd", "int8"), ON_CODES)
    assert costs.of(plan, ON_CODES) != own
    truth = costs.of(plan, ON_CODES) + 4 * (costs.boundaries["a", "b"] + costs.boundaries["b", "c"])
    for _ in range(5):
        costs.observe(plan, ON_CODES, truth)
    assert 2.0 < costs.conversion <= 5.0


def test_operators_without_weights_belong_to_the_layer_before_them(tmp_path: Path) -> None:
    bench = workbench("residual", tmp_path)
    owners = owners_of(bench.place(static("minmax")))
    assert {"a.0", "b.0", "head"} <= set(owners.values())
    assert owners["head"] == "head"


@pytest.mark.parametrize("profiled", [True, False])
def test_times_of_layers_add_up_to_the_files(
    profiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    bench = workbench("plain", tmp_path)
    if not profiled:
        bench.target = replace(bench.target, profile=None)
    base = bench.build(static("mse"))
    names = {"a.0": ("int8",), "b.0": ("int8",), "head": ("int8",)}
    example = example_batch(bench.prepared, bench.samples, 1)
    choices = {"int8": CHOICES["int8"]}
    costs = latency_costs(bench, example, names, choices, base, "int8")
    assert costs.measured is profiled
    assert set(costs.layers) == {(n, c) for n in names for c in ("float", "int8")}
    assert all(value >= 0 for value in costs.layers.values())
    assert costs.of(dict.fromkeys(names, "float"), ON_CODES) > 0
    assert set(costs.boundaries) == {("a.0", "b.0"), ("b.0", "head")}


def test_bytes_of_layers_are_those_of_their_weights() -> None:
    names = {"b.0": ("int8", "int4", "weights int4"), "head": ("int4", "weights int4")}
    costs = size_costs(network("plain"), names, CHOICES)
    assert costs.layers["b.0", "float"] == 4 * 8 * 8 * 9
    assert costs.layers["b.0", "int8"] == 8 * 8 * 9 + 5 * 8
    assert costs.layers["b.0", "int4"] == 8 * 8 * 9 / 2 + 5 * 8
    assert costs.layers["b.0", "weights int4"] == costs.layers["b.0", "int8"]
    assert costs.layers["head", "weights int4"] == 5 * 8 / 2 + 5 * 5


def test_tensors_between_layers_are_counted(tmp_path: Path) -> None:
    bench = workbench("residual", tmp_path)
    example = example_batch(bench.prepared, bench.samples, 1)
    found = boundary_elements(bench.prepared, {"a.0", "b.0", "head"}, example)
    assert found["a.0", "b.0"] == 8 * 10 * 10
    assert found["b.0", "head"] == found["a.0", "head"] == 8
