"""Transformers in static and hybrid INT8: outlier splitting, smoothing and dynamic ranges, alone and together.

Calibrated on training sentences, chosen on others, reported on the test split; every figure is that of the written
file in its runtime. Times are processor time, the files called in turn, so that a busy machine disturbs them little;
the speed of the choice is measured a second time on the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kompakt
from benchmarks import models, sts
from benchmarks.cases import minilm
from benchmarks.cases.methods import cosine
from benchmarks.cases.openvino import _spearman as spearman
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.errors import KompaktError
from kompakt.measuring.data import Batch, prepare
from kompakt.measuring.latency import compare_latency
from kompakt.network.rewrites import inference_form
from kompakt.schemes import w8a8_dynamic
from kompakt.search.candidates import Candidate, static
from kompakt.search.hybrids import dynamic_where_harmless
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Build, Workbench
from kompakt.targets import get_target

TITLE = "Transformers: static and hybrid INT8"
SAMPLES = 64
MOST_DROP, LEAST_COSINE = 0.001, 0.9955
SPEED = {"onnxruntime": 2.6, "openvino": 3.4}
"""Aimed at: times the speed of the float file in ONNX Runtime."""
TIMED_SECONDS = 20.0
Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One file's accuracy.

    Attributes:
        drop: Of Spearman's rank correlation, against the float file.
        cosine: Mean cosine of the embeddings to the float file's.
    """

    drop: float
    cosine: float

    @property
    def holds(self) -> bool:
        """Whether it is as accurate as aimed at."""
        return self.drop <= MOST_DROP and self.cosine >= LEAST_COSINE


def candidates(bench: Workbench) -> Iterable[Candidate]:
    """What is compared on one runtime."""
    plain = static("minmax")
    if bench.rules.dynamic_layers:
        yield Candidate(name="dynamic", level=1, scheme=w8a8_dynamic())
    yield plain
    for methods in (("split_outliers",), ("smooth",), ("split_outliers", "smooth")):
        yield replace(plain, name=" + ".join([plain.name, *methods]), methods=methods)
    for methods in (("split_outliers",), ("split_outliers", "smooth")):
        base = replace(plain, name=" + ".join([plain.name, *methods]), methods=methods)
        hybrid = dynamic_where_harmless(bench, base)
        if hybrid is not None:
            yield hybrid


def outputs(run: Run, data: Iterable[Batch]) -> NDArray[np.float32]:
    """The embeddings of all sentences."""
    return np.concatenate([next(iter(run(batch.arrays()).values())) for batch in data])


def judged(ours: NDArray[Any], exact: NDArray[Any], labels: NDArray[Any]) -> Judged:
    """Drop and cosine of one file's embeddings."""
    ranks = [spearman(sts.pair_scores({"": found}, None), labels) for found in (exact, ours)]
    return Judged(drop=ranks[0] - ranks[1], cosine=float(cosine(ours, exact).mean()))


def processor_times(
    runs: Mapping[str, Callable[[], Any]], rng: np.random.Generator, seconds: float
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of processor time of every call, the files called in turn in random order."""
    names = list(runs)
    found: dict[str, list[float]] = {name: [] for name in names}
    until = time.monotonic() + seconds
    for run in runs.values():
        run()
    while time.monotonic() < until or len(found[names[0]]) < 30:
        for place in rng.permutation(len(names)):
            began = time.process_time()
            runs[names[place]]()
            found[names[place]].append(1e3 * (time.process_time() - began))
    return {name: np.asarray(times) for name, times in found.items()}


def speeds(times: Mapping[str, NDArray[np.float64]], against: str) -> dict[str, list[float]]:
    """Speed at the 5th, 20th and 50th percentile of the times: what contention adds is above them."""
    shares = (5, 20, 50)
    first = np.percentile(times[against], shares)
    return {name: [float(v) for v in first / np.percentile(t, shares)] for name, t in times.items()}


def _labels(data: Iterable[Batch]) -> NDArray[Any]:
    return np.concatenate([np.asarray(batch.labels) for batch in data])


def _on(setup: Setup, name: str, splits: Mapping[str, Any], baseline: Any) -> dict[str, Any]:
    """Every candidate on one runtime: built, judged on validation data, timed; the choice judged on test data."""
    entry, target = models.MODELS["minilm"], get_target(name)
    network = kompakt.capture(entry.load(setup.assets), entry.example(), dynamic=minilm.DYNAMIC)
    ready = {
        split: list(prepare(data, network.input_specs, role=split))
        for split, data in splits.items()
    }
    few = spread_rows(ready["calibration"], SAMPLES, network.input_specs)
    folder = setup.scratch / f"transformers-{name}"
    folder.mkdir()
    bench = Workbench(network, target, "x86-vnni", folder, ready["calibration"], few, 1)
    floats = bench.float_build().runnable
    exact = {split: outputs(floats, ready[split]) for split in ("validation", "test")}
    labels = {split: _labels(ready[split]) for split in exact}
    one = {key: array[:1] for key, array in ready["calibration"][0].arrays().items()}
    rows: dict[str, dict[str, Any]] = {}
    built: dict[str, Build] = {}
    for candidate in candidates(bench):
        try:
            build = built[candidate.name] = bench.build(candidate)
        except KompaktError as error:
            rows[candidate.name] = {"failed": str(error)}
            continue
        found = judged(
            outputs(build.runnable, ready["validation"]), exact["validation"], labels["validation"]
        )
        rows[candidate.name] = {"validation": vars(found), "holds": found.holds,
                                "bytes": build.written.size_bytes}  # fmt: skip
    runs = {"float": lambda: baseline(one), f"float in {target.name}": lambda: floats(one)}
    runs |= {n: (lambda b=b: b.runnable(one)) for n, b in built.items()}
    rng = np.random.default_rng(setup.seed)
    times = processor_times(runs, rng, TIMED_SECONDS / (10 if setup.quick else 1))
    fast = speeds(times, "float")
    for label in built:
        rows[label] |= {
            "speed": fast[label],
            "milliseconds": float(np.percentile(times[label], 20)),
        }
    good = [label for label in built if rows[label]["holds"]] or list(built)
    chosen = max(good, key=lambda label: rows[label]["speed"][1])
    test = judged(outputs(built[chosen].runnable, ready["test"]), exact["test"], labels["test"])
    clock = compare_latency(
        lambda: baseline(one), lambda: built[chosen].runnable(one), rng=rng, guard=False,
        max_seconds=TIMED_SECONDS,
    )  # fmt: skip
    return {
        "chosen": chosen,
        "test": vars(test),
        "clock": {"ratio": clock.ratio, "interval": list(clock.interval)},
        "candidates": rows,
        "float_speed": fast[f"float in {target.name}"],
        "scheme": built[chosen].candidate.scheme.to_json(),
    }


def _rows(name: str, found: Mapping[str, Any]) -> list[Row]:
    """The rows of one runtime's choice."""
    label, rows, test = (
        get_target(name).rules("x86-vnni").runtime,
        found["candidates"],
        found["test"],
    )
    chosen = rows[found["chosen"]]
    low, _, high = sorted(chosen["speed"])
    others = {
        "onnxruntime": [{"tool": "NNCF (ONNX)", "figure": 0.73}],
        "openvino": [{"tool": "NNCF (OpenVINO)", "figure": 3.4}],
    }
    return [
        Row(
            what=f"MiniLM, {label}: drop of Spearman",
            figure=test["drop"],
            at_most=MOST_DROP,
            note=f"STS-B dev; chosen on training pairs: {found['chosen']}",
        ),
        Row(
            what=f"MiniLM, {label}: mean cosine to the float embedding",
            figure=test["cosine"],
            at_least=LEAST_COSINE,
            others=[{"tool": "NNCF", "figure": 0.9955}],
            note="; ".join(
                f"{n} {row['validation']['cosine']:.4f}"
                for n, row in rows.items()
                if "speed" in row
            ),
        ),
        Row(
            what=f"MiniLM, {label}: speed against float in ONNX Runtime",
            figure=chosen["speed"][1],
            unit="×",
            at_least=SPEED[name],
            interval=[low, high],
            others=others[name],
            note=f"one thread, batch 1, {minilm.TIMED_LENGTH} tokens, processor time at the 20th percentile (in "
            f"brackets: 5th to 50th); on the clock {found['clock']['ratio']:.3g}×; {label}'s own float file "
            f"{found['float_speed'][1]:.3g}×; "
            + "; ".join(f"{n} {row['speed'][1]:.3g}×" for n, row in rows.items() if "speed" in row),
        ),
    ]


def run(setup: Setup) -> Outcome:
    """ONNX Runtime and OpenVINO."""
    splits = minilm.splits(setup)
    entry, target = models.MODELS["minilm"], get_target("onnxruntime")
    network = inference_form(
        kompakt.capture(entry.load(setup.assets), entry.example(), dynamic=minilm.DYNAMIC)
    )
    written = target.write(network)
    (setup.scratch / "float").mkdir()
    baseline = target.load(written.save(setup.scratch / "float"), written.options, 1)
    found = {name: _on(setup, name, splits, baseline) for name in SPEED}
    rows = [row for name in SPEED for row in _rows(name, found[name])]
    return Outcome(rows=rows, details={"title": TITLE, **found})


__all__: Sequence[str] = ["candidates", "judged", "processor_times", "run", "speeds"]
