"""MobileNetV1-0.75 on ImageNet: the ladder's own choice, accurate and fast in one and the same file."""

from __future__ import annotations

from itertools import chain

from benchmarks import models
from benchmarks.datasets import LabelledBatches, imagenet
from benchmarks.jobs import (
    agreement,
    compressed,
    cpu_seconds,
    float_file,
    parity_row,
    points,
    short_record,
    size_row,
    speed_row,
)
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt import Budget, Result

TITLE = "MobileNetV1-0.75, ImageNet"

BATCH = 20


def splits(setup: Setup) -> dict[str, LabelledBatches]:
    """Photos to calibrate on, to choose on and to report on."""
    counts = {"calibration": (200, 40), "validation": (300, 60), "test": (500, 100)}
    return {
        split: imagenet(setup.assets, split).take(setup.some(*count)).batches(BATCH)
        for split, count in counts.items()
    }


def by_ladder(setup: Setup) -> Result:
    """What the ladder chooses."""
    entry = models.MODELS["mobilenet_v1_075"]
    return compressed(
        setup,
        "mobilenet",
        entry.load(setup.assets),
        example_inputs=entry.example(),
        **splits(setup),
        metric="top1",
        budget=Budget(max_drop=0.005),
    )


def run(setup: Setup) -> Outcome:
    """Calibrate on ``calibration``, choose on ``validation``, report on ``test``."""
    result, data = by_ladder(setup), splits(setup)
    record = result.record
    unseen = list(chain(data["validation"], data["test"]))
    float_model = float_file(setup, "mobilenet_v1_075")
    agree = agreement(result, float_model, unseen)
    on_test = agreement(result, float_model, list(data["test"]))
    rows = [
        Row(
            what="agreement with float (top-1)",
            figure=points(agree["share"]),
            unit="%",
            at_least=91.0,
            interval=[points(v) for v in agree["interval"]],
            others="mobilenet.agreement",
            note=f"{agree['n']} photos that were not used to calibrate; the ladder "
            "chose on those of the validation split",
        ),
        Row(
            what="agreement with float (top-1), test photos only",
            figure=points(on_test["share"]),
            unit="%",
            interval=[points(v) for v in on_test["interval"]],
            note=f"{on_test['n']} photos that were used neither to calibrate nor to choose",
        ),
        Row(
            what="drop of top-1",
            figure=points(record.drop or 0.0),
            unit="points",
            at_most=0.5,
            interval=[points(v) for v in record.drop_interval or ()],
            note=f"{(record.metric or {}).get('n')} test photos, used for nothing else; "
            f"float {points(record.baseline.metric or 0):.1f} %; {record.verdict}",
        ),
        speed_row(result, at_least=2.3, others="mobilenet.speed"),
        size_row(result, "mobilenet.size"),
        parity_row(result),
    ]
    details = {
        "title": TITLE,
        "agreement": agree,
        "agreement_test": on_test,
        "cpu_s": cpu_seconds(result),
        "record": short_record(result),
    }
    return Outcome(rows=rows, details=details)
