"""Sensitivity: the ranking of layers from one pass against one evaluation for each layer."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from benchmarks import models
from benchmarks.datasets import cifar_lossless, kws
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.measuring.data import prepare
from kompakt.network.capture import capture
from kompakt.search.sensitivity import Sensitivity, brute_force, find_sensitivity
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench
from kompakt.targets import get_target

TITLE = "Sensitivity of layers"
CHOICES = {"int8": "W8A8", "int4": "W4A8"}
CALIBRATION = 512


def run(setup: Setup) -> Outcome:
    """Both ways on the same calibration samples, for two networks and two formats."""
    rows: list[Row] = []
    details: dict[str, Any] = {}
    for name, data in _work(setup).items():
        with tempfile.TemporaryDirectory(prefix="kompakt-bench-") as folder:
            bench, samples = _bench(name, data, setup, Path(folder))
            for gradients in (True, False):
                began = time.process_time()
                found = find_sensitivity(
                    bench,
                    list(CHOICES) if gradients else ["int8"],
                    metric="top1",
                    samples=samples,
                    gradients=gradients,
                    seed=setup.seed,
                )
                seconds = time.process_time() - began
                for choice in found.choices:
                    row, detail = _compared(name, bench, found, choice, samples, seconds)
                    rows.append(row)
                    details[f"{name} {choice} {'gradients' if gradients else 'groups'}"] = detail
    return Outcome(rows=rows, details={"title": TITLE, **details})


def _compared(
    name: str, bench: Workbench, found: Sensitivity, choice: str, samples: int, seconds: float
) -> tuple[Row, dict[str, Any]]:
    began = time.process_time()
    measured = brute_force(bench, found, choice, bench.drawn(samples))
    spent = time.process_time() - began
    foretold = [found.of(layer, choice) for layer in measured]
    figure = float(spearmanr(foretold, list(measured.values())).statistic)
    how = "gradients" if found.signals is not None else "groups of layers, without gradients"
    row = Row(
        what=f"{name} {CHOICES[choice]}: rank correlation with brute force ({how})",
        figure=figure,
        unit="Spearman",
        at_least=0.9 if found.signals is not None else None,
        note=f"{len(measured)} layers; {found.passes} forward passes over {found.samples} calibration "
        f"samples for {len(found.choices)} formats, {seconds:.1f} CPU-s; brute force "
        f"{len(measured)} passes for each format, {spent:.1f} CPU-s; loss: {found.loss}",
    )
    return row, {"foretold": dict(zip(measured, foretold, strict=True)), "measured": measured}


def _work(setup: Setup) -> dict[str, Any]:
    count = setup.some(CALIBRATION, 64)
    return {
        "resnet20": cifar_lossless(setup.assets, "train").take(count).batches(64),
        "kws_dscnn": kws(setup.assets, "calibration").take(setup.some(200, 40)).batches(20),
    }


def _bench(name: str, data: Any, setup: Setup, folder: Path) -> tuple[Workbench, int]:
    entry = models.MODELS[name]
    network = capture(entry.load(setup.assets), entry.example())
    given = prepare(data, network.input_specs)
    count = sum(batch.size for batch in given)
    few = spread_rows(given, 32, network.input_specs)
    target = get_target("onnxruntime")
    return Workbench(network, target, "x86-vnni", folder, given, few, 1), count
