"""The keyword-spotting DS-CNN, a network so small that INT8 buys no speed in ONNX Runtime."""

from __future__ import annotations

from benchmarks import models
from benchmarks.datasets import kws
from benchmarks.jobs import (
    compressed,
    cpu_seconds,
    parity_row,
    points,
    short_record,
    size_row,
    speed_row,
)
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt import Budget

TITLE = "DS-CNN, keyword spotting"

BATCH = 20
SAYS_SO = ("It buys no speed here", "SLOWER than the float model")


def run(setup: Setup) -> Outcome:
    """Calibrate and choose on 200 clips, report on the other 800."""
    entry = models.MODELS["kws_dscnn"]
    calibration = kws(setup.assets, "calibration")
    result = compressed(
        setup,
        "kws",
        entry.load(setup.assets),
        example_inputs=entry.example(),
        calibration=calibration.batches(BATCH),
        validation=calibration.batches(BATCH),
        test=kws(setup.assets, "evaluation").take(setup.some(800, 200)).batches(BATCH),
        metric="top1",
        scheme="w8a8",
        budget=Budget(max_drop=0.005),
    )
    record = result.record
    says_so = any(sentence in record.verdict_text for sentence in SAYS_SO)
    rows = [
        Row(
            what="agreement with float (top-1)",
            figure=points(record.agreement or 0.0),
            unit="%",
            at_least=98.5,
            others="kws.agreement",
            note=f"{(record.metric or {}).get('n')} clips; top-1 drop "
            f"{points(record.drop or 0):.2f} points, float {points(record.baseline.metric or 0):.2f} %",
        ),
        speed_row(result, at_least=None, others="kws.speed"),
        Row(
            what="the verdict says that INT8 buys no speed here",
            figure="yes" if says_so else "no",
            target="it says so, where it is so",
            met=says_so or (record.speedup_interval or (0,))[0] > 1,
            note=record.verdict_text,
        ),
        size_row(result),
        parity_row(result),
    ]
    return Outcome(
        rows=rows,
        details={"title": TITLE, "cpu_s": cpu_seconds(result), "record": short_record(result)},
    )
