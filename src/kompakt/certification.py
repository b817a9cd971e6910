"""Certifying the winner, once: parity, accuracy on data it was not chosen by, speed and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kompakt.artifact import GoldenBuilder, GoldenPack, golden_samples
from kompakt.measuring.accuracy import evaluate_together
from kompakt.measuring.changes import Noted, changes
from kompakt.measuring.comparison import compare
from kompakt.measuring.data import Batch, Prepared
from kompakt.measuring.latency import LatencyComparison, compare_latency
from kompakt.measuring.memory import peak_memory
from kompakt.measuring.metrics import METRICS, get_metric
from kompakt.measuring.record import Record
from kompakt.network.interface import call_arguments
from kompakt.network.network import Network
from kompakt.observe.sketch import to_arrays
from kompakt.options import Options
from kompakt.recording import Accuracy, Facts, Speed
from kompakt.search.build_diagnosis import diagnose_build
from kompakt.search.ladder import Ladder
from kompakt.search.reason import why_chosen
from kompakt.search.slowdown import slower_layers
from kompakt.search.split import example_batch
from kompakt.search.trial import Trial
from kompakt.search.workbench import Build
from kompakt.targets.target import Arrays, Runnable, Target

THROUGHPUT_BATCH = 8
LATENCY_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The winner with everything that goes into its artifact."""

    build: Build
    record: Record
    golden: GoldenPack
    sketch: Mapping[str, NDArray[Any]] | None


def certify_trial(
    trial: Trial,
    *,
    ladder: Ladder,
    data: Prepared | None,
    source: nn.Module,
    options: Options,
    rng: np.random.Generator,
) -> Certified:
    """Measure the chosen trial's file and write the record.

    Args:
        trial: The ladder's choice.
        ladder: The ladder that chose it.
        data: Certification data; None when accuracy cannot be measured.
        source: The user's own model.
        options: What was asked for.
        rng: Decides the order of timings.
    """
    bench, build = ladder.bench, trial.build
    assert build is not None
    samples = list(bench.samples) or [ladder.example]
    certificate = ladder.certificate(trial)
    with bench.clock.stage("accuracy"):
        accuracy = _accuracy(bench.float_build(), build, bench.network, data, options)
    speed = Speed()
    if options.measure_latency:
        with bench.clock.stage("latency"):
            speed = _speed(ladder, build, options, rng)
            if speed.latency is not None and speed.latency.interval[1] < 1:
                speed.slower = slower_layers(bench, build, ladder.example)
            speed.source_ms = _source_latency(source, ladder, options.threads, rng)
    memory: tuple[int | None, int | None] = (None, None)
    if options.measure_memory:
        with bench.clock.stage("memory"):
            memory = _memory(ladder, build)
    with bench.clock.stage("diagnose"):
        diagnosis = diagnose_build(bench, build, data)
    golden = _golden(build, bench.target, samples)
    trial.outcome, trial.why = "chosen", why_chosen(trial, ladder.trials)
    facts = Facts(trial, ladder, certificate, accuracy, speed, memory, diagnosis)
    seen = build.calibration or bench.calibration
    sketch = to_arrays(seen) if seen is not None else None
    return Certified(build=build, record=facts.record(options), golden=golden, sketch=sketch)


def _accuracy(
    baseline: Build, build: Build, network: Network, data: Prepared | None, options: Options
) -> Accuracy:
    if data is None:
        return Accuracy()
    metric = get_metric(options.metric)
    runs: dict[str, Callable[[Arrays], Arrays]] = {
        "float": baseline.runnable,
        "candidate": build.runnable,
        "source": lambda arrays: run_network(network, arrays),
    }
    scores = evaluate_together(runs, data, metric, reference="float", task="certifying accuracy")
    margin, confidence = options.budget.max_drop, options.budget.confidence
    found = Accuracy(
        comparison=compare(metric, scores["float"], scores["candidate"], margin, confidence),
        baseline=scores["float"].value(),
        candidate=scores["candidate"].value(),
        source=scores["source"].value(),
    )
    if metric.name == "agreement":
        found.agreement = found.candidate
    elif metric.name in ("top1", "top5"):
        pair = {"float": baseline.runnable, "candidate": build.runnable}
        noted = Noted(data)
        agreement = evaluate_together(
            pair, noted, METRICS["agreement"], reference="float", task="agreement with float"
        )
        found.agreement = agreement["candidate"].value()
        found.changes = changes(scores["float"], scores["candidate"], noted.labels)
    return found


def run_network(network: Network, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Run a network on arrays by input name, as a runtime would."""
    with torch.no_grad():
        tensors = [torch.from_numpy(arrays[spec.name]) for spec in network.input_specs]
        outputs = network.call_flat(tensors)
    return {s.name: t.numpy() for s, t in zip(network.output_specs, outputs, strict=True)}


def _speed(ladder: Ladder, build: Build, options: Options, rng: np.random.Generator) -> Speed:
    baseline = ladder.bench.float_build()
    found: list[LatencyComparison] = []
    table = []
    sizes = [options.batch]
    if _has_dynamic_batch(ladder.bench.prepared) and THROUGHPUT_BATCH not in sizes:
        sizes.append(THROUGHPUT_BATCH)
    for size in sizes:
        inputs = example_batch(ladder.bench.prepared, ladder.bench.samples, size).arrays()
        comparison = compare_latency(
            lambda inputs=inputs: baseline.runnable(inputs),  # type: ignore[misc]
            lambda inputs=inputs: build.runnable(inputs),  # type: ignore[misc]
            rng=rng,
            guard=size == options.batch,
            threads=options.threads,
            max_seconds=LATENCY_SECONDS,
            confidence=options.budget.confidence,
            task=f"measuring latency, batch {size}",
        )
        found.append(comparison)
        table.append(
            {
                "threads": options.threads,
                "batch": size,
                "baseline_ms": comparison.float_ms,
                "candidate_ms": comparison.candidate_ms,
                "baseline_throughput": comparison.baseline.throughput(size),
                "candidate_throughput": comparison.candidate.throughput(size),
                "speedup": comparison.ratio,
                "interval": list(comparison.interval),
            }
        )
    return Speed(latency=found[0], table=table)


def _has_dynamic_batch(network: Network) -> bool:
    shape = network.input_specs[0].shape
    return bool(shape) and isinstance(shape[0], str)


def _source_latency(
    source: nn.Module, ladder: Ladder, threads: int, rng: np.random.Generator
) -> float:
    """Median milliseconds of the user's own model in PyTorch, in turn with the float file."""
    network, example = ladder.bench.network, ladder.example
    bound = network.interface.bound(list(example.inputs.values()))
    arguments, keywords = call_arguments(network.interface.signature, bound)
    baseline, inputs = ladder.bench.float_build().runnable, example.arrays()
    with evaluating(source), using_threads(threads), torch.no_grad():
        found = compare_latency(
            lambda: baseline(inputs),
            lambda: source(*arguments, **keywords),
            rng=rng,
            guard=False,
            threads=threads,
            max_seconds=LATENCY_SECONDS,
            task="measuring latency, PyTorch",
        )
    return found.candidate_ms


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """PyTorch with so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode for a while; every submodule's mode is restored."""
    modes = [(module, module.training) for module in nn.Module.modules(model)]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _memory(ladder: Ladder, build: Build) -> tuple[int, int]:
    bench = ladder.bench
    inputs = bench.scratch / "memory-inputs.npz"
    np.savez(inputs, **ladder.example.arrays())  # type: ignore[arg-type]

    def peak(path: Path, options: Mapping[str, str]) -> int:
        arguments = {
            "target": bench.target.name,
            "path": str(path),
            "options": dict(options),
            "inputs": str(inputs),
            "threads": bench.threads,
        }
        return peak_memory("kompakt.targets:memory_job", arguments).above_bytes

    baseline = bench.float_build()
    return peak(baseline.path, baseline.written.options), peak(build.path, build.written.options)


def _golden(build: Build, target: Target, samples: list[Batch]) -> GoldenPack:
    """What the file gives for a few samples: outputs and, where the runtime shows them, codes."""
    shown = build.written.codes if target.probe is not None else {}
    session: Runnable = build.runnable
    if target.probe is not None:
        session = target.probe(build.path, build.written.options, list(shown.values()))
    builder, left = GoldenBuilder(), None
    for batch in samples:
        if left is None:
            left = golden_samples(batch.arrays(), batch.size)
        if left <= 0:
            break
        rows = min(left, batch.size)
        left -= rows
        arrays = {
            name: value[:rows] if value.ndim and value.shape[0] == batch.size else value
            for name, value in batch.arrays().items()
        }
        outputs = session(arrays)
        codes = {site: outputs.pop(name) for site, name in shown.items()}
        builder.add(arrays, outputs, codes, samples=rows)
    return builder.pack()
