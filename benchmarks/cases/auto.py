"""Which runtime wins: every installed one side by side, and the winner beside other tools' files."""

from __future__ import annotations

from typing import Any

import kompakt
from benchmarks import models, sts
from benchmarks.cases import cifar, minilm, mobilenet
from benchmarks.cases.auto_peers import Contest, beside_peers
from benchmarks.datasets import kws
from benchmarks.jobs import compressed
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup

TITLE = "Runtimes side by side"
BATCH = 20
DROPS = {"minilm": 0.004}
"""Drops that are accepted, where it is not 2 points."""


def run(setup: Setup) -> Outcome:
    """Each network for every runtime, calibrated, chosen and reported on data of their own."""
    rows: list[Row] = []
    details: dict[str, Any] = {"title": TITLE, "runtimes": {}, "peers": {}}
    for contest in contests(setup):
        entry = models.MODELS[contest.name]
        given = {} if contest.dynamic is None else {"dynamic": contest.dynamic}
        result = compressed(
            setup,
            f"auto-{contest.name}",
            entry.load(setup.assets),
            example_inputs=entry.example(),
            **contest.data,
            **given,
            metric=contest.metric,
            target="auto",
            budget=kompakt.Budget(max_drop=DROPS.get(contest.name, 0.02)),
            measure_memory=False,
        )
        found = result.record.runtimes
        details["runtimes"][contest.name] = list(found)
        baseline = next(r["float_ms"] for r in found if r["target"] == "onnxruntime")
        rows += [_row(contest.name, row, baseline) for row in found]
        beside, details["peers"][contest.name] = beside_peers(contest, result, setup)
        rows += beside
    return Outcome(rows=rows, details=details)


def contests(setup: Setup) -> list[Contest]:
    """The networks; ``--quick`` leaves out the two that take longest."""
    short = [
        Contest(name="mobilenet_v1_075", data=mobilenet.splits(setup)),
        Contest(name="kws_dscnn", data=_words(setup)),
    ]
    if setup.quick:
        return short
    sentences = Contest(
        name="minilm",
        data=minilm.splits(setup),
        dynamic=minilm.DYNAMIC,
        metric=sts.METRIC,
        transformer=True,
    )
    return [*short, Contest(name="resnet56", data=cifar.splits(setup)), sentences]


def _words(setup: Setup) -> dict[str, Any]:
    """100 clips to calibrate on, 100 others to choose on, 800 to report on."""
    first, rest = kws(setup.assets, "calibration"), kws(setup.assets, "evaluation")
    return {
        "calibration": first.take(slice(100)).batches(BATCH),
        "validation": first.take(slice(100, None)).batches(BATCH),
        "test": rest.take(setup.some(800, 200)).batches(BATCH),
    }


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
