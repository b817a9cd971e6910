"""Sequences of methods on convolutional networks in static INT8: chosen on validation, reported on test data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.cases import mobilenet
from benchmarks.outcome import Outcome, Row
from benchmarks.sequences import bench_for, judged, known, measured, pooled
from benchmarks.setup import Setup

TITLE = "Methods for convolutional networks, alone and together"
SEQUENCES: tuple[tuple[str, ...], ...] = (
    (),
    ("bias_correction",),
    ("analytic_bias_correction",),
    ("equalize",),
    ("refine_ranges", "bias_correction"),
    ("equalize", "bias_correction"),
    ("equalize", "refine_ranges", "bias_correction"),
    ("gptq", "bias_correction"),
    ("equalize", "gptq", "bias_correction"),
    ("adaround", "bias_correction"),
    ("equalize", "adaround", "bias_correction"),
)
MODELS: Mapping[str, Callable[[Setup], Mapping[str, Any]]] = {"mobilenet_v1_075": mobilenet.splits}
AIM = 96.0


def table(setup: Setup, model: str, splits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for every sequence that exists, scored on validation and test data."""
    bench = bench_for(setup, model, splits["calibration"], f"methods-{model}", None)
    sets = {name: judged(bench, splits[name]) for name in ("validation", "test")}
    rows = []
    for methods in known(SEQUENCES):
        row = {"model": model, **measured(bench, methods, sets)}
        rows.append(row | {"all_agreement": pooled(row, sets)})
    return rows


def best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sequence with the least output error on validation data: agreement there moves in steps of a third point."""
    return min(rows, key=lambda row: row["validation"]["output_error"])


def run(setup: Setup) -> Outcome:
    """Calibrate on ``calibration``, choose on ``validation``, report on ``test``."""
    found = {model: table(setup, model, splits(setup)) for model, splits in MODELS.items()}
    rows = []
    for model, measurements in found.items():
        chosen = best(measurements)
        name = " + ".join(chosen["methods"]) or "plain"
        note = f"{name}, chosen by its output error on the validation photos; {chosen['cpu_s']:g} CPU-s"
        rows += [
            Row(
                what=f"{model}: agreement with float (top-1)",
                figure=chosen["all_agreement"],
                unit="%",
                at_least=AIM,
                others="mobilenet.agreement",
                note=f"validation and test photos; {note}",
            ),
            Row(
                what=f"{model}: agreement with float (top-1), test photos only",
                figure=chosen["test"]["agreement"],
                unit="%",
                note=note,
            ),
            Row(
                what=f"{model}: drop of top-1",
                figure=chosen["test"]["drop"],
                unit="points",
                at_most=0.5,
                note=note,
            ),
            *[
                Row(
                    what=f"{model}: {' + '.join(row['methods']) or 'plain'}",
                    figure=row["all_agreement"],
                    unit="%",
                    note=f"agreement; output error {row['test']['output_error']:.4f} on test, {row['cpu_s']:g} CPU-s",
                )
                for row in measurements
            ],
        ]
    table_rows = [row for measurements in found.values() for row in measurements]
    return Outcome(rows=rows, details={"title": TITLE, "table": table_rows})
