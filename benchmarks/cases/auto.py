"""Which runtime wins: every installed one side by side on MobileNetV1 and the keyword spotter."""

from __future__ import annotations

from typing import Any

import kompakt
from benchmarks import models
from benchmarks.datasets import imagenet, kws
from benchmarks.jobs import compressed
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup

TITLE = "Runtimes side by side"
BATCH = 20


def run(setup: Setup) -> Outcome:
    """Each network for every runtime; the figures are those the record holds."""
    rows, details = [], {}
    for name, calibration, validation in _work(setup):
        entry = models.MODELS[name]
        result = compressed(
            setup,
            f"auto-{name}",
            entry.load(setup.assets),
            example_inputs=entry.example(),
            calibration=calibration,
            validation=validation,
            test=validation,
            metric="top1",
            target="auto",
            budget=kompakt.Budget(max_drop=0.02),
            measure_memory=False,
        )
        found = result.record.runtimes
        details[name] = list(found)
        baseline = next(r["float_ms"] for r in found if r["target"] == "onnxruntime")
        rows += [_row(name, row, baseline) for row in found]
    return Outcome(rows=rows, details={"title": TITLE, "runtimes": details})


def _work(setup: Setup) -> list[tuple[str, Any, Any]]:
    few = setup.some(100, 40)
    photos = imagenet(setup.assets, "calibration").take(few).batches(BATCH)
    judged = imagenet(setup.assets, "validation").take(setup.some(200, 40)).batches(BATCH)
    words = kws(setup.assets, "calibration").batches(BATCH)
    return [
        ("mobilenet_v1_075", photos, judged),
        ("kws_dscnn", words, words),
    ]


def _row(name: str, row: Any, baseline: float) -> Row:
    latency = row["latency_ms"]
    figure: float | str = "–" if latency is None else baseline / latency
    drop = "" if row["drop"] is None else f", drop {100 * row['drop']:.2f} points"
    told = "" if latency is None else f"{latency:.3g} ms{drop}, parity {row['parity']}; "
    return Row(
        what=f"{name} with {row['target']}: speed against ONNX Runtime in float",
        figure=figure,
        unit="×",
        note=f"{told}{row['outcome']}{': ' + row['why'] if row['why'] else ''}",
    )
