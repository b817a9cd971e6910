"""The accuracy budget: what holding it costs, whether it is held, and mixed precision where plain schemes break it."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.datasets import cifar_jpeg, cifar_lossless, imagenet
from benchmarks.jobs import compressed, cpu_seconds, points, short_record
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from benchmarks.wrong_verdicts import CONFIDENCE, DROPS, LIMIT, simulate
from kompakt import Budget
from kompakt.measuring.accuracy import PairedEvaluation
from kompakt.measuring.data import hold_in_memory, prepare
from kompakt.measuring.metrics import get_metric
from kompakt.network.capture import capture
from kompakt.schemes import get_scheme
from kompakt.search.allocate import Allocator
from kompakt.search.candidates import Candidate
from kompakt.search.ladder import Ladder
from kompakt.search.split import example_batch, spread_rows
from kompakt.search.trial import ALIKE, Trial
from kompakt.search.workbench import Workbench
from kompakt.targets import get_target

TITLE = "Accuracy budget and mixed precision"
MAX_DROP = 0.005
TRIALS = 200
BATCH = 20


def run(setup: Setup) -> Outcome:
    """Budgets on MobileNetV1 and ResNet-20, and trials with planted drops."""
    rows, details = [], {"title": TITLE}
    for part in (_whole_budget, _verdicts, _escapes_resnet, _escapes_mobilenet):
        found, detail = part(setup)
        rows += found
        details[part.__name__.strip("_")] = detail
    return Outcome(rows=rows, details=details)


def _whole_budget(setup: Setup) -> tuple[list[Row], dict[str, Any]]:
    """All samples evaluated by one call: the float model's, the candidates', the final figures'."""
    entry = models.MODELS["mobilenet_v1_075"]
    counts = {"calibration": (200, 40), "validation": (200, 40), "test": (200, 40)}
    result = compressed(
        setup,
        "budget",
        entry.load(setup.assets),
        example_inputs=entry.example(),
        **{
            split: imagenet(setup.assets, split).take(setup.some(*count)).batches(BATCH)
            for split, count in counts.items()
        },
        metric="top1",
        budget=Budget(max_drop=MAX_DROP),
    )
    record = result.record
    tried = [t for t in record.trials if t["samples"]]
    choosing = max(t["samples"] for t in tried) + sum(t["samples"] for t in tried)
    certifying = 2 * int((record.metric or {}).get("n") or 0)
    kept = [t for t in tried if t["outcome"] in ("kept", "chosen") and t["speedup"]]
    own = max((t["speedup"] for t in kept if t["outcome"] == "chosen"), default=0.0)
    most = max((t["speedup"] for t in kept), default=0.0)
    fastest = own >= most * (1 - ALIKE) > 0
    rows = [
        Row(
            what="MobileNetV1, drop ≤ 0.5 points: samples evaluated in all",
            figure=choosing + certifying,
            unit="samples",
            at_most=2000,
            note=f"{len(tried)} candidates and the float model to choose: {choosing:,}; both models for the "
            f"final figures: {certifying:,}; {sum(cpu_seconds(result).values()):.0f} CPU-s",
        ),
        Row(
            what="MobileNetV1, drop ≤ 0.5 points: drop on test photos",
            figure=points(record.drop or 0.0),
            unit="points",
            at_most=points(MAX_DROP),
            interval=[points(v) for v in record.drop_interval or ()],
            note=f"chosen: {record.scheme_name}; verdict: {record.verdict}",
        ),
        Row(
            what="MobileNetV1: the plan is the fastest of those measured",
            figure="yes" if fastest else "no",
            target="yes, within what quick timings can tell apart",
            met=fastest,
            note=f"{own:.2f}×; the fastest that holds the budget: {most:.2f}×",
        ),
    ]
    return rows, short_record(result)


def _verdicts(setup: Setup) -> tuple[list[Row], dict[str, Any]]:
    """Candidates whose true drop is planted."""
    trials = simulate(20 if setup.quick else TRIALS, seed=setup.seed)
    wrong = [t for t in trials if t.wrong]
    early = [t for t in trials if t.verdict == "dropped early"]
    by_drop = {d: dict(Counter(t.verdict for t in trials if t.true_drop == d)) for d in DROPS}
    admits = round((1 - CONFIDENCE) * len(trials))
    note = (
        f"true drops of {', '.join(f'{points(d):g}' for d in DROPS)} points in turn, limit "
        f"{points(LIMIT):g}; {len(early)} dropped early, of which {sum(t.wrong for t in early)} wrongly; "
        f"{np.mean([t.samples for t in trials]):,.0f} of 2,000 samples on average; {CONFIDENCE:.0%} admits {admits}"
    )
    row = Row(
        what=f"wrong verdicts in {len(trials)} simulated trials at {CONFIDENCE:.0%}",
        figure=len(wrong),
        unit="trials",
        at_most=0,
        note=note,
    )
    return [row], {"verdicts": {str(k): v for k, v in by_drop.items()}}


def _escapes_resnet(setup: Setup) -> tuple[list[Row], dict[str, Any]]:
    every = 50 if setup.quick else 5
    return _escapes(
        setup,
        "resnet20",
        cifar_lossless(setup.assets, "train").take(slice(512)).batches(64),
        cifar_jpeg(setup.assets, "test", setup.cache).take(slice(0, None, every)).batches(64),
    )


def _escapes_mobilenet(setup: Setup) -> tuple[list[Row], dict[str, Any]]:
    return _escapes(
        setup,
        "mobilenet_v1_075",
        imagenet(setup.assets, "calibration").take(setup.some(100, 20)).batches(BATCH),
        imagenet(setup.assets, "validation").take(setup.some(300, 40)).batches(BATCH),
    )


def _escapes(setup: Setup, name: str, calibration: Any, data: Any) -> tuple[list[Row], Any]:
    """4-bit weights wherever the budget allows: the smallest file."""
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="kompakt-bench-") as folder:
        ladder = _ladder(setup, name, calibration, data, Path(folder))
        plain = [_tried(ladder, scheme) for scheme in ("w8a8", "w4a8")]
        allocator = Allocator(
            bench=ladder.bench,
            base=plain[1],
            budget=ladder.budget,
            example=ladder.example,
            metric="top1",
            objective="size",
            known=(plain[0],),
        )
        trials = list(plain)
        while (candidate := allocator.propose()) is not None:
            trials.append(_trial(ladder, candidate))
            allocator.observe(trials[-1])
        holding = [t for t in trials[2:] if not t.over and t.outcome == "kept" and t.build]
        best = min(holding, key=_size, default=None)
        details = [t.to_json() | {"over": t.over} for t in trials]
        ratio = None if best is None else _size(plain[0]) / _size(best)
        note = "; ".join(f"{t.candidate.name}: {_size(t):,} bytes, {_said(t)}" for t in trials)
        samples = sum(t.samples for t in trials)
    row = Row(
        what=f"{name}, W4A8 with escapes, drop ≤ 0.5 points: smaller than W8A8",
        figure="none found" if ratio is None else ratio,
        unit="×",
        at_least=1.1,
        note=f"{note}; {samples:,} samples, {time.process_time() - began:.0f} CPU-s in all",
    )
    return [row], {"trials": details, "findings": allocator.findings}


def _ladder(setup: Setup, name: str, calibration: Any, data: Any, folder: Path) -> Ladder:
    entry = models.MODELS[name]
    network = capture(entry.load(setup.assets), entry.example())
    given = prepare(calibration, network.input_specs)
    few = spread_rows(given, 32, network.input_specs)
    bench = Workbench(network, get_target("onnxruntime"), "x86-vnni", folder, given, few, 1)
    metric = get_metric("top1")
    judged = prepare(data, network.input_specs, needs_labels=True)
    held = hold_in_memory(judged, limit_bytes=1 << 30, shuffle=setup.seed)
    shuffled = prepare(held, network.input_specs, labelled=True)
    judge = PairedEvaluation(bench.float_build().runnable, shuffled, metric)
    return Ladder(
        bench=bench,
        budget=Budget(max_drop=MAX_DROP),
        judge=judge,
        example=example_batch(bench.prepared, few, 1),
        rng=np.random.default_rng(setup.seed),
        time_it=False,
    )


def _tried(ladder: Ladder, scheme: str) -> Trial:
    found = get_scheme(scheme)
    return _trial(
        ladder,
        Candidate(
            name=scheme, level=2, scheme=found, calibrator="mse", methods=("bias_correction",)
        ),
    )


def _trial(ladder: Ladder, candidate: Candidate) -> Trial:
    """One candidate, built and judged as the ladder does."""
    ladder.fixed, ladder.trials = (candidate,), []
    ladder.climb()
    return ladder.trials[0]


def _size(trial: Trial) -> int:
    assert trial.build is not None
    return trial.build.written.size_bytes


def _said(trial: Trial) -> str:
    if trial.comparison is None:
        return f"{trial.outcome} after {trial.samples} samples"
    return f"drop {points(trial.comparison.drop):.2f}"
