"""OpenVINO: our files beside NNCF's, made from the same model and samples and timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kompakt
from benchmarks import models, sts
from benchmarks.cases import cifar, minilm, mobilenet
from benchmarks.outcome import Outcome, Row
from benchmarks.race import Time, race
from benchmarks.run_peers import run_tool
from benchmarks.setup import Setup
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe import calibrate
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.outlier_splitting import split_outliers
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.quantize.smoothing import smooth
from kompakt.schemes import w8a8
from kompakt.targets import get_target

TITLE = "OpenVINO beside NNCF"
CORRECTED_ON = 96
"""Samples biases are corrected on."""
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with its data and how it is judged."""

    name: str
    data: dict[str, Any]
    network: Network
    variant: str = ""
    calibrator: str = "mse"

    @property
    def judged(self) -> list[Any]:
        """Batches of samples that were not used to calibrate."""
        kept = ("validation", "test") if self.name == "mobilenet_v1_075" else ("test",)
        return [batch for split in kept for batch in self.data[split]]

    def inputs(self, batch: Any) -> Arrays:
        """A batch as arrays by input name."""
        given = batch[0] if isinstance(batch, tuple | list) else batch
        if not isinstance(given, dict):
            given = {self.network.input_specs[0].name: given}
        return {name: np.asarray(value) for name, value in given.items()}


def cases(setup: Setup) -> list[Case]:
    """The three models."""

    def captured(name: str, **settings: Any) -> Network:
        entry = models.MODELS[name]
        found = kompakt.capture(entry.load(setup.assets), entry.example(), **settings)
        return inference_form(found)

    return [
        Case(name="mobilenet_v1_075", data=dict(mobilenet.splits(setup)),
             network=captured("mobilenet_v1_075")),
        Case(name="resnet56", data=dict(cifar.splits(setup)), network=captured("resnet56")),
        Case(name="minilm", data=dict(minilm.splits(setup)), variant="transformer",
             network=captured("minilm", dynamic=minilm.DYNAMIC), calibrator="minmax"),
    ]  # fmt: skip


def ours(case: Case, folder: Path) -> tuple[Path, Any]:
    """The model as kompakt writes it; its outliers split and smoothed first where it is a transformer."""
    target, network = get_target("openvino"), case.network
    batches = [
        {name: torch.from_numpy(array) for name, array in case.inputs(batch).items()}
        for batch in case.data["calibration"]
    ]
    if case.variant == "transformer":
        samples, rules = [list(batch.values()) for batch in batches], target.rules("x86-vnni")
        for method in (split_outliers, smooth):
            network, _ = method(network, w8a8(), rules, samples)
    placed = place(network, w8a8(), target.rules("x86-vnni"))
    set_ranges_(placed, calibrate(network, plan_of(placed).taps, batches), case.calibrator)
    few = [
        torch.cat([batch[spec.name] for batch in batches])[:CORRECTED_ON]
        for spec in network.input_specs
    ]
    correct_biases_(placed, network, [few])
    written = target.write(freeze_(placed))
    folder.mkdir()
    return written.save(folder), written


def theirs(case: Case, setup: Setup) -> tuple[Path, Path, dict[str, Any]]:
    """The float model as OpenVINO converts it from PyTorch, and what NNCF makes of that."""
    import openvino

    entry = models.MODELS[case.name]
    source = setup.scratch / f"{case.name}-float.xml"
    converted = openvino.convert_model(entry.load(setup.assets), example_input=entry.example())
    openvino.save_model(converted, source, compress_to_fp16=False)
    samples = setup.scratch / f"{case.name}.npz"
    batches = [case.inputs(batch) for batch in case.data["calibration"]]
    names = [spec.name for spec in case.network.input_specs]
    np.savez(samples, **{name: np.concatenate([b[name] for b in batches]) for name in names})
    path = setup.scratch / f"{case.name}-nncf.xml"
    return source, path, run_tool("nncf_openvino", case.variant, source, samples, path)


def compete(case: Case, setup: Setup) -> tuple[list[Row], dict[str, Any]]:
    """One model: our file and NNCF's, judged and timed together."""
    target = get_target("openvino")
    main, written = ours(case, setup.scratch / f"{case.name}-kompakt")
    source, peer, run = theirs(case, setup)
    if "failed" in run:
        return [Row(what=f"{case.name}: NNCF", figure="failed", note=run["failed"])], run
    files = {"NNCF": peer, "kompakt": main, "float": source}
    loaded = {label: target.load(path, written.options) for label, path in files.items()}
    runs = {label: (lambda x, s=s: next(iter(s(x).values()))) for label, s in loaded.items()}
    first = case.inputs(next(iter(case.data["calibration"])))
    one = {name: array[:1] for name, array in first.items()}
    times = race({label: (lambda r=r: r(one)) for label, r in runs.items()},
                 np.random.default_rng(setup.seed))  # fmt: skip
    figures = {label: judge(case, run_, runs["float"]) for label, run_ in runs.items()}
    counts = target.operators(main, written.options)
    rows = [*_accuracy(case, figures), _latency(case, times), _kernels(case, counts)]
    details = {
        "figures": figures,
        "times": {label: asdict(t) for label, t in times.items()},
        "operators": {label: target.operators(path, written.options) for label, path in files.items()},
        "bytes": {label: path.stat().st_size + path.with_suffix(".bin").stat().st_size
                  for label, path in files.items()},
        "nncf": run,
    }  # fmt: skip
    return rows, details


def judge(
    case: Case, run: Callable[[Arrays], NDArray[Any]], reference: Callable[[Arrays], NDArray[Any]]
) -> dict[str, float]:
    """Top-1 and agreement with float, or Spearman."""
    outputs = [(run(case.inputs(batch)), batch) for batch in case.judged]
    labels = np.concatenate([np.asarray(batch[1]) for _, batch in outputs])
    if case.name == "minilm":
        scores = np.concatenate([sts.pair_scores({"": found}, None) for found, _ in outputs])
        return {"spearman": _spearman(scores, labels)}
    answers = np.concatenate([found.argmax(-1) for found, _ in outputs])
    floats = np.concatenate([reference(case.inputs(b)).argmax(-1) for _, b in outputs])
    return {
        "top1": 100 * float((answers == labels).mean()),
        "agreement": 100 * float((answers == floats).mean()),
    }


def _spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks; equal values share their mean rank."""
    _, place_of, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place_of]
    return ranks


def _accuracy(case: Case, figures: dict[str, dict[str, float]]) -> list[Row]:
    key = "spearman" if case.name == "minilm" else "agreement"
    return [
        Row(
            what=f"{case.name}: {'Spearman' if key == 'spearman' else 'agreement with float'}",
            figure=figures["kompakt"][key],
            unit="" if key == "spearman" else "%",
            at_least=figures["NNCF"][key],
            others=[{"tool": "NNCF", "figure": figures["NNCF"][key]}],
            note="; ".join(
                f"{label} {', '.join(f'{k} {v:.4g}' for k, v in found.items())}"
                for label, found in figures.items()
            ),
        )
    ]


def _latency(case: Case, times: dict[str, Time]) -> Row:
    time = times["kompakt"]
    low, high = time.interval
    return Row(
        what=f"{case.name}: latency against NNCF's file",
        figure=1 / time.speed,
        unit="×",
        at_most=1.02,
        interval=[1 / high, 1 / low],
        note=", ".join(f"{label} {t.median_ms:.3g} ms" for label, t in times.items())
        + "; one thread, batch 1, in turn",
    )


def _kernels(case: Case, counts: dict[str, int]) -> Row:
    layers = {
        k: n for k, n in counts.items() if k.split(":")[0] in ("Convolution", "FullyConnected")
    }
    integer = sum(n for k, n in layers.items() if k.split(":")[1] in ("u8", "i8"))
    return Row(
        what=f"{case.name}: layers executed in u8 or i8",
        figure=100 * integer / max(1, sum(layers.values())),
        unit="%",
        at_least=100.0,
        note=", ".join(f"{n} {k}" for k, n in layers.items()),
    )


def run(setup: Setup) -> Outcome:
    """All three models."""
    rows: list[Row] = []
    details: dict[str, Any] = {"title": TITLE}
    for case in cases(setup):
        found, more = compete(case, setup)
        rows += found
        details[case.name] = more
    return Outcome(rows=rows, details=details)


__all__: Sequence[str] = ["cases", "compete", "judge", "run"]
