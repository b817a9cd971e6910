"""The table of sites: for every weight and every edge its format, range, clipping and error, or why it stays float."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kompakt.network.layers import LayerInfo
from kompakt.network.network import Network
from kompakt.observe import (
    Calibration,
    EdgeStatistics,
    clipped_share,
    expected_sqnr_db,
    outlier_ratio,
)
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import plan_of, quantizer_calls, quantizer_of

PLOTTED = 12
"""How many sites' distributions a record holds."""
BINS = 64
NOTABLE_OUTLIERS = 8.0
"""An absmax this many times the 99.9th percentile of the magnitudes costs three bits of resolution."""

Row = dict[str, Any]


def site_rows(
    placed: Network, layers: Mapping[str, LayerInfo], calibration: Calibration | None
) -> list[Row]:
    """One row for every site of a placed, frozen network; see the record's ``sites``.

    Args:
        placed: The network.
        layers: Layer facts by name.
        calibration: What calibration saw, where there was one.
    """
    calls = quantizer_calls(placed)
    rows = []
    for site in plan_of(placed).sites:
        row = site.to_json()
        if site.role == "weight":
            row |= _layer_facts(layers.get(site.name))
            if site.format:
                row |= _weight_facts(placed.get_submodule(site.name))
        elif site.name in calls and calibration is not None:
            quantizer = quantizer_of(placed, calls[site.name])
            row |= _activation_facts(quantizer, calibration.statistics.get(site.name))
        rows.append(row)
    return rows


def _layer_facts(layer: LayerInfo | None) -> Row:
    if layer is None:
        return {}
    return {
        "shape": list(layer.output_shape or ()),
        "parameters": layer.parameters,
        "bytes": layer.bytes,
        "macs": layer.macs,
    }


def _weight_facts(layer: torch.nn.Module) -> Row:
    assert isinstance(layer, Treated)
    weight = layer.weight.detach()
    scale = layer.weight_scale
    facts: Row = {
        "low": float(weight.min()),
        "high": float(weight.max()),
        "clipped_share": 0.0,
        "sqnr_db": sqnr_db(weight, deployed_weight(layer)),
    }
    if scale is not None:
        facts["scale"] = (
            float(scale)
            if scale.numel() == 1
            else [
                float(scale.min()),
                float(scale.max()),
            ]
        )
    return facts


def deployed_weight(layer: Treated) -> Tensor:
    """The weight the deployed layer computes with, in the layout of ``layer.weight``."""
    if layer.treatment.mode == "dynamic" and layer.weight_codes is not None:
        assert layer.weight_scale is not None
        return layer.weight_codes.t().float() * layer.weight_scale.reshape(-1, 1)
    return layer.treated_weight().detach()


def sqnr_db(exact: Tensor, rounded: Tensor) -> float | None:
    """Signal-to-quantization-noise ratio in decibels; None when nothing was lost."""
    noise = float((exact.double() - rounded.double()).square().sum())
    signal = float(exact.double().square().sum())
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None


def _activation_facts(quantizer: Any, statistics: EdgeStatistics | None) -> Row:
    low, high = quantizer.represented_range()
    scale, zero_point = quantizer.parameters_()
    facts: Row = {
        "scale": float(scale),
        "zero_point": int(zero_point),
        "low": low,
        "high": high,
    }
    if statistics is not None and not statistics.is_empty:
        facts |= {
            "observed_low": statistics.low,
            "observed_high": statistics.high,
            "clipped_share": clipped_share(statistics, low, high),
            "sqnr_db": expected_sqnr_db(statistics, low, high, quantizer.format),
            "outlier_ratio": outlier_ratio(statistics),
            "dead_channels": len(statistics.channels.silent() or ()),
        }
    return facts


def distributions(
    placed: Network, rows: list[Row], calibration: Calibration | None
) -> list[dict[str, Any]]:
    """Histograms of the sites that lose most (smallest SQNR), at most :data:`PLOTTED`."""
    costly = sorted(
        (r for r in rows if r.get("format") and r.get("sqnr_db") is not None),
        key=lambda r: float(r["sqnr_db"]),
    )
    plots = []
    for row in costly[:PLOTTED]:
        histogram = _histogram(placed, row, calibration)
        if histogram is not None:
            edges, counts = histogram
            plots.append(
                {
                    "site": row["name"],
                    "role": row["role"],
                    "edges": [float(e) for e in edges],
                    "counts": [float(c) for c in counts],
                    "low": row["low"],
                    "high": row["high"],
                }
            )
    return plots


def _histogram(
    placed: Network, row: Row, calibration: Calibration | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    if row["role"] == "weight":
        weight = placed.get_submodule(row["name"]).weight
        assert isinstance(weight, Tensor)
        counts, edges = np.histogram(weight.detach().numpy(), bins=BINS)
        return edges, counts
    statistics = calibration.statistics.get(row["name"]) if calibration is not None else None
    if statistics is None or statistics.is_empty or statistics.low == statistics.high:
        return None
    density = statistics.density()
    edges = np.linspace(statistics.low, statistics.high, BINS + 1)
    cumulative = np.concatenate(([0.0], np.cumsum(density.counts)))
    return edges, np.diff(np.interp(edges, density.edges, cumulative))


def diagnose(rows: list[Row]) -> list[str]:
    """What the site table says about where accuracy goes, in sentences, worst first."""
    sentences: list[str] = []
    for row in sorted(rows, key=_sqnr_or_infinity):
        sqnr, ratio = row.get("sqnr_db"), row.get("outlier_ratio")
        if not row.get("format") or sqnr is None or sqnr > 25.0 or len(sentences) >= 6:
            continue
        what = f"the {row['role']} {row['name']} keeps only {sqnr:.0f} dB of signal over rounding noise"
        if ratio is not None and ratio > NOTABLE_OUTLIERS:
            what += (
                f": outliers stretch its range to [{row['low']:.3g}, {row['high']:.3g}], {ratio:.0f} times what "
                "99.9 % of the values need, so most values share few codes"
            )
        elif (row.get("clipped_share") or 0) > 1e-3:
            what += f": {row['clipped_share']:.2%} of its values are clipped"
        sentences.append(what)
    return sentences


def _sqnr_or_infinity(row: Row) -> float:
    sqnr = row.get("sqnr_db")
    return math.inf if sqnr is None else float(sqnr)
