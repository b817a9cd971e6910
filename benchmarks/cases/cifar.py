"""ResNet-20 and ResNet-56 on CIFAR-10, judged on the 10 000 JPEG test images."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import models
from benchmarks.datasets import LabelledBatches, cifar_jpeg, cifar_lossless
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
from kompakt import Budget, Result
from kompakt.steps import measure

CALIBRATION, VALIDATION = 512, 2048
BATCH = 64


def splits(setup: Setup) -> dict[str, LabelledBatches]:
    """Lossless training images to calibrate on and others to choose on; JPEG ones to report on.

    The network was trained on the former two: choosing sees a kinder picture than the test gives.
    """
    train, test = (
        cifar_lossless(setup.assets, "train"),
        cifar_jpeg(setup.assets, "test", setup.cache),
    )
    validation = 256 if setup.quick else VALIDATION
    chosen = {
        "calibration": train.take(slice(CALIBRATION)),
        "validation": train.take(slice(CALIBRATION, CALIBRATION + validation)),
        "test": test.take(slice(0, None, 20)) if setup.quick else test,
    }
    return {split: data.batches(BATCH) for split, data in chosen.items()}


def by_ladder(name: str, setup: Setup) -> Result:
    """What the ladder chooses."""
    entry = models.MODELS[name]
    return compressed(
        setup,
        name,
        entry.load(setup.assets),
        example_inputs=entry.example(),
        **splits(setup),
        metric="top1",
        budget=Budget(max_drop=0.005),
    )


def benchmark(name: str, *, agree: float, speed: float) -> Callable[[Setup], Outcome]:
    """The benchmark of one of the two networks.

    Args:
        name: ``resnet20`` or ``resnet56``.
        agree: Agreement aimed at, in percent.
        speed: Speed aimed at.
    """

    def run(setup: Setup) -> Outcome:
        result = by_ladder(name, setup)
        record = result.record
        lossless = cifar_lossless(setup.assets, "test").batches(BATCH)
        top1 = measure(result.path, lossless, "top1")
        count = (record.metric or {}).get("n")
        rows = [
            Row(
                what="agreement with float (top-1)",
                figure=points(record.agreement or 0.0),
                unit="%",
                at_least=agree,
                others=f"{name}.agreement",
                note=f"{count:,} JPEG test images",
            ),
            speed_row(result, at_least=speed, others=f"{name}.speed"),
            Row(
                what="drop of top-1",
                figure=points(record.drop or 0.0),
                unit="points",
                interval=[points(v) for v in record.drop_interval or ()],
                note=f"{count:,} JPEG test images; float {points(record.baseline.metric or 0):.2f} %; "
                f"846 lossless test images: {points(top1['value']):.2f} %",
            ),
            size_row(result),
            parity_row(result),
        ]
        details = {
            "title": f"ResNet-{name.removeprefix('resnet')}, CIFAR-10",
            "top1_lossless_test": top1["value"],
            "cpu_s": cpu_seconds(result),
            "record": short_record(result),
        }
        return Outcome(rows=rows, details=details)

    return run
