"""Files of other tools for three runtimes, beside the artifact ``--target auto`` chose: judged and timed together.

Every tool gets the float model in its own runtime's form and the samples kompakt calibrated on; test data are seen by
nobody before the figures are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kompakt
from benchmarks import models, sts
from benchmarks.outcome import Row
from benchmarks.race import ROUNDS, Time, race
from benchmarks.run_peers import run_tool
from benchmarks.setup import Setup
from kompakt import Result
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.targets import get_target
from kompakt.targets.target import Runnable

Arrays = dict[str, NDArray[Any]]
QUICK_ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool, what it is asked for, and the runtime its files are for."""

    tool: str
    runtime: str
    variant: str

    @property
    def label(self) -> str:
        """As it is called in the table."""
        return f"{self.tool}, {self.variant}" if self.variant else self.tool


PEERS = (
    Peer(tool="onnxruntime", runtime="onnxruntime", variant="minmax"),
    Peer(tool="onnxruntime", runtime="onnxruntime", variant="percentile"),
    Peer(tool="nncf_openvino", runtime="openvino", variant=""),
    Peer(tool="ai_edge_quantizer", runtime="litert", variant="static_wi8_ai8"),
)
TRANSFORMER_PEERS = (
    Peer(tool="onnxruntime", runtime="onnxruntime", variant="minmax"),
    Peer(tool="nncf_openvino", runtime="openvino", variant="transformer"),
    Peer(tool="ai_edge_quantizer", runtime="litert", variant="dynamic_wi8_afp32"),
)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One model: its data, how it is judged, and the float network.

    Attributes:
        name: In ``models.MODELS``.
        data: ``calibration``, ``validation`` and ``test``.
        dynamic: Dimensions that stay open beside the batch.
        metric: Of :func:`kompakt.compress`.
        transformer: Whether tools are told that it is one.
    """

    name: str
    data: Mapping[str, Any]
    dynamic: dict[str, dict[int, str]] | None = None
    metric: str = "top1"
    transformer: bool = False

    def network(self, setup: Setup) -> Network:
        """The captured float network, with batch norms folded."""
        entry = models.MODELS[self.name]
        model = entry.load(setup.assets)
        given = {} if self.dynamic is None else {"dynamic": self.dynamic}
        return inference_form(kompakt.capture(model, entry.example(), **given))

    def inputs(self, batch: Any, names: tuple[str, ...]) -> Arrays:
        """A batch as arrays by input name."""
        given = batch[0] if isinstance(batch, tuple | list) else batch
        given = given if isinstance(given, dict) else {names[0]: given}
        return {name: np.asarray(value) for name, value in given.items()}

    def figure(self, run: Runnable) -> float:
        """The metric over the test data: top-1, or Spearman's correlation."""
        answers, labels = [], []
        for batch in self.data["test"]:
            (found, *_) = run(self.inputs(batch, run.input_names)).values()
            whole = self.transformer
            answers.append(sts.pair_scores({"": found}, None) if whole else found.argmax(-1))
            labels.append(np.asarray(batch[1]))
        ours, wanted = np.concatenate(answers), np.concatenate(labels)
        if self.transformer:
            from scipy.stats import spearmanr

            return float(spearmanr(ours, wanted).statistic)
        return float((ours == wanted).mean())


def beside_peers(
    contest: Contest, result: Result, setup: Setup
) -> tuple[list[Row], dict[str, Any]]:
    """The chosen artifact and every peer's file, in one process."""
    network = contest.network(setup)
    sources = _sources(contest, network, setup)
    samples = _samples(contest, network, setup)
    chosen = result.record.target
    files = {"float": sources["onnxruntime"], "kompakt": result.path / str(chosen["main"])}
    runs = {"float": get_target("onnxruntime").load(files["float"])}
    ours = get_target(str(chosen["name"]))
    runs["kompakt"] = ours.load(files["kompakt"], chosen.get("options") or {})
    told: dict[str, Any] = {}
    for peer in TRANSFORMER_PEERS if contest.transformer else PEERS:
        path = (
            setup.scratch / f"{contest.name}-{peer.label.replace(', ', '-')}{SUFFIX[peer.runtime]}"
        )
        told[peer.label] = run_tool(peer.tool, peer.variant, sources[peer.runtime], samples, path)
        if "failed" in told[peer.label]:
            continue
        try:
            runs[peer.label] = _loaded(peer, path, contest)
            files[peer.label] = path
        except Exception as error:  # noqa: BLE001 (a file that cannot be run is a result as well)
            told[peer.label] = {"failed": f"its file does not run: {error}"[:300]}
    figures = {label: contest.figure(run) for label, run in runs.items()}
    times = _race(contest, runs, setup)
    rows = _rows(contest, str(chosen["name"]), figures, times)
    rows += [
        Row(what=f"{contest.name}: {label}", figure="failed", note=run["failed"])
        for label, run in told.items()
        if "failed" in run
    ]
    details = {
        "figures": figures,
        "times": {label: asdict(time) for label, time in times.items()},
        "runs": told,
        "bytes": {label: _bytes(path) for label, path in files.items()},
    }
    return rows, details


SUFFIX = {"onnxruntime": ".onnx", "openvino": ".xml", "litert": ".tflite"}


def _loaded(peer: Peer, path: Path, contest: Contest) -> Runnable:
    """A peer's file in its runtime, tried on one batch."""
    run = get_target(peer.runtime).load(path, {})
    run(contest.inputs(next(iter(contest.data["test"])), run.input_names))
    return run


def _sources(contest: Contest, network: Network, setup: Setup) -> dict[str, Path]:
    """The float model as each runtime's tools expect it."""
    import openvino

    paths = {name: setup.scratch / f"{contest.name}-float{end}" for name, end in SUFFIX.items()}
    for name in ("onnxruntime", "litert"):
        written = get_target(name).write(network)
        paths[name].write_bytes(written.files[written.main])
    entry = models.MODELS[contest.name]
    example = entry.example()
    converted = openvino.convert_model(entry.load(setup.assets), example_input=example)
    openvino.save_model(converted, paths["openvino"], compress_to_fp16=False)
    return paths


def _samples(contest: Contest, network: Network, setup: Setup) -> Path:
    path = setup.scratch / f"{contest.name}-calibration.npz"
    names = tuple(spec.name for spec in network.input_specs)
    batches = [contest.inputs(batch, names) for batch in contest.data["calibration"]]
    np.savez(path, **{name: np.concatenate([b[name] for b in batches]) for name in names})
    return path


def _race(contest: Contest, runs: Mapping[str, Runnable], setup: Setup) -> dict[str, Time]:
    """Every file in turn on one sample, the float file first."""
    first = next(iter(contest.data["calibration"]))

    def call(run: Runnable) -> Callable[[], Any]:
        one = {name: array[:1] for name, array in contest.inputs(first, run.input_names).items()}
        return lambda: run(one)

    rounds = QUICK_ROUNDS if setup.quick else ROUNDS
    with torch.inference_mode():
        calls = {label: call(run) for label, run in runs.items()}
        return race(calls, np.random.default_rng(setup.seed), rounds)


def _rows(
    contest: Contest, runtime: str, figures: Mapping[str, float], times: Mapping[str, Time]
) -> list[Row]:
    """The chosen artifact against the fastest file of all peers."""
    peers = [label for label in figures if label not in ("float", "kompakt")]
    if not peers:
        return []
    best = min(peers, key=lambda label: times[label].median_ms)
    scale, unit = (1.0, "") if contest.transformer else (100.0, "points")
    drops = {label: scale * (figures["float"] - found) for label, found in figures.items()}
    told = ", ".join(
        f"{label} {times[label].median_ms:.3g} ms, drop {drops[label]:.3g}"
        for label in sorted(times, key=lambda label: times[label].median_ms)
    )
    return [
        Row(
            what=f"{contest.name}: latency of the chosen artifact ({runtime}) against the fastest peer's ({best})",
            figure=times["kompakt"].median_ms / times[best].median_ms,
            unit="×",
            at_most=1.0,
            note=f"one thread, batch 1, in turn: {told}",
        ),
        Row(
            what=f"{contest.name}: drop of the chosen artifact",
            figure=drops["kompakt"],
            unit=unit,
            at_most=drops[best],
            others=[{"tool": label, "figure": round(drops[label], 4)} for label in peers],
            note=f"{contest.metric} of float {scale * figures['float']:.4g}, test data",
        ),
    ]


def _bytes(path: Path) -> int:
    """Size of a model file and of the weights beside it."""
    beside = {*path.parent.glob(f"{path.name}*"), path.with_suffix(".bin")}
    return sum(file.stat().st_size for file in beside if file.exists())


__all__ = ["Contest", "beside_peers"]
