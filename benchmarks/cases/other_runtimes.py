"""Files of ExecuTorch, PyTorch, TorchScript and Core ML: how often the runtime gives the integer referee's answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kompakt
from benchmarks import models
from benchmarks.datasets import Labelled, cifar_jpeg, cifar_lossless, imagenet, kws
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe import calibrate
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.schemes import w8a8
from kompakt.targets import get_target
from kompakt.targets.target import Target, Written

TITLE = "Answers of ExecuTorch, PyTorch, TorchScript and Core ML"
TARGETS = ("executorch", "torch", "torchscript", "coreml")
BATCH, CORRECTED_ON = 20, 64


def run(setup: Setup) -> Outcome:
    """Every network for every runtime."""
    rows: list[Row] = []
    details: dict[str, Any] = {"title": TITLE, "figures": {}}
    for name, calibration, test in _work(setup):
        entry = models.MODELS[name]
        network = inference_form(kompakt.capture(entry.load(setup.assets), entry.example()))
        for label in TARGETS:
            row, details["figures"][f"{name} {label}"] = _compared(
                name, network, get_target(label), calibration, test, setup
            )
            rows.append(row)
    return Outcome(rows=rows, details=details)


def _work(setup: Setup) -> list[tuple[str, Labelled, Labelled]]:
    photos = [imagenet(setup.assets, split) for split in ("calibration", "validation")]
    words = [kws(setup.assets, split) for split in ("calibration", "evaluation")]
    tiles = cifar_lossless(setup.assets, "train")
    judged = cifar_jpeg(setup.assets, "test", setup.cache)
    return [
        ("kws_dscnn", words[0], words[1].take(setup.some(800, 40))),
        ("resnet20", tiles.take(slice(512)), judged.take(setup.some(1000, 40))),
        (
            "mobilenet_v1_075",
            photos[0].take(setup.some(100, 20)),
            photos[1].take(setup.some(300, 20)),
        ),
    ]


def _compared(
    name: str, network: Network, target: Target, calibration: Labelled, test: Labelled, setup: Setup
) -> tuple[Row, dict[str, Any]]:
    """One file against the referee of the network it was written from."""
    key = network.input_specs[0].name
    placed = place(network, w8a8(), target.rules("x86-vnni"))
    batches = ({key: x} for x, _ in calibration.batches(BATCH))
    set_ranges_(placed, calibrate(network, plan_of(placed).taps, batches), "mse")
    correct_biases_(placed, network, [[calibration.take(slice(CORRECTED_ON)).inputs()]])
    freeze_(placed)
    written = target.write(placed)
    folder = setup.scratch / f"{name}-{target.name}"
    folder.mkdir()
    run = _runner(target, written, folder)
    theirs, ours, labels = [], [], []
    for x, wanted in test.batches(BATCH):
        if len(x) < BATCH:
            continue
        found = run(key, x)
        with torch.no_grad():
            (referee,) = torch.utils._pytree.tree_leaves(run_in_integers(placed, x))
        theirs.append(found)
        ours.append(referee.numpy())
        labels.append(wanted.numpy())
    a, b, wanted = map(np.concatenate, (theirs, ours, labels))
    figures = {
        "samples": len(a),
        "equal_answers": 100 * float((a.argmax(1) == b.argmax(1)).mean()),
        "equal_outputs": 100 * float((a == b).all(1).mean()),
        "relative_error": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        "top1": 100 * float((a.argmax(1) == wanted).mean()),
        "referee_top1": 100 * float((b.argmax(1) == wanted).mean()),
    }
    by = ", computed by an interpreter of ML programs in float32" if target.name == "coreml" else ""
    row = Row(
        what=f"{name} for {target.name}: samples with the referee's answer",
        figure=figures["equal_answers"],
        unit="%",
        at_least=99.0,
        note=f"{len(a)} samples{by}; all outputs equal to the bit in {figures['equal_outputs']:.4g} %, relative error "
        f"{figures['relative_error']:.2g}; top-1 {figures['top1']:.2f} %, referee {figures['referee_top1']:.2f} %",
    )
    return row, figures


def _runner(target: Target, written: Written, folder: Path) -> Callable[[str, Tensor], Any]:
    """Runs a file: in its runtime, or, as Core ML runs on macOS only, by the interpreter of the tests."""
    if target.name == "coreml":
        from tests.targets.mil import Interpreter

        program = Interpreter(written.files[written.main])

        def one(key: str, x: Tensor) -> Any:
            return next(iter(program(**{key: x}).values())).numpy()

        # Where shapes inside depend on the batch, the file is of one sample.
        return lambda key, x: np.concatenate([one(key, x[i : i + 1]) for i in range(len(x))])
    loaded = target.load(written.save(folder), written.options)
    return lambda key, x: next(iter(loaded({loaded.input_names[0]: x.numpy()}).values()))
