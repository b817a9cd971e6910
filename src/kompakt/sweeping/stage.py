"""Where a trial is made: build the file, check it, judge it, time it; what came out is a row of plain values."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kompakt.errors import DataError, KompaktError
from kompakt.measuring.accuracy import PairedEvaluation
from kompakt.measuring.comparison import compare
from kompakt.measuring.data import Batch, Dataset, Prepared, prepare
from kompakt.measuring.environment import environment, fingerprint
from kompakt.measuring.latency import compare_latency
from kompakt.measuring.metrics import get_metric
from kompakt.network.network import Network
from kompakt.schemes import float32
from kompakt.search.journal import digest
from kompakt.search.split import example_batch, spread_rows
from kompakt.search.workbench import Build, Workbench
from kompakt.sweeping.plan import Plan
from kompakt.sweeping.turns import Turns
from kompakt.targets import get_target

QUICK_SAMPLES = 32
"""Samples for methods, for parity and for the error of the outputs, as in ``kompakt.compress``."""
TIMING_SECONDS = 10.0
NOT_THEIRS = ("K230", "K301")
"""Errors no other trial would be spared: too few samples, weights that are no numbers."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every trial of a sweep is made.

    Attributes:
        metric: The metric's name.
        isa: The instruction set to write for.
        reference: The runtime whose float file all times are told beside.
        threads: Threads a runtime may use.
        batch: Samples in a call that is timed.
        seed: Of everything random.
        confidence: Of every interval.
        time_it: Whether to measure latency.
    """

    metric: str
    isa: str
    reference: str
    threads: int = 1
    batch: int = 1
    seed: int = 0
    confidence: float = 0.95
    time_it: bool = True


class Stage:
    """Makes trials of one model, one after another.

    Args:
        network: The captured model.
        calibration: Data for ranges and methods, or None.
        validation: Data to judge on, or None.
        settings: How.
        scratch: A folder for trial files.
        turns: Who computes and who is timed on this machine.
    """

    def __init__(
        self,
        network: Network,
        calibration: Dataset | None,
        validation: Dataset | None,
        settings: Settings,
        scratch: Path,
        turns: Turns | None = None,
    ) -> None:
        self.network, self.settings, self.scratch = network, settings, scratch
        self.turns = turns or Turns()
        specs = network.input_specs
        metric = get_metric(settings.metric)
        self._calibration = prepare(calibration, specs) if calibration is not None else None
        self._validation = (
            prepare(validation, specs, needs_labels=metric.needs_labels, role="validation")
            if validation is not None
            else None
        )
        samples = self._calibration if self._calibration is not None else self._validation
        self._few: list[Batch] = spread_rows(samples or [], QUICK_SAMPLES, specs)
        self._example = example_batch(network, self._few, settings.batch)
        self._benches: dict[str, tuple[Workbench, PairedEvaluation | None]] = {}
        self._machine = ""

    def run(self, plan: Plan) -> Row:
        """Make one trial.

        Returns:
            Its row. A plan that cannot be carried out gives a row too, with the reason.

        Raises:
            KompaktError: What no other trial would be spared: the data or the metric is wrong.
        """
        row = empty_row(plan)
        seconds: dict[str, float] = {}
        try:
            with _one_thread(), self.turns.computing():
                torch.manual_seed(self.settings.seed)
                with _timed(seconds, "build"):
                    bench, judge = self._bench(plan.target)
                    build = bench.build(plan.candidate)
                with _timed(seconds, "judge"):
                    row |= self._judged(bench, judge, build)
            try:
                with _timed(seconds, "timing"):
                    row["timing"] = self._timing(plan, build)
            finally:
                shutil.rmtree(build.path.parent, ignore_errors=True)
        except KompaktError as error:
            if isinstance(error, DataError) or error.code in NOT_THEIRS:
                raise
            row |= {"outcome": "refused", "why": f"{error.what}: {error.why or error.help}"}
        except Exception as error:  # noqa: BLE001  (a runtime may raise anything)
            told = str(error).strip().split("\n")[0][:300]
            row |= {"outcome": "failed", "why": f"{type(error).__name__}: {told}"}
        row["run"] = {"seconds": seconds, "machine": self.machine, "attempts": 1}
        return row

    @property
    def machine(self) -> str:
        """Tells machines apart whose times cannot be compared."""
        self._machine = self._machine or fingerprint(environment())
        return self._machine

    def _bench(self, target: str) -> tuple[Workbench, PairedEvaluation | None]:
        """The workbench of a runtime, and what judges its files beside its own float file; made once."""
        if target not in self._benches:
            folder = self.scratch / f"{target}-{len(self._benches)}"
            folder.mkdir(parents=True, exist_ok=True)
            bench = Workbench(
                self.network,
                get_target(target),
                self.settings.isa,
                folder,
                self._calibration,
                self._few,
                self.settings.threads,
            )
            judge = None
            if self._validation is not None:
                metric = get_metric(self.settings.metric)
                judge = PairedEvaluation(bench.float_build().runnable, self._validation, metric)
            self._benches[target] = bench, judge
        return self._benches[target]

    def _judged(self, bench: Workbench, judge: PairedEvaluation | None, build: Build) -> Row:
        """Parity, accuracy, the error of the outputs, and the size of a file."""
        samples = self._few or [self._example]
        parity = bench.certificate(build, samples)
        failed = parity.verdict == "failed"
        written = build.written
        found: Row = {
            "outcome": "parity failed" if failed else "done",
            "why": f"it differs from what was simulated, first at {parity.first_difference}"
            if failed
            else "",
            "parity": parity.verdict,
            "output_error": _output_error(bench, build, samples),
            "size_bytes": written.size_bytes,
            "float_bytes": bench.float_build().written.size_bytes,
            "sha256": _sha256(written.files),
        }
        return found | (self._accuracy(judge, build) if judge is not None else {})

    def _accuracy(self, judge: PairedEvaluation, build: Build) -> Row:
        baseline = judge.baseline
        scores = judge.run(build.runnable, name=build.candidate.name).scores
        found = compare(judge.metric, baseline, scores, None, self.settings.confidence)
        if build.candidate.level == 0 and found.discordant == 0:
            # What is compared with itself loses nothing, however few samples there are.
            found = replace(found, interval=(0.0, 0.0), method="the float file itself")
        return {
            "metric": scores.value(),
            "baseline": baseline.value(),
            "drop": found.drop,
            "drop_interval": list(found.interval),
            "interval_method": found.method,
            "samples": found.n,
            "discordant": found.discordant,
        }

    def _timing(self, plan: Plan, build: Build) -> Row | None:
        """The file's time beside that of the one float file that all trials are timed beside."""
        settings = self.settings
        if not settings.time_it or get_target(plan.target).stand_in is not None:
            return None
        reference = self._bench(settings.reference)[0].float_build().runnable
        inputs = self._example.arrays()
        number = int(digest(plan.to_json())[:12], 16)
        with self.turns.timing():
            found = compare_latency(
                lambda: reference(inputs),
                lambda: build.runnable(inputs),
                rng=np.random.default_rng([settings.seed, number]),
                guard=False,
                threads=settings.threads,
                max_seconds=TIMING_SECONDS,
                confidence=settings.confidence,
                task=f"timing {plan.name}",
            )
        return {
            "speedup": found.ratio,
            "speedup_interval": list(found.interval),
            "latency_ms": found.candidate_ms,
            "latency_interval_ms": list(found.candidate.interval_ms),
            "reference_ms": found.float_ms,
            "pairs": found.pairs,
            "machine": self.machine,
        }


def empty_row(plan: Plan) -> Row:
    """The row of a plan that nothing is known about."""
    unknown = (
        "parity",
        "metric",
        "baseline",
        "drop",
        "drop_interval",
        "interval_method",
        "samples",
    )
    more = ("discordant", "output_error", "size_bytes", "float_bytes", "sha256", "timing", "run")
    return {
        "name": plan.name,
        "target": plan.target,
        "runtime": get_target(plan.target).version(),
        "scheme": plan.scheme.name,
        "recipe": plan.scheme.to_json(),
        "calibrator": plan.calibrator,
        "methods": list(plan.methods),
        "layers": [list(pair) for pair in plan.layers],
        "is_float": plan.scheme == float32(),
        "outcome": "failed",
        "why": "",
        **dict.fromkeys((*unknown, *more)),
    }


def _output_error(bench: Workbench, build: Build, samples: list[Batch]) -> float | None:
    """Relative error of the file's outputs, ‖file − float‖ / ‖float‖."""
    error = norm = 0.0
    baseline = bench.float_build().runnable
    for batch in samples:
        inputs = batch.arrays()
        theirs, ours = dict(baseline(inputs)), build.runnable(inputs)
        for name, exact in theirs.items():
            error += float(np.square(ours[name].astype(np.float64) - exact).sum())
            norm += float(np.square(exact.astype(np.float64)).sum())
    return (error / norm) ** 0.5 if norm > 0 else None


def _sha256(files: Mapping[str, bytes]) -> str:
    found = hashlib.sha256()
    for name, content in files.items():
        found.update(f"{name}:{len(content)}:".encode())
        found.update(content)
    return found.hexdigest()


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = round(time.perf_counter() - began, 4)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums do not depend on how many trials run side by side: PyTorch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["Prepared", "Row", "Settings", "Stage", "empty_row"]
