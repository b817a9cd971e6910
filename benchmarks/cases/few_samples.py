"""Static INT8 of MobileNetV1-0.75 with one, eight and 32 calibration photos, and with none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.cases import mobilenet
from benchmarks.datasets import imagenet
from benchmarks.outcome import Outcome, Row
from benchmarks.sequences import bench_for, captured_model, judged, measured
from benchmarks.setup import Setup
from kompakt.search.enough import enough_data

TITLE = "Few calibration samples, or none"
MODEL = "mobilenet_v1_075"
AMOUNTS = (0, 1, 8, 32, 200)
AIMS = {0: 3.0, 8: 1.0}
"""The largest drop of top-1, in points, by photos."""
NONE = ("analytic_bias_correction",)
SOME = ("analytic_bias_correction", "bias_correction")
ENOUGH = ("bias_correction",)


def methods_for(count: int) -> tuple[str, ...]:
    """What to do with so many samples: those that need none first, data where there is some."""
    if count <= 1:
        return NONE
    return SOME if count < 32 else ENOUGH


def calibration(setup: Setup, count: int) -> Iterable[Any] | str:
    """So many photos, spread over all classes; none: generated inputs."""
    if count == 0:
        return "generated"
    photos = imagenet(setup.assets, "calibration")
    chosen = np.linspace(0, len(photos) - 1, count).round().astype(np.int64)
    return photos.take(chosen).batches(20)


def run(setup: Setup) -> Outcome:
    """Calibrate on so many photos, report on the test photos; nothing is chosen."""
    network, sets, rows, table = captured_model(setup, MODEL), {}, [], []
    for count in AMOUNTS[:3] if setup.quick else AMOUNTS:
        bench = bench_for(setup, MODEL, calibration(setup, count), f"few-{count}", network)
        if not sets:
            sets = {"test": judged(bench, mobilenet.splits(setup)["test"])}
        found = measured(bench, methods_for(count), sets)
        said = enough_data(bench)
        table.append({"photos": count, "said": said, **found})
        score = found["test"]
        rows.append(
            Row(
                what=f"drop of top-1, {f'{count} photos' if count else 'no data: generated inputs'}",
                figure=score["drop"],
                unit="points",
                at_most=AIMS.get(count),
                note=f"{' + '.join(found['methods'])}; agreement {score['agreement']:.1f} %, output error "
                f"{score['output_error']:.3f}; said: {said[0] if said else 'nothing'}",
            )
        )
    return Outcome(rows=rows, details={"title": TITLE, "table": table})
