"""Does every written file compute, code by code, what the integer referee says it does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import kompakt
from benchmarks import models, sts
from benchmarks.cases.minilm import DYNAMIC
from benchmarks.datasets import cifar_lossless, imagenet, kws
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.measuring.data import prepare
from kompakt.measuring.environment import environment
from kompakt.measuring.parity import Certificate, certify
from kompakt.search.candidates import static
from kompakt.search.workbench import Workbench
from kompakt.targets import get_target

TITLE = "Parity: static W8A8 of five models"

CALIBRATOR = "mse"
OTHERS = {"mobilenet_v1_075": "parity.mobilenet"}


def calibration_batches(name: str, setup: Setup) -> Iterable[Any]:
    """The calibration data of a model, as batches."""
    if name == "minilm":
        some = sts.pairs(setup.assets, "train", setup.some(64, 8), length=32)
        return sts.PairBatches(data=some, size=8, labelled=False)
    data = {
        "mobilenet_v1_075": lambda: imagenet(setup.assets, "calibration"),
        "resnet20": lambda: cifar_lossless(setup.assets, "train").take(slice(512)),
        "resnet56": lambda: cifar_lossless(setup.assets, "train").take(slice(512)),
        "kws_dscnn": lambda: kws(setup.assets, "calibration"),
    }[name]()
    return data.take(setup.some(len(data), 40)).batches(20)


def certificate(name: str, setup: Setup, scratch: Path) -> Certificate:
    """Static W8A8 of one model, certified on all of its calibration data."""
    entry = models.MODELS[name]
    dynamic = DYNAMIC if name == "minilm" else None
    network = kompakt.capture(entry.load(setup.assets), entry.example(), dynamic=dynamic)
    data = prepare(calibration_batches(name, setup), network.input_specs)
    target = get_target("onnxruntime")
    bench = Workbench(network, target, str(environment()["isa"]), scratch, data, [], 1)
    build = bench.build(static(CALIBRATOR))
    return certify(build.placed, build.written, target, list(data), rules=bench.rules)


def row(name: str, found: Mapping[str, Any]) -> Row:
    """One model's certificate as a figure."""
    free = found["free_running_differing"]
    about = (
        f"{found['samples']} calibration samples, {found['quantizers']} quantizers; "
        f"{found['codes'] - free:,} of {found['codes']:,} codes equal free running, "
        f"{found['codes'] - found['differing_codes']:,} with the runtime's codes fed to each site; "
        f"verdict: {found['verdict']}"
    )
    if name == "minilm":
        return Row(
            what=f"{name}: relative error of the output, given the runtime's codes at each site",
            figure=found["forced_output_error"],
            at_most=1e-5,
            note=f"{about}; free running {found['free_running_output_error']:.2g}, "
            f"at most {found['free_running_output_largest']:.2g} in one value",
        )
    return Row(
        what=f"{name}: integer referee = ONNX Runtime",
        figure=100 * (1 - free / max(1, found["codes"])),
        unit="% of codes",
        at_least=100.0,
        others=OTHERS.get(name, ()),
        note=about,
    )


def run(setup: Setup) -> Outcome:
    """All five models."""
    found = {}
    for name in ("mobilenet_v1_075", "resnet20", "resnet56", "kws_dscnn", "minilm"):
        with tempfile.TemporaryDirectory(prefix="kompakt-") as scratch:
            found[name] = certificate(name, setup, Path(scratch)).to_json()
    return Outcome(
        rows=[row(name, parity) for name, parity in found.items()],
        details={"title": TITLE, "scheme": "w8a8", "calibrator": CALIBRATOR, "parity": found},
    )
