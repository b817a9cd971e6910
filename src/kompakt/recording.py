"""Writing the record: everything known about the winner, in the shape users, reports and ``--json`` read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import kompakt
from kompakt.measuring.comparison import Comparison
from kompakt.measuring.data import Prepared
from kompakt.measuring.environment import environment
from kompakt.measuring.latency import LatencyComparison
from kompakt.measuring.metrics import get_metric
from kompakt.measuring.parity import Certificate
from kompakt.measuring.record import Figures, Record
from kompakt.measuring.sites import diagnose, distributions, site_rows
from kompakt.measuring.verdict import verdict_text
from kompakt.network.layers import layers
from kompakt.network.network import Network
from kompakt.options import Options
from kompakt.quantize.place import quantizer_calls, quantizer_of
from kompakt.report.draft import Draft
from kompakt.report.recipe import chosen
from kompakt.search.budget import Budget
from kompakt.search.diagnosing import Diagnosis
from kompakt.search.journal import Journal
from kompakt.search.ladder import Ladder
from kompakt.search.memory import fingerprint_of
from kompakt.search.slowdown import Slower, sentence
from kompakt.search.trial import Trial, unsound

SPLIT_SITES = 100
"""So many sites have the parts of their error in the record."""
NAMED = 10
"""So many sites are named in a warning; the parity section of the record has all."""


@dataclass(kw_only=True)
class Accuracy:
    """What certification data says; ``None`` for what it cannot say."""

    comparison: Comparison | None = None
    baseline: float | None = None
    candidate: float | None = None
    source: float | None = None
    agreement: float | None = None
    changes: dict[str, Any] | None = None


@dataclass(kw_only=True)
class Speed:
    """What was timed.

    Attributes:
        latency: Float against compressed, at the asked batch size.
        table: One row for each batch size timed.
        source_ms: Median milliseconds of the user's own model in PyTorch.
        slower: Layers that take longer than in float, where the whole file does.
    """

    latency: LatencyComparison | None = None
    table: list[dict[str, Any]] = field(default_factory=list)
    source_ms: float | None = None
    slower: Sequence[Slower] = ()


class Facts:
    """Everything known about the winner, on its way into a record."""

    def __init__(
        self,
        trial: Trial,
        ladder: Ladder,
        certificate: Certificate,
        accuracy: Accuracy,
        speed: Speed,
        memory: tuple[int | None, int | None],
        diagnosis: Diagnosis | None = None,
    ) -> None:
        assert trial.build is not None
        self.trial, self.ladder, self.build = trial, ladder, trial.build
        self.certificate, self.accuracy, self.memory = certificate, accuracy, memory
        self.diagnosis = diagnosis
        self.latency, self.table, self.source_ms = speed.latency, speed.table, speed.source_ms
        self.bench, self.network = ladder.bench, ladder.bench.network
        self.float_size = ladder.bench.float_build().written.size_bytes
        self.size = self.build.written.size_bytes
        self.slower = sentence(speed.slower)

    def record(self, options: Options) -> Record:
        """The record."""
        bench, accuracy, latency = self.bench, self.accuracy, self.latency
        comparison = accuracy.comparison
        unmet = self._unmet(options)
        parity = self.certificate.to_json()
        calibration = self.build.calibration or bench.calibration
        facts = {row.name: row for row in layers(self.build.reference)}
        rows = site_rows(self.build.placed, facts, calibration)
        return Record(
            kompakt=kompakt.__version__,
            model=self._model(options.name),
            target=self._target(),
            scheme=self.build.candidate.scheme.to_json(),
            scheme_name=self.trial.candidate.scheme.name,
            level=self.trial.candidate.level,
            calibrator=self.trial.candidate.calibrator_name,
            methods=self.trial.candidate.methods,
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
                chosen=self._chosen(),
                slower=self.slower,
            ),
            metric=self._metric(options, comparison),
            drop=comparison.drop if comparison else None,
            drop_interval=comparison.interval if comparison else None,
            drop_upper=comparison.upper if comparison and not comparison.unproven else None,
            agreement=accuracy.agreement,
            changes=accuracy.changes,
            speedup=latency.ratio if latency else None,
            speedup_interval=latency.interval if latency else None,
            size_ratio=self.float_size / self.size,
            memory_ratio=_ratio(*self.memory),
            latency=self._latency(options),
            parity=parity,
            warnings=self._warnings(options.budget),
            budget=options.budget.to_json(),
            budget_met=self._met(unmet, options),
            budget_reasons=[*unmet, *self._unsound()],
            trials=[t.to_json() for t in self.ladder.trials],
            sites=rows,
            distributions=distributions(self.build.placed, rows, calibration),
            diagnosis=[*self._causes(rows), *self.ladder.findings],
            error_split=self.diagnosis.to_json(SPLIT_SITES) if self.diagnosis else None,
            environment=environment(),
            timings={f"{k}_cpu_s": v for k, v in bench.clock.cpu.items()}
            | {f"{k}_s": v for k, v in bench.clock.wall.items()},
            commands=options.commands or (python_call(options),),
        )

    def _causes(self, rows: list[dict[str, Any]]) -> list[str]:
        """Where the error arises, in sentences: as measured, else as the ranges let expect."""
        return diagnose(rows) if self.diagnosis is None else self.diagnosis.sentences

    def _unsound(self) -> list[str]:
        failed = self.certificate.verdict == "failed"
        return [unsound(self.certificate)] if failed else []

    def _chosen(self) -> str:
        """The scheme by name and in plain words."""
        scheme = self.trial.candidate.scheme
        return chosen(Draft.of({"scheme_name": scheme.name, "scheme": scheme.to_json()}, "en"))

    def _met(self, unmet: list[str], options: Options) -> bool | None:
        """Whether the budget holds; None where nothing was limited, whatever parity says."""
        if not options.budget.limits_anything:
            return None
        return not unmet and self.certificate.verdict != "failed"

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
            "version": self.bench.target.version() if self.bench.target.stand_in is None else None,
            "isa": self.bench.isa,
            "session_options": dict(self.build.written.options),
            "main": self.build.written.main,
            "codes": dict(self.build.written.codes),
            "notes": list(self.build.written.notes),
        }

    def _figures(self, role: str, metric: float | None, size: int, memory: int | None) -> Figures:
        latency = self.latency
        summary = getattr(latency, role) if latency else None
        return Figures(
            runtime=self.bench.target.stand_in or self.bench.target.name,
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
            "unproven": comparison.unproven or None,
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

    def _warnings(self, budget: Budget) -> list[str]:
        warnings = [*self.network.notes]
        if self.latency is not None and self.latency.noisy:
            warnings.append("the machine was too noisy to measure speed within 5 %")
        warnings.extend(budget.undecided(self.latency))
        if unfused := unfused_sites(self.certificate):
            warnings.append(unfused)
        calibration = self.build.calibration or self.bench.calibration
        if calibration is not None and calibration.samples == 1 and self.trial.candidate.level == 2:
            warnings.append("calibrated with one sample: ranges from one sample are unreliable")
        if slower := all_slower(self.ladder.trials):
            warnings.append(slower)
        if saturating := saturating_layers(self.certificate):
            warnings.append(saturating)
        elif self.certificate.pair_sums is None and self._may_saturate():
            warnings.append(
                "on x86 processors without VNNI, 8-bit weights times unsigned activations can saturate "
                "in 16-bit sums: accuracy there can be lower; run `kompakt verify --here` on such a machine"
            )
        return warnings

    def _may_saturate(self) -> bool:
        """Whether a runtime that does not say where it saturates might: with unsigned codes of 8 bits."""
        placed = self.build.placed
        formats = [quantizer_of(placed, call).format for call in quantizer_calls(placed).values()]
        unsigned = any(not fmt.signed and fmt.bits <= 8 for fmt in formats)
        return self.bench.isa.startswith("x86") and unsigned


def saturating_layers(certificate: Certificate) -> str:
    """Names the layers that saturate on x86 without VNNI; empty where none does."""
    layers = [found.layer for found in certificate.pair_sums or () if found.at_risk]
    if not layers:
        return ""
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return (
        f"on x86 processors without VNNI, 16-bit sums saturate in {len(layers)} layers ({', '.join(layers[:NAMED])}"
        f"{more}): accuracy there can be lower; --isa any writes a file for every processor"
    )


def unfused_sites(certificate: Certificate) -> str:
    """Names what runs in float although integers were planned; empty where nothing does."""
    sites = certificate.unfused
    if not sites:
        return ""
    more = f" and {len(sites) - NAMED} more" if len(sites) > NAMED else ""
    return (
        f"planned for integer kernels, but run in float on this machine, between integer layers "
        f"({len(sites)}): {', '.join(sites[:NAMED])}{more}"
    )


def all_slower(trials: Sequence[Trial]) -> str:
    """Plain words when every candidate that was timed is slower than float; empty otherwise."""
    timed = [trial.latency for trial in trials if trial.latency is not None]
    if len(timed) < 2 or any(latency.interval[1] >= 1 for latency in timed):
        return ""
    return (
        f"all {len(timed)} candidates that were timed are slower than the float model here: keep the float "
        "model, or use this one for its size only"
    )


def _ratio(baseline: int | None, candidate: int | None) -> float | None:
    return baseline / candidate if baseline and candidate else None


def python_call(options: Options) -> str:
    """The call from Python that does the same; the model and the data are the caller's own."""
    budget = {k: v for k, v in vars(options.budget).items() if v != getattr(Budget(), k)}
    given = {
        "metric": repr(options.metric),
        "budget": f"kompakt.Budget({', '.join(f'{k}={v!r}' for k, v in budget.items())})",
        "scheme": repr(options.scheme.name) if options.scheme else None,
        **{
            name: repr(value)
            for name in (
                "target",
                "isa",
                "level",
                "calibrator",
                "keep_float",
                "threads",
                "batch",
                "seed",
            )
            if (value := getattr(options, name)) not in (None, ())
        },
    }
    shown = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
    return f"kompakt.compress(model, ..., {shown}, out=...)  # in Python"


def trial_journal(
    path: str | Path | None,
    options: Options,
    network: Network,
    data: Prepared | None,
    selection: Prepared | None,
) -> AbstractContextManager[Journal | None]:
    """The journal of trials made under these very conditions; nothing where no journal is kept."""
    if path is None:
        return nullcontext()
    unseen = ("commands", "name", "measure_memory")  # no trial depends on them
    asked = {key: repr(value) for key, value in vars(options).items() if key not in unseen}
    return Journal.open(
        path,
        {
            "kompakt": kompakt.__version__,
            "model": [weights_sha256(network), str(network.graph)],
            "calibration": fingerprint_of(data),
            "selection": fingerprint_of(selection),
            **asked,
        },
    )


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
