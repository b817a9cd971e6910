"""The whole job in a fresh process: from a model object to a written, certified file.

    python -m benchmarks.cases.whole_job ASSETS SCRATCH [SAMPLES]

One calibrator, no evaluation of accuracy, speed or memory. Prints one JSON object. What was
imported before the clock starts is kompakt's and torch's front door only; whatever the job itself
loads (the exporter, the runtime) is on the clock, and once more without it in a second job.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.setup import Setup, one_thread

CALIBRATOR = "mse"


def job(setup: Setup, model: Any, example: Any, images: Any) -> dict[str, Any]:
    """One job and its CPU seconds, stage by stage."""
    from benchmarks.jobs import compressed, cpu_seconds

    began, children = time.process_time(), _children()
    wall = time.perf_counter()
    result = compressed(
        setup,
        "job",
        model,
        example_inputs=example,
        calibration=images,
        scheme="w8a8",
        calibrator=CALIBRATOR,
        measure_latency=False,
        measure_memory=False,
    )
    total = time.process_time() - began + _children() - children
    return {
        "cpu_s": total,
        "wall_s": time.perf_counter() - wall,
        "stages_cpu_s": cpu_seconds(result),
        "parity": (result.record.parity or {}).get("verdict"),
    }


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main(arguments: list[str]) -> int:
    """Two jobs: the first pays for what it imports."""
    one_thread()
    import torch

    from benchmarks.datasets import imagenet
    from benchmarks.models import MODELS

    torch.set_num_threads(1)
    assets, scratch = Path(arguments[0]), Path(arguments[1])
    samples = int(arguments[2]) if len(arguments) > 2 else 200
    setup = Setup(assets=assets, cache=scratch, scratch=scratch)
    entry = MODELS["mobilenet_v1_075"]
    model, example = entry.load(assets), entry.example()
    # Decoding photos is not the tool's work: they are in memory before the clock starts.
    images = [x for x, _ in imagenet(assets, "calibration").take(slice(samples)).batches(20)]
    found = {"first": job(setup, model, example, images), "again": None}
    found["again"] = job(setup, model, example, images)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
