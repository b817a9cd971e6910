"""What calibration costs above the bare forward pass: CPU time and memory.

    python -m benchmarks.calibration_overhead [--assets DIR] [--images 64] [--pairs 15] [--memory]

All five observers are fed in one pass over every quantized edge of MobileNetV1-0.75 at 224², on one
thread, and compared with the bare pass of the same captured network in the same engine. Bare pass and
calibration run interleaved, in random order within each pair; the figure is the median of the pairs'
ratios of CPU time with its order-statistic interval. Weights are random, which costs the same, unless
``--assets`` names the folder of real ones. Prints one JSON object.

Two bare passes are timed, because calibration chooses batch size and memory layout itself: ``same``
uses what calibration uses, and ``given`` takes the batches as they come.

``--memory`` runs the bare pass and calibration over 200 and over 2000 images, each in a fresh
process, and compares their peaks (Linux only).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import Tensor, fx

import kompakt
from benchmarks.models import MODELS, MobileNetV1
from kompakt.measuring.environment import environment
from kompakt.network.rewrites import inference_form
from kompakt.observe import calibrate
from kompakt.observe.batches import FEWEST_AT_ONCE as MICRO_BATCH
from kompakt.quantize.place import plan_of

SEED = 0
BATCH = 20


def prepared(assets: Path | None) -> tuple[fx.GraphModule, dict[str, str]]:
    """The network in inference form and the taps of its static W8A8 placement."""
    torch.manual_seed(SEED)
    model = MODELS["mobilenet_v1_075"].load(assets) if assets else MobileNetV1().eval()
    captured = kompakt.capture(model, torch.zeros(2, 3, 224, 224))
    taps = plan_of(kompakt.place(captured, "w8a8")).taps
    return inference_form(captured), dict(taps)


def images(count: int, size: int = BATCH) -> Iterator[Tensor]:
    """Random batches, made when they are asked for."""
    generator = torch.Generator().manual_seed(SEED)
    for start in range(0, count, size):
        yield torch.rand(min(size, count - start), 3, 224, 224, generator=generator) * 2 - 1


def bare(network: fx.GraphModule, batches: list[Tensor], *, regrouped: bool) -> None:
    """The forward pass and nothing else."""
    with torch.no_grad():
        for batch in batches:
            for x in batch.split(MICRO_BATCH) if regrouped else (batch,):
                layout = torch.channels_last if regrouped else torch.contiguous_format
                network(x.contiguous(memory_format=layout))


def cpu_seconds(function: Callable[[], Any]) -> float:
    """CPU time of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def ratio(values: list[float]) -> dict[str, Any]:
    """Median with the order-statistic interval of at least 95 %."""
    ordered, n = sorted(values), len(values)
    rank = max(0, int(np.floor(n / 2 - 0.98 * np.sqrt(n))))
    return {
        "median": round(float(np.median(ordered)), 3),
        "interval": [round(ordered[rank], 3), round(ordered[n - 1 - rank], 3)],
        "all": [round(v, 3) for v in ordered],
    }


def overhead(
    network: fx.GraphModule, taps: dict[str, str], count: int, pairs: int
) -> dict[str, Any]:
    """CPU time of calibration over that of both bare passes, interleaved."""
    batches = list(images(count))
    runs: dict[str, Callable[[], Any]] = {
        "bare_same": lambda: bare(network, batches, regrouped=True),
        "bare_given": lambda: bare(network, batches, regrouped=False),
        "calibrate": lambda: calibrate(network, taps, batches),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = np.random.default_rng(SEED)
    for run in runs.values():
        run()
    for _ in range(pairs):
        for name in order.permutation(list(runs)):
            seconds[name].append(cpu_seconds(runs[name]))
    per_image = {name: [1000 * s / count for s in found] for name, found in seconds.items()}
    return {
        "images": count,
        "batch": BATCH,
        "sites": len(taps),
        "pairs": pairs,
        "milliseconds_per_image": {
            name: {"median": round(float(np.median(v)), 2), "least": round(min(v), 2)}
            for name, v in per_image.items()
        },
        "over_bare_same": ratio(_quotients(seconds, "bare_same")),
        "over_bare_given": ratio(_quotients(seconds, "bare_given")),
    }


def _quotients(seconds: dict[str, list[float]], against: str) -> list[float]:
    return [a / b for a, b in zip(seconds["calibrate"], seconds[against], strict=True)]


def peak_bytes(kind: str, count: int, assets: Path | None) -> int:
    """Peak memory of a fresh process that runs one pass over ``count`` images."""
    command = [sys.executable, "-m", "benchmarks.calibration_overhead"]
    command += ["--child", kind, "--images", str(count)]
    command += ["--assets", str(assets)] if assets else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.strip())


def run_child(kind: str, count: int, assets: Path | None) -> None:
    """One pass; prints the peak of this process."""
    network, taps = prepared(assets)
    # Capturing needs more memory than either pass: forget that peak.
    Path("/proc/self/clear_refs").write_text("5")
    if kind == "calibrate":
        calibrate(network, taps, images(count))
    else:
        with torch.no_grad():
            for batch in images(count):
                for x in batch.split(MICRO_BATCH):
                    network(x.contiguous(memory_format=torch.channels_last))
    status = Path("/proc/self/status").read_text().splitlines()
    print(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024)


def memory(assets: Path | None) -> dict[str, Any]:
    """Peaks in MB of fresh processes, and what calibration needs above the bare pass."""
    kinds = {("bare", 200), ("calibrate", 200), ("calibrate", 2000)}
    peaks = {f"{kind}_{n}": peak_bytes(kind, n, assets) / 1e6 for kind, n in sorted(kinds)}
    return {
        "peak_mb": {name: round(value, 1) for name, value in peaks.items()},
        "above_bare_mb": round(peaks["calibrate_200"] - peaks["bare_200"], 1),
        "growth_200_to_2000_mb": round(peaks["calibrate_2000"] - peaks["calibrate_200"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", choices=("bare", "calibrate"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        run_child(options.child, options.images, options.assets)
        return
    network, taps = prepared(options.assets)
    result = {
        "benchmark": "calibration_overhead",
        "seed": SEED,
        "overhead": overhead(network, taps, options.images, options.pairs),
        **({"memory": memory(options.assets)} if options.memory else {}),
        "environment": environment(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
