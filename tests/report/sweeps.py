"""What a sweep might have found, with every kind of row."""

from __future__ import annotations

from typing import Any


def row(
    number: int, name: str, drop: float | None, speed: float | None, size: int, **more: Any
) -> dict[str, Any]:
    """A row; without a drop the trial came to nothing."""
    timing = None
    if speed is not None:
        timing = {
            "speedup": speed, "speedup_interval": [speed * 0.95, speed * 1.06],
            "latency_ms": 2.0 / speed, "machine": "m",
        }  # fmt: skip
    found = {
        "number": number, "name": name, "target": "onnxruntime", "runtime": "1.31.1",
        "scheme": "w8a8", "recipe": {"overrides": []}, "calibrator": "mse", "layers": [],
        "methods": [], "is_float": name == "float", "outcome": "done", "why": "",
        "parity": "exact", "metric": 0.9, "baseline": 0.91, "drop": drop,
        "drop_interval": None if drop is None else [drop - 0.004, drop + 0.005],
        "samples": 1000, "output_error": 0.05, "size_bytes": size, "float_bytes": 4000,
        "timing": timing, "run": {"seconds": {"build": 1.0}, "machine": "m", "attempts": 1},
        "standing": "front", "better": None,
    }  # fmt: skip
    return found | more


def document(**changes: Any) -> dict[str, Any]:
    """A sweep of seven trials."""
    rows = [
        row(0, "float", 0.0, 1.0, 4000, drop_interval=[0.0, 0.0]),
        row(1, "w8a8 (mse)", 0.002, 2.4, 1100),
        row(2, "w8a8 (mse) + bias_correction", 0.001, 2.3, 1100, methods=["bias_correction"]),
        row(3, "w4 (mse)", 0.02, 1.1, 600),
        row(4, "w8", 0.003, 0.9, 1200, standing="not told apart", better=2),
        row(5, "fp16", 0.3, 0.5, 2000, standing="dominated", better=1),
        row(6, "w8a16", None, None, 0, size_bytes=None, standing=None, outcome="refused",
            why="there is no kernel", parity=None, run={"seconds": {}, "attempts": 1}),
    ]  # fmt: skip
    return {
        "kind": "sweep", "kompakt": "0.1.0", "model": {"name": "a model"},
        "metric": {"name": "top1", "higher_is_better": True, "n": 1000},
        "baseline": {"metric": 0.91}, "confidence": 0.95,
        "settings": {"reference": "onnxruntime", "isa": "x86-vnni", "threads": 1, "batch": 1,
                     "seed": 0},
        "space": {"targets": ["onnxruntime"], "schemes": ["w8a8"], "typed": {"w8a8": "w8a8"}},
        "planned": 7, "reused": 2, "searched": None, "rows": rows, "front": [0, 2, 1, 3],
        "environment": {"cpu": "a processor"}, "commands": ["kompakt sweep m:f"],
    } | changes  # fmt: skip
