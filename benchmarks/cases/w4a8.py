"""Weights in 4 bits in every layer, the first and the last too, and activations in 8: rounding that is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks import models
from benchmarks.cases import cifar, mobilenet
from benchmarks.datasets import LabelledBatches
from benchmarks.jobs import compressed, cpu_seconds, parity_row, points, short_record, size_row
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt import Budget, Result

TITLE = "W4A8: 4-bit weights in every layer"
MAKING = ("rewrite", "place", "calibrate", "ranges", "saturation", "freeze", "write")
"""Stages of a job that make the file, besides its methods."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network.

    Attributes:
        splits: Its data.
        methods: What is done beyond rounding to nearest.
        agree: Agreement with float aimed at, in percent.
        drop: Drop of top-1 aimed at, in points.
        seconds: CPU seconds aimed at.
        others: What others reach.
    """

    splits: Callable[[Setup], dict[str, LabelledBatches]]
    methods: tuple[str, ...]
    seconds: float
    agree: float | None = None
    drop: float | None = None
    others: tuple[dict[str, object], ...] = ()


JOBS = {
    "resnet20": Job(
        splits=cifar.splits,
        methods=("adaround",),
        agree=95.0,
        seconds=60,
        others=(
            {"tool": "AIMET AdaRound, 113 CPU s", "figure": 93.85},
            {"tool": "Brevitas GPTQ", "figure": 91.0},
            {"tool": "AIMET round to nearest", "figure": 85.96},
        ),
    ),
    "resnet56": Job(
        splits=cifar.splits,
        methods=("adaround",),
        agree=94.5,
        seconds=180,
        others=(
            {"tool": "Brevitas GPTQ", "figure": 91.24},
            {"tool": "Brevitas round to nearest", "figure": 82.04},
        ),
    ),
    "mobilenet_v1_075": Job(
        splits=mobilenet.splits,
        methods=("equalize", "gptq", "bias_correction"),
        drop=3.0,
        seconds=1200,
        others=({"tool": "AIMET round to nearest", "figure": 74.5},),
    ),
}


def job(name: str, setup: Setup) -> Result:
    """Compress one network, with every layer in 4 bits."""
    entry, wanted = models.MODELS[name], JOBS[name]
    return compressed(
        setup,
        f"{name}-w4a8",
        entry.load(setup.assets),
        example_inputs=entry.example(),
        **wanted.splits(setup),
        metric="top1",
        budget=Budget(),
        scheme="w4a8",
        methods=wanted.methods,
        measure_latency=False,
        measure_memory=False,
    )


def rows_of(name: str, result: Result) -> list[Row]:
    """The rows of one network."""
    wanted, record = JOBS[name], result.record
    count = (record.metric or {}).get("n")
    agreement = Row(
        what=f"{name}: agreement with float (top-1)",
        figure=points(record.agreement or 0.0),
        unit="%",
        at_least=wanted.agree,
        others=wanted.others if wanted.agree is not None else (),
        note=f"{count:,} test images; {', '.join(wanted.methods)}",
    )
    drop = Row(
        what=f"{name}: drop of top-1",
        figure=points(record.drop or 0.0),
        unit="points",
        at_most=wanted.drop,
        interval=[points(v) for v in record.drop_interval or ()],
        others=wanted.others if wanted.drop is not None else (),
        note=f"float {points(record.baseline.metric or 0):.2f} %",
    )
    seconds = Row(
        what=f"{name}: making the file",
        figure=making(result, wanted.methods),
        unit="CPU s",
        at_most=wanted.seconds,
        note="calibration, methods and writing; one thread",
    )
    common = [
        replace(row, what=f"{name}: {row.what}") for row in (size_row(result), parity_row(result))
    ]
    return [agreement, drop, seconds, *common]


def making(result: Result, methods: tuple[str, ...]) -> float:
    """CPU seconds of the stages that make the file."""
    stages = cpu_seconds(result).items()
    return sum(seconds for stage, seconds in stages if stage in (*MAKING, *methods))


def run(setup: Setup) -> Outcome:
    """Calibrate on calibration images, report on test images, in the written files."""
    results = {name: job(name, setup) for name in JOBS}
    return Outcome(
        rows=[row for name, result in results.items() for row in rows_of(name, result)],
        details={
            "title": TITLE,
            "cpu_s": {name: cpu_seconds(result) for name, result in results.items()},
            "records": {name: short_record(result) for name, result in results.items()},
        },
    )
