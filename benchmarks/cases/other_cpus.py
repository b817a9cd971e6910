"""The same files on a processor with VNNI and on an emulated one without: what differs, and that ``isa="any"`` holds.

``qemu-x86_64`` emulates a Haswell, whose integer kernels add products in 16 bits. Each file is run there by a fresh
Python on the very inputs it is run on here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kompakt
from benchmarks import models
from benchmarks.datasets import Labelled, cifar_lossless, imagenet
from benchmarks.jobs import points
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.measuring.data import prepare
from kompakt.search.candidates import static, with_bias_correction
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench
from kompakt.targets import get_target

TITLE = "Other processors: ONNX Runtime with and without VNNI"
EMULATOR = ("qemu-x86_64", "-cpu", "Haswell-v4")
BATCH = 10
CALIBRATOR = "mse"
SPREAD = 0.1
"""Largest difference of the accuracies on both processors, in points."""

RUN = """
import sys, numpy as np, onnxruntime
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = 1
settings.log_severity_level = 4
x = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
parts = [session.run(None, {name: x[i : i + 10]})[0] for i in range(0, len(x), 10)]
np.save(sys.argv[3], np.concatenate(parts))
"""
"""What runs a file, here and in the emulator: nothing but ONNX Runtime, with its default settings."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with its data."""

    name: str
    calibration: Labelled
    test: Labelled


def cases(setup: Setup) -> list[Case]:
    """ResNet-20 on a few hundred test images, MobileNetV1 on some tens."""
    train, lossless = (cifar_lossless(setup.assets, split) for split in ("train", "test"))
    photos = imagenet(setup.assets, "test")
    every = max(1, len(photos) // (10 if setup.quick else 60))
    return [
        Case(
            name="resnet20",
            calibration=train.take(setup.some(512, 40)),
            test=lossless.take(setup.some(400, 20)),
        ),
        Case(
            name="mobilenet_v1_075",
            calibration=imagenet(setup.assets, "calibration").take(setup.some(200, 20)),
            test=photos.take(slice(0, None, every)),
        ),
    ]


def files(case: Case, setup: Setup, folder: Path) -> dict[str, dict[str, Any]]:
    """The file for processors with VNNI and the one for any, with what is known about their sums."""
    entry = models.MODELS[case.name]
    network = kompakt.capture(entry.load(setup.assets), entry.example())
    found = {}
    for isa in ("x86-vnni", "any"):
        data = prepare(case.calibration.batches(20), network.input_specs)
        samples = spread_rows(data, 16, network.input_specs)
        scratch = folder / isa
        scratch.mkdir()
        bench = Workbench(network, get_target("onnxruntime"), isa, scratch, data, samples, 1)
        build = bench.build(with_bias_correction(static(CALIBRATOR)))
        certificate = bench.certificate(build, list(data)).to_json()
        found[isa] = {
            "path": build.path,
            "exact_on": certificate["exact_on"],
            "verdict": certificate["verdict"],
            "pair_sums": certificate["pair_sums"],
            "formats": {s.name: s.format for s in build.placed.meta["plan"].quantized("weight")},
            "seconds": bench.clock.wall.get("saturation"),
        }
    return found


def outputs(path: Path, inputs: Path, *, emulated: bool) -> NDArray[Any]:
    """A file's outputs on this processor or on the emulated one.

    Raises:
        RuntimeError: It failed; the message ends with what it wrote to standard error.
    """
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        result = Path(folder) / "outputs.npy"
        command = [*(EMULATOR if emulated else ()), sys.executable, "-c", RUN]
        ran = subprocess.run(
            [*command, str(path), str(inputs), str(result)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise RuntimeError(f"running {path.name} ended with {ran.returncode}: {ran.stderr}")
        return np.load(result)


def compared(case: Case, setup: Setup) -> dict[str, dict[str, Any]]:
    """Both files of a model, each on both processors."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="kompakt-") as name:
        folder = Path(name)
        inputs = folder / "inputs.npy"
        np.save(inputs, case.test.inputs().numpy())
        for isa, file in files(case, setup, folder).items():
            path = file.pop("path")
            here = outputs(path, inputs, emulated=False)
            there = outputs(path, inputs, emulated=True)
            right = [float((o.argmax(1) == case.test.labels).mean()) for o in (here, there)]
            found[isa] = file | {
                "samples": len(case.test),
                "top1_here": right[0],
                "top1_without_vnni": right[1],
                "differing_outputs": float((here != there).mean()),
                "largest_difference": float(np.abs(here - there).max()),
            }
    return found


def row(name: str, isa: str, found: dict[str, Any]) -> Row:
    """How far the accuracies on both processors are apart."""
    at_risk = [p["layer"] for p in found["pair_sums"] if p["verdict"] in ("seen", "possible")]
    unseen = [p["layer"] for p in found["pair_sums"] if p["verdict"] == "not seen"]
    changed = [n for n, f in found["formats"].items() if f != "int8_narrow"]
    equal = found["differing_outputs"] == 0
    told = (
        f"{found['samples']} images; top-1 {points(found['top1_here']):.2f} % with VNNI, "
        f"{points(found['top1_without_vnni']):.2f} % without; "
        + (
            "outputs bit-equal"
            if equal
            else f"{points(found['differing_outputs']):.0f} % of outputs differ"
        )
        + f"; exact on {', '.join(found['exact_on'])}; layers at risk: {', '.join(at_risk) or 'none'}"
    )
    if isa == "any":
        told += (
            f"; other weights than int8: {len(changed)} of {len(found['formats'])} layers; "
            f"sums that calibration data did not exceed: {', '.join(unseen) or 'none'}"
        )
    return Row(
        what=f"{name}: spread of top-1 between both processors, "
        + ("int8 weights" if isa == "x86-vnni" else "--isa any"),
        figure=abs(points(found["top1_here"] - found["top1_without_vnni"])),
        unit="points",
        at_most=SPREAD if isa == "any" else None,
        note=told,
    )


def run(setup: Setup) -> Outcome:
    """Both models.

    Raises:
        RuntimeError: There is no emulator.
    """
    if which(EMULATOR[0]) is None:
        raise RuntimeError(f"{EMULATOR[0]} is not installed: it comes with the package qemu-user")
    version = subprocess.run([EMULATOR[0], "--version"], capture_output=True, text=True, check=True)
    found = {case.name: compared(case, setup) for case in cases(setup)}
    return Outcome(
        rows=[row(name, isa, file) for name, both in found.items() for isa, file in both.items()],
        details={
            "title": TITLE,
            "emulator": [version.stdout.splitlines()[0], *EMULATOR[1:]],
            "found": json.loads(json.dumps(found)),
        },
    )
