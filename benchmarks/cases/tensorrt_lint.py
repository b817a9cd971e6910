"""TensorRT: which files keep its rules, ours and those of other tools, and what ours compute in ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kompakt
from benchmarks import models
from benchmarks.cases.parity import calibration_batches
from benchmarks.jobs import float_file
from benchmarks.outcome import Outcome, Row
from benchmarks.run_peers import run_tool
from benchmarks.setup import Setup
from kompakt.measuring.data import prepare
from kompakt.measuring.parity import Certificate, certify
from kompakt.search.candidates import static
from kompakt.search.workbench import Workbench
from kompakt.targets import get_target
from kompakt.targets.tensorrt_lint import lint_file
from kompakt.targets.tensorrt_rules import RULES, Violation

TITLE = "TensorRT's rules: files of four tools"
MODELS = ("mobilenet_v1_075", "resnet20")
PEERS = (
    ("nncf", "fast bias correction"),
    ("onnxruntime", "minmax"),
    ("onnxruntime", "tensorrt"),
    ("modelopt", "int8"),
    ("modelopt", "fp8"),
)
SAMPLES = 64
"""So many calibration samples for the other tools: rules do not depend on ranges."""


def ours(name: str, setup: Setup) -> tuple[Path, Certificate]:
    """Our file of static W8A8 for TensorRT, and whether ONNX Runtime computes what was simulated."""
    entry = models.MODELS[name]
    network = kompakt.capture(entry.load(setup.assets), entry.example())
    data = prepare(calibration_batches(name, setup), network.input_specs)
    folder = setup.scratch / f"{name}-tensorrt"
    folder.mkdir(exist_ok=True)
    target = get_target("tensorrt")
    bench = Workbench(network, target, "any", folder, data, [], 1)
    build = bench.build(static("mse"))
    found = certify(build.placed, build.written, target, list(data), rules=bench.rules)
    return build.written.save(folder), found


def theirs(name: str, tool: str, variant: str, setup: Setup) -> tuple[Path, dict[str, Any]]:
    """Another tool's file of the same float model."""
    source = float_file(setup, name)
    entry = models.MODELS[name]
    network = kompakt.capture(entry.load(setup.assets), entry.example())
    data = prepare(calibration_batches(name, setup), network.input_specs)
    key = network.input_specs[0].name
    some = np.concatenate([batch.inputs[key].numpy() for batch in data])[:SAMPLES]
    samples = setup.scratch / f"{name}-samples.npz"
    np.savez(samples, **{key: some})
    path = setup.scratch / f"{name}-{tool}-{variant.replace(' ', '-')}.onnx"
    return path, run_tool(tool, variant, source, samples, path)


def row(what: str, found: Sequence[Violation], note: str = "", *, clean: bool = False) -> Row:
    """One file's violations as a figure."""
    errors = sum(violation.severity == "error" for violation in found)
    broken = ", ".join(f"{rule} {n}" for rule, n in Counter(v.rule for v in found).items())
    told = f"{errors} errors, {len(found) - errors} warnings: {broken}" if found else "clean"
    return Row(
        what=what,
        figure=len(found),
        unit="violations",
        at_most=0 if clean else None,
        note=f"{told}{'; ' if note else ''}{note}",
    )


def run(setup: Setup) -> Outcome:
    """Both models, all tools."""
    rows: list[Row] = []
    details: dict[str, Any] = {"title": TITLE, "rules": list(RULES), "violations": {}, "runs": {}}
    for name in MODELS:
        path, certificate = ours(name, setup)
        parity = certificate.to_json()
        note = (
            f"in ONNX Runtime {parity['codes'] - parity['differing_codes']:,} of "
            f"{parity['codes']:,} codes equal given its own, outputs within "
            f"{parity['forced_output_error']:.1e}; {certificate.verdict}"
        )
        found = lint_file(path)
        rows.append(row(f"{name}: kompakt", found, note, clean=True))
        details["violations"][f"{name}: kompakt"] = [v.to_json() for v in found]
        for tool, variant in PEERS:
            label = f"{name}: {tool}, {variant}"
            path, ran = theirs(name, tool, variant, setup)
            details["runs"][label] = ran
            if "failed" in ran:
                rows.append(Row(what=label, figure="failed", note=str(ran["failed"])))
                continue
            found = lint_file(path)
            rows.append(row(label, found))
            details["violations"][label] = [v.to_json() for v in found[:40]]
    return Outcome(rows=rows, details=details)
