"""What several benchmarks do alike: compress a model, compare the written file with the float one."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

import kompakt
from benchmarks.models import MODELS
from benchmarks.outcome import Row
from benchmarks.setup import Setup
from kompakt.compression import Result, compress
from kompakt.network.rewrites import inference_form
from kompakt.steps import measure, write

LONG = ("sites", "distributions", "environment", "calibration")


def compressed(setup: Setup, name: str, model: nn.Module, **arguments: Any) -> Result:
    """Compress into ``scratch/NAME``; what an earlier run left there is removed.

    Args:
        setup: How to run.
        name: Of the model and its folder.
        model: The model.
        arguments: Of :func:`kompakt.compress`.
    """
    out = setup.scratch / name
    shutil.rmtree(out, ignore_errors=True)
    return compress(model, out=out, name=name, seed=setup.seed, **arguments)


def short_record(result: Result) -> dict[str, Any]:
    """The record without its long tables; of the parity rows only those that differ."""
    record = {k: v for k, v in result.record.to_json().items() if k not in LONG}
    parity = dict(record["parity"])
    parity["rows"] = [row for row in parity["rows"] if row["differing"]]
    return record | {"parity": parity}


def agreement(result: Result, float_file: Path, data: Iterable[Any]) -> dict[str, Any]:
    """How often the written file gives the float file's answer.

    Returns:
        ``share``, ``interval`` and ``n``.
    """
    found = measure(result.path, data, "agreement", against=float_file)
    low, high = found["interval"]
    return {"share": found["value"], "interval": [1 - high, 1 - low], "n": found["n"]}


def float_file(setup: Setup, name: str) -> Path:
    """A benchmark model as a float ONNX file, batch norms folded, with a dynamic batch."""
    path = setup.scratch / f"{name}-float.onnx"
    if not path.exists():
        entry = MODELS[name]
        network = kompakt.capture(entry.load(setup.assets), entry.example())
        write(inference_form(network), path)
    return path


def speed_row(result: Result, *, at_least: float | None, others: str) -> Row:
    """Speed against the float model in ONNX Runtime, one thread, batch 1."""
    record = result.record
    assert record.speedup is not None
    latency = record.latency or {}
    noisy = "; the machine was noisy" if latency.get("noisy") else ""
    milliseconds = f"{record.baseline.latency_ms:.3g} ms → {record.candidate.latency_ms:.3g} ms"
    return Row(
        what="speed against float in ONNX Runtime",
        figure=record.speedup,
        unit="×",
        at_least=at_least,
        interval=record.speedup_interval,
        others=others,
        note=f"one thread, batch 1, interleaved: {milliseconds}{noisy}",
    )


def size_row(result: Result, others: str | tuple[()] = ()) -> Row:
    """Size of the files."""
    size = result.record.candidate.size_bytes
    assert size is not None
    ratio = result.record.size_ratio
    return Row(
        what="size of the model file",
        figure=size / 1e6,
        unit="MB",
        others=others,
        note=f"{ratio:.2f} times smaller than float",
    )


def parity_row(result: Result) -> Row:
    """Share of the quantizers' codes in which the integer referee equals ONNX Runtime."""
    parity = result.record.parity
    assert parity is not None
    share = 1 - parity["free_running_differing"] / max(1, parity["codes"])
    return Row(
        what="integer referee = ONNX Runtime, codes at every quantizer",
        figure=100 * share,
        unit="%",
        at_least=100.0,
        note=f"{parity['codes']:,} codes at {parity['quantizers']} quantizers, "
        f"{parity['samples']} samples, free running; verdict: {parity['verdict']}",
    )


def points(value: float) -> float:
    """A share in percent."""
    return 100 * value


def cpu_seconds(result: Result) -> dict[str, float]:
    """CPU seconds of each stage of a job."""
    return {
        stage.removesuffix("_cpu_s"): round(seconds, 3)
        for stage, seconds in result.record.timings.items()
        if stage.endswith("_cpu_s")
    }


def run_module(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module in a fresh interpreter.

    Returns:
        ``output`` (its standard output), ``cpu_s``, ``wall_s`` and ``peak_bytes``.

    Raises:
        RuntimeError: It failed; the message ends with what it wrote to standard error.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"{module} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"output": ran.stdout, "cpu_s": cpu, "wall_s": time.perf_counter() - began}
