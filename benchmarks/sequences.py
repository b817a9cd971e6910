"""Sequences of methods on one model: each is built for ONNX Runtime and its file compared with the float one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kompakt
from benchmarks import models
from benchmarks.setup import Setup
from kompakt.measuring.data import for_network, prepare
from kompakt.network.network import Network
from kompakt.quantize import METHODS
from kompakt.schemes import get_scheme
from kompakt.search.candidates import Candidate
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Build, Workbench
from kompakt.targets import get_target

AT_HAND = 128


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Data outputs are compared on.

    Attributes:
        inputs: Batches as a runtime takes them.
        labels: (N,).
        exact: The float file's outputs, (N, classes).
    """

    inputs: list[dict[str, NDArray[Any]]]
    labels: NDArray[np.int64]
    exact: NDArray[np.float32]

    def score(self, build: Build) -> dict[str, float]:
        """Agreement, top-1 and its drop in percent, and the relative error of the outputs."""
        ours = outputs(build, self.inputs)
        right = ours.argmax(1) == self.labels
        float_right = self.exact.argmax(1) == self.labels
        error = np.linalg.norm(ours - self.exact) / np.linalg.norm(self.exact)
        return {
            "agreement": 100 * float((ours.argmax(1) == self.exact.argmax(1)).mean()),
            "top1": 100 * float(right.mean()),
            "drop": 100 * float(float_right.mean() - right.mean()),
            "output_error": round(float(error), 5),
        }


def outputs(build: Build, inputs: Sequence[dict[str, NDArray[Any]]]) -> NDArray[np.float32]:
    """First output of a built file, all samples."""
    return np.concatenate([next(iter(build.runnable(x).values())) for x in inputs])


def bench_for(
    setup: Setup, model: str, calibration: Iterable[Any] | str, folder: str, network: Network | None
) -> Workbench:
    """A workbench for a benchmark model; ``network`` spares capturing it again."""
    captured = network or captured_model(setup, model)
    source = for_network(calibration, captured)
    assert source is not None
    data = prepare(source, captured.input_specs, role="calibration")
    samples = spread_rows(data, AT_HAND, captured.input_specs)
    path = setup.scratch / folder
    path.mkdir(parents=True)
    return Workbench(captured, get_target("onnxruntime"), "x86-vnni", path, data, samples, 1)


def captured_model(setup: Setup, model: str) -> Network:
    """A benchmark model, captured."""
    entry = models.MODELS[model]
    return kompakt.capture(entry.load(setup.assets), entry.example())


def judged(bench: Workbench, data: Iterable[Any]) -> Judged:
    """Data with the float file's outputs."""
    batches = list(prepare(data, bench.prepared.input_specs, role="test"))
    inputs = [batch.arrays() for batch in batches]
    labels = np.concatenate([np.asarray(batch.label_arrays()) for batch in batches])
    return Judged(inputs=inputs, labels=labels, exact=outputs(bench.float_build(), inputs))


def known(sequences: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those whose methods all exist."""
    return [sequence for sequence in sequences if all(name in METHODS for name in sequence)]


def measured(
    bench: Workbench,
    methods: tuple[str, ...],
    sets: dict[str, Judged],
    *,
    scheme: str = "w8a8",
    calibrator: str = "minmax",
) -> dict[str, Any]:
    """One row: a sequence of methods, its CPU seconds, and its scores on each set."""
    candidate = Candidate(
        name=" + ".join(methods) or "plain",
        level=2,
        scheme=get_scheme(scheme),
        calibrator=calibrator,
        methods=methods,
    )
    began = time.process_time()
    build = bench.build(candidate)
    seconds = time.process_time() - began
    scores = {name: data.score(build) for name, data in sets.items()}
    operators = len(build.placed.graph.nodes)
    size = build.written.size_bytes
    Path(build.path).unlink(missing_ok=True)
    return {
        "methods": list(methods),
        "calibrator": calibrator,
        "cpu_s": round(seconds, 1),
        "size_bytes": size,
        "operators": operators,
        **scores,
    }


def pooled(row: dict[str, Any], sets: dict[str, Judged], key: str = "agreement") -> float:
    """A score over several sets together, weighted by their samples."""
    counts = {name: len(data.labels) for name, data in sets.items()}
    return sum(row[name][key] * count for name, count in counts.items()) / sum(counts.values())


__all__ = ["Judged", "bench_for", "captured_model", "judged", "known", "measured", "pooled"]
