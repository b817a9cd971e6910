"""The table of sites: what it says about weights, activations and where accuracy goes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kompakt.measuring.data import Batch
from kompakt.measuring.record import Record
from kompakt.measuring.sites import (
    BINS,
    PLOTTED,
    deployed_weight,
    diagnose,
    distributions,
    site_rows,
    sqnr_db,
)
from kompakt.network.capture import capture
from kompakt.network.layers import layers
from kompakt.network.rewrites import inference_form
from kompakt.numerics.granularity import PerTensor
from kompakt.quantize.layers import Treated, freeze_layer_, treat_
from kompakt.quantize.place import plan_of
from kompakt.schemes import Scheme, Treatment, float32, fp16, w4, w8, w8a8, w8a8_dynamic

from ..nets import Deployed, Net, deploy, deployed, grid

Rows = dict[tuple[str, str], dict[str, Any]]


def table(made: Deployed) -> Rows:
    facts = {row.name: row for row in layers(made.network)}
    rows = site_rows(made.placed, facts, made.calibration)
    assert [r["name"] for r in rows] == [s.name for s in plan_of(made.placed).sites]
    return {(r["name"], r["role"]): r for r in rows}


def test_a_static_network_in_rows() -> None:
    made = deployed("plain")
    rows = table(made)
    weight = rows["b.0", "weight"]
    assert weight["format"] == "int8_narrow"
    assert weight["granularity"] == "PerChannel(axis=0)"
    assert weight["parameters"] == 8 * 8 * 9 + 8
    assert weight["bytes"] == 4 * weight["parameters"]
    assert weight["macs"] == 8 * 8 * 9 * 100
    assert weight["shape"][1:] == [8, 10, 10]
    exact = made.network.get_submodule("b.0").weight
    assert weight["low"] == float(exact.detach().min())
    assert 30 < weight["sqnr_db"] < 60
    low, high = weight["scale"]
    assert 0 < low < high

    edge = rows["a.2", "activation"]
    assert edge["format"] == "uint8"
    assert edge["observed_low"] == 0.0
    assert edge["low"] == 0.0
    assert edge["high"] == pytest.approx(edge["observed_high"], rel=1e-5)
    assert edge["zero_point"] == 0
    assert edge["scale"] * 255 == pytest.approx(edge["high"])
    assert edge["clipped_share"] < 0.01
    assert 25 < edge["sqnr_db"] < 60

    head = rows["head", "activation"]
    assert head["format"] is None
    assert head["why_float"]
    assert "scale" not in head


@pytest.mark.parametrize(
    "scheme",
    [
        w8a8_dynamic(),
        w8(),
        w4(group=16),
        fp16(),
        float32(),
        Scheme(
            name="per tensor",
            default=Treatment(
                mode="dynamic", weight="int8", activation="uint8", granularity=PerTensor()
            ),
        ),
    ],
    ids=lambda s: s.name,
)
def test_schemes_without_calibration_in_rows(scheme: Scheme) -> None:
    made = deployed("dense", scheme)
    rows = table(made)
    weight = rows["a", "weight"]
    if scheme.default.mode == "float":
        assert weight["why_float"]
        assert "sqnr_db" not in weight
        return
    bits = {"int4": 4, "fp16": 12}.get(str(scheme.default.weight), 8)
    assert 5 * bits < weight["sqnr_db"] < 8 * bits
    assert all("observed_low" not in row for row in rows.values())


def test_rows_fit_into_a_record() -> None:
    for scheme in (w8a8(), w4(group=16)):
        rows = list(table(deployed("dense", scheme)).values())
        known = {"name", "kind", "role", "format", "granularity", "why_float", "scale"}
        known |= {"zero_point", "low", "high", "observed_low", "observed_high", "clipped_share"}
        known |= {"sqnr_db", "shape", "parameters", "bytes", "macs", "outlier_ratio"}
        known |= {"dead_channels", "why_format"}
        assert all(set(row) <= known for row in rows)
    assert "sites" in Record.__dataclass_fields__


def test_the_deployed_weight_is_the_one_that_is_written() -> None:
    for treatment in (
        Treatment(mode="dynamic", weight="int8_narrow", activation="uint8"),
        Treatment(mode="weight_only", weight="uint8", symmetric_weight=False),
        w4(group=16).default,
    ):
        layer = nn.Linear(40, 6)
        exact = layer.weight.detach().clone()
        treat_(layer, "site", treatment)
        assert isinstance(layer, Treated)
        freeze_layer_(layer, None, integer_bias=False)
        found = deployed_weight(layer)
        assert found.shape == exact.shape
        assert float((found - exact).abs().max()) < float(exact.abs().max()) / 7


def test_the_signal_to_noise_ratio() -> None:
    exact = torch.ones(100)
    assert sqnr_db(exact, exact + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert sqnr_db(exact, exact * 0) == pytest.approx(0.0)
    assert sqnr_db(exact, exact) is None
    assert sqnr_db(exact * 0, exact) is None


# --- distributions ----------------------------------------------------------------------------


def test_the_costliest_sites_are_drawn() -> None:
    made = deployed("movers")
    rows = list(table(made).values())
    plots = distributions(made.placed, rows, made.calibration)
    assert 0 < len(plots) <= PLOTTED
    sqnr = {(r["name"], r["role"]): r.get("sqnr_db") for r in rows}
    order = [sqnr[p["site"], p["role"]] for p in plots]
    assert order == sorted(order)
    for plot in plots:
        assert len(plot["edges"]) == BINS + 1 == len(plot["counts"]) + 1
        assert np.all(np.diff(plot["edges"]) > 0)
        assert min(plot["counts"]) >= 0
        assert sum(plot["counts"]) > 0
        assert plot["low"] < plot["high"]
    weights = [p for p in plots if p["role"] == "weight"]
    for plot in weights:
        layer = made.placed.get_submodule(plot["site"])
        assert sum(plot["counts"]) == layer.weight.numel()


def test_a_constant_edge_is_not_drawn() -> None:
    """A dead channel alone, an all-zero activation: no distribution to draw, and no failure."""
    body = Net(lambda s, x: s.b(torch.relu(s.a(x) - 1000)), a=nn.Linear(8, 4), b=nn.Linear(4, 2))
    captured = inference_form(capture(body.eval(), grid(2, 8)))
    made = deploy(captured, [Batch({"x": grid(4, 8)}, None, 4)])
    rows = list(table(made).values())
    dead = next(r for r in rows if r["name"] == "relu" and r["role"] == "activation")
    assert dead["observed_high"] == 0.0
    assert "relu" not in {p["site"] for p in distributions(made.placed, rows, made.calibration)}
    assert all(isinstance(s, str) for s in diagnose(rows))


# --- diagnosis --------------------------------------------------------------------------------


def row(name: str, sqnr: float | None, **facts: Any) -> dict[str, Any]:
    base = {"name": name, "role": "activation", "format": "uint8", "low": -1.0, "high": 1.0}
    return {**base, "sqnr_db": sqnr, **facts}


def test_the_diagnosis_names_the_worst_sites_first() -> None:
    found = diagnose(
        [
            row("fine", 40.0),
            row("bad", 12.0),
            row("worse", 3.0, outlier_ratio=20.0),
            row("clipped", 8.0, clipped_share=0.02),
            row("worst", 0.0),
            row("unknown", None),
            {**row("float", 1.0), "format": None},
        ]
    )
    assert [next(n for n in ("worst", "worse", "clipped", "bad") if f" {n} " in s) for s in found] == [
        *("worst", "worse", "clipped", "bad")
    ]  # fmt: skip
    assert "outliers" in found[1]
    assert "20 times" in found[1]
    assert "2.00%" in found[2]
    assert all(math.isfinite(len(s)) and "40 dB" not in s for s in found)


def test_the_diagnosis_stays_short() -> None:
    assert len(diagnose([row(f"s{i}", float(i)) for i in range(20)])) == 6
    assert diagnose([]) == []
