"""Certifying the winner, once: parity, accuracy on data it was not chosen by, speed, memory, and the record of it all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import kompakt
from kompakt.artifact import GoldenBuilder, GoldenPack, golden_samples
from kompakt.measure.accuracy import evaluate_together
from kompakt.measure.comparison import Comparison, compare
from kompakt.measure.data import Batch, Prepared
from kompakt.measure.environment import environment
from kompakt.measure.latency import LatencyComparison, compare_latency, measure_latency
from kompakt.measure.memory import peak_memory
from kompakt.measure.metrics import METRICS, get_metric
from kompakt.measure.parity import Certificate, certify
from kompakt.measure.record import Figures, Record
from kompakt.measure.sites import diagnose, distributions, site_rows
from kompakt.measure.verdict import verdict_text
from kompakt.network.interface import call_arguments
from kompakt.network.layers import layers
from kompakt.network.network import Network
from kompakt.search.ladder import Ladder, Trial
from kompakt.search.split import example_batch
from kompakt.search.workbench import Build
from kompakt.targets.target import Arrays

if TYPE_CHECKING:
    from kompakt.compression import Options

THROUGHPUT_BATCH = 8
LATENCY_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The winner with everything that goes into its artifact."""

    build: Build
    record: Record
    golden: GoldenPack
    sketch: Mapping[str, NDArray[Any]] | None


@dataclass(kw_only=True)
class Accuracy:
    """What certification data says."""

    comparison: Comparison | None = None
    baseline: float | None = None
    candidate: float | None = None
    source: float | None = None
    agreement: float | None = None


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
    network = source if isinstance(source, Network) else bench.network
    samples = list(bench.samples) or [ladder.example]
    with bench.clock.stage("parity"):
        certificate = certify(build.placed, build.written, bench.target, samples, rules=bench.rules)
    with bench.clock.stage("accuracy"):
        accuracy = _accuracy(bench.float_build(), build, network, data, options)
    latency, table, source_ms = None, [], None
    if options.measure_latency:
        with bench.clock.stage("latency"):
            latency, table = _latency(ladder, build, options, rng)
            source_ms = _source_latency(source, network, ladder.example)
    memory: tuple[int | None, int | None] = (None, None)
    if options.measure_memory:
        with bench.clock.stage("memory"):
            memory = _memory(ladder, build)
    golden = _golden(build, bench.target.probe, samples)
    trial.outcome = "chosen"
    facts = _Facts(trial, ladder, network, certificate, accuracy, latency, table, source_ms, memory)
    sketch = bench.calibration.to_arrays() if hasattr(bench.calibration, "to_arrays") else None
    return Certified(build=build, record=facts.record(options), golden=golden, sketch=sketch)


def _accuracy(
    baseline: Build, build: Build, network: Network, data: Prepared | None, options: Options
) -> Accuracy:
    if data is None:
        return Accuracy()
    metric = get_metric(options.metric)
    runs = {
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
        agreement = evaluate_together(
            pair, data, METRICS["agreement"], reference="float", task="agreement with float"
        )
        found.agreement = agreement["candidate"].value()
    return found


def run_network(network: Network, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Run a network on arrays by input name, as a runtime would."""
    with torch.no_grad():
        tensors = [torch.from_numpy(arrays[spec.name]) for spec in network.input_specs]
        outputs = network.call_flat(tensors)
    return {s.name: t.numpy() for s, t in zip(network.output_specs, outputs, strict=True)}


def _latency(
    ladder: Ladder, build: Build, options: Options, rng: np.random.Generator
) -> tuple[LatencyComparison, list[dict[str, Any]]]:
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
    return found[0], table


def _has_dynamic_batch(network: Network) -> bool:
    shape = network.input_specs[0].shape
    return bool(shape) and isinstance(shape[0], str)


def _source_latency(source: nn.Module, network: Network, example: Batch) -> float:
    """Median milliseconds of the user's own model in PyTorch."""
    bound = network.interface.bound(list(example.inputs.values()))
    arguments, keywords = call_arguments(network.interface.signature, bound)
    with evaluating(source), torch.no_grad():
        return measure_latency(lambda: source(*arguments, **keywords)).median_ms


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
        arguments = {"path": str(path), "options": dict(options), "inputs": str(inputs)}
        return peak_memory(bench.target.memory_job, arguments).above_bytes

    baseline = bench.float_build()
    return peak(baseline.path, baseline.written.options), peak(build.path, build.written.options)


def _golden(build: Build, probe: Any, samples: list[Batch]) -> GoldenPack:
    session = probe(build.path, build.written.options, list(build.written.codes.values()))
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
        codes = {site: outputs.pop(name) for site, name in build.written.codes.items()}
        builder.add(arrays, outputs, codes, samples=rows)
    return builder.pack()


class _Facts:
    """Everything known about the winner, on its way into a record."""

    def __init__(
        self,
        trial: Trial,
        ladder: Ladder,
        network: Network,
        certificate: Certificate,
        accuracy: Accuracy,
        latency: LatencyComparison | None,
        table: list[dict[str, Any]],
        source_ms: float | None,
        memory: tuple[int | None, int | None],
    ) -> None:
        assert trial.build is not None
        self.trial, self.ladder, self.network, self.build = trial, ladder, network, trial.build
        self.certificate, self.accuracy, self.latency = certificate, accuracy, latency
        self.table, self.source_ms, self.memory = table, source_ms, memory
        self.bench = ladder.bench
        self.float_size = ladder.bench.float_build().written.size_bytes
        self.size = self.build.written.size_bytes

    def record(self, options: Options) -> Record:
        bench, accuracy, latency = self.bench, self.accuracy, self.latency
        comparison = accuracy.comparison
        unmet = self._unmet(options)
        parity = self.certificate.to_json()
        rows = site_rows(
            self.build.placed, {row.name: row for row in layers(bench.prepared)}, bench.calibration
        )
        return Record(
            kompakt=kompakt.__version__,
            model=self._model(options.name),
            target=self._target(),
            scheme=self.trial.candidate.scheme.to_json(),
            scheme_name=self.trial.candidate.scheme.name,
            level=self.trial.candidate.level,
            calibrator=self.trial.candidate.calibrator_name,
            seed=options.seed,
            confidence=options.budget.confidence,
            baseline=self._figures("baseline", accuracy.baseline, self.float_size, self.memory[0]),
            source=Figures(runtime="torch", metric=accuracy.source, latency_ms=self.source_ms),
            candidate=self._figures("candidate", accuracy.candidate, self.size, self.memory[1]),
            verdict=comparison.verdict if comparison else "unmeasured",
            verdict_text=verdict_text(
                metric=options.metric,
                comparison=comparison,
                latency=latency,
                size_ratio=self.float_size / self.size,
                parity=self.certificate.verdict,
                unmet=unmet,
            ),
            metric=self._metric(options, comparison),
            drop=comparison.drop if comparison else None,
            drop_interval=comparison.interval if comparison else None,
            drop_upper=comparison.upper if comparison else None,
            agreement=accuracy.agreement,
            speedup=latency.ratio if latency else None,
            speedup_interval=latency.interval if latency else None,
            size_ratio=self.float_size / self.size,
            memory_ratio=_ratio(*self.memory),
            latency=self._latency(options),
            parity=parity,
            warnings=self._warnings(),
            budget=options.budget.to_json(),
            budget_met=not unmet and self.certificate.verdict != "failed",
            budget_reasons=unmet,
            trials=[t.to_json() for t in self.ladder.trials],
            sites=rows,
            distributions=distributions(self.build.placed, rows, bench.calibration),
            diagnosis=[*diagnose(rows), *self.ladder.findings],
            environment=environment(),
            timings={f"{k}_cpu_s": v for k, v in bench.clock.cpu.items()}
            | {f"{k}_s": v for k, v in bench.clock.wall.items()},
            commands=options.commands,
        )

    def _unmet(self, options: Options) -> list[str]:
        latency, comparison = self.latency, self.accuracy.comparison
        return options.budget.violations(
            drop=comparison.drop if comparison else None,
            size_bytes=self.size,
            speedup=latency.ratio if latency else None,
            latency_ms=latency.candidate_ms if latency else None,
        )

    def _model(self, name: str) -> dict[str, Any]:
        specs = {"inputs": self.network.input_specs, "outputs": self.network.output_specs}
        return {
            "name": name,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "source_sha256": weights_sha256(self.network),
            **{
                key: [
                    {
                        "name": s.name,
                        "shape": list(s.shape),
                        "dtype": str(s.dtype).removeprefix("torch."),
                    }
                    for s in values
                ]
                for key, values in specs.items()
            },
        }

    def _target(self) -> dict[str, Any]:
        return {
            "name": self.bench.target.name,
            "version": self.bench.target.version(),
            "isa": self.bench.isa,
            "session_options": dict(self.build.written.options),
            "main": self.build.written.main,
            "codes": dict(self.build.written.codes),
        }

    def _figures(self, role: str, metric: float | None, size: int, memory: int | None) -> Figures:
        latency = self.latency
        summary = getattr(latency, role) if latency else None
        return Figures(
            runtime=self.bench.target.name,
            metric=metric,
            latency_ms=summary.median_ms if summary else None,
            latency_p90_ms=summary.p90_ms if summary else None,
            throughput=self.table[-1][f"{role}_throughput"] if self.table else None,
            size_bytes=size,
            peak_memory_bytes=memory,
        )

    def _metric(self, options: Options, comparison: Comparison | None) -> dict[str, Any] | None:
        if comparison is None:
            return None
        return {
            "name": options.metric,
            "higher_is_better": get_metric(options.metric).higher_is_better,
            "n": comparison.n,
            "discordant": comparison.discordant,
            "method": comparison.method,
            "margin": comparison.margin,
            "samples_needed": comparison.samples_needed,
        }

    def _latency(self, options: Options) -> dict[str, Any] | None:
        if self.latency is None:
            return None
        noise = self.latency.noise_interval
        return {
            "threads": options.threads,
            "batch": options.batch,
            "pairs": self.latency.pairs,
            "noise_interval": list(noise) if noise else None,
            "noisy": self.latency.noisy,
            "table": self.table,
        }

    def _warnings(self) -> list[str]:
        warnings = [*self.network.notes, *self.build.written.notes]
        if self.latency is not None and self.latency.noisy:
            warnings.append("the machine was too noisy to measure speed within 5 %")
        isa = self.bench.isa
        eight_bit = any(
            s.get("format", "") in ("int8", "int8_narrow") for s in site_rows_of(self.build)
        )
        if isa.startswith("x86") and eight_bit and self.certificate.rows:
            warnings.append(
                "on x86 processors without VNNI, 8-bit weights times unsigned activations saturate in "
                "16-bit sums: accuracy there can be lower; check it with `kompakt verify --here`"
            )
        return warnings


def site_rows_of(build: Build) -> list[dict[str, Any]]:
    """The weight sites of a build, formats only."""
    from kompakt.quantize.place import plan_of

    plan = build.placed.meta.get("plan")
    return [s.to_json() for s in plan_of(build.placed).quantized("weight")] if plan else []


def _ratio(baseline: int | None, candidate: int | None) -> float | None:
    return baseline / candidate if baseline and candidate else None


def weights_sha256(network: Network) -> str:
    """SHA-256 over the names and bytes of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.dim()
            else bytes(str(tensor.item()), "ascii")
        )
    return digest.hexdigest()
