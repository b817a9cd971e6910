"""Spaces too large to be tried as a whole: the seed decides what is proposed, not who is finished first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.schemes import get_scheme
from kompakt.sweeping.plan import Plan, Space
from kompakt.sweeping.proposals import GENERATION, Proposals, in_turn
from kompakt.sweeping.sweep import sweep

from ..nets import grid

pytest.importorskip("optuna", reason="optuna is not installed")

LAYERS = ("0", "2", "4")


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3)
        )
    return inference_form(capture(model.eval(), torch.zeros(2, 6)))


def space() -> Space:
    return Space(
        schemes=(get_scheme("w8a8"), get_scheme("w8")),
        methods=((), ("bias_correction",)),
        targets=("onnxruntime",),
        calibrators=("mse", "minmax"),
        layers=LAYERS,
        treatments={"float32": get_scheme("float32").default},
    )


def cost(plan: Plan) -> dict[str, Any]:
    """A made-up result: layer 2 is what costs accuracy, and every layer in float costs size."""
    left = {layer for layer, _ in plan.layers}
    drop = (0.0 if "2" in left else 0.1) + 0.01 * (plan.methods == ())
    return {"outcome": "done", "drop": drop, "size_bytes": 1000 + 300 * len(left)}


def proposed(network: Network, rounds: int, sampler: str = "nsga2", seed: int = 0) -> list[Plan]:
    search = Proposals(space(), "onnxruntime", network, sampler=sampler, seed=seed)
    found: list[Plan] = []
    for _ in range(rounds):
        plans = search.next_plans(100)
        for plan in plans:
            search.learn(plan, cost(plan))
        found += plans
    return found


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_the_same_seed_proposes_the_same_plans(network: Network, sampler: str) -> None:
    first = proposed(network, 3, sampler)
    assert first == proposed(network, 3, sampler)
    assert first != proposed(network, 3, sampler, seed=1)


def test_plain_combinations_come_first_and_nothing_comes_twice(network: Network) -> None:
    plans = proposed(network, 4)
    assert {(p.scheme.name, p.methods) for p in plans[:4]} == {
        (s.name, m) for s in space().schemes for m in space().methods
    }
    assert all(plan.layers == () for plan in plans[:4])
    assert len({str(plan.to_json()) for plan in plans}) == len(plans)
    assert any(plan.layers for plan in plans)


def test_a_generation_is_no_larger_than_asked_for(network: Network) -> None:
    search = Proposals(space(), "onnxruntime", network, sampler="nsga2", seed=0)
    assert len(search.next_plans(3)) == 3
    other = Proposals(space(), "onnxruntime", network, sampler="nsga2", seed=0)
    assert len(other.next_plans(100)) == GENERATION


def test_the_work_of_a_scheme_counts_layers_by_what_they_compute_in(network: Network) -> None:
    search = Proposals(space(), "onnxruntime", network, sampler="nsga2", seed=0)
    macs = {"0": 6 * 32, "2": 32 * 8, "4": 8 * 3}
    total = sum(macs.values())
    whole = get_scheme("w8a8")
    assert search.work(get_scheme("float32")) == 1.0
    assert search.work(whole) == pytest.approx(0.25)
    kept = whole.with_override("2", get_scheme("float32").default)
    assert search.work(kept) == pytest.approx((macs["2"] + (macs["0"] + macs["4"]) / 4) / total)


def test_trials_are_dealt_out_evenly() -> None:
    assert in_turn(3, 8) == [3, 3, 2]
    assert in_turn(1, 5) == [5]


def test_a_space_with_layers_is_searched_and_the_search_is_repeatable(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    images = [grid(8, 3, 10, 10, seed=seed) for seed in range(2)]

    def swept(out: Path) -> Any:
        return sweep(
            model.eval(), example_inputs=grid(2, 3, 10, 10), calibration=images, validation=images,
            schemes=("w8a8",), methods=((),), per_layer=("float32",), trials=4,
            measure_latency=False, out=out,
        )  # fmt: skip

    first = swept(tmp_path / "a")
    assert len(first.rows) == 4
    assert first.document["searched"] == "nsga2"
    assert any(row["layers"] for row in first.rows)
    names = [row["name"] for row in first.rows]
    assert [row["name"] for row in swept(tmp_path / "b").rows] == names
    resumed = swept(tmp_path / "a")
    assert resumed.document["reused"] == 4
    assert resumed.rows == first.rows
