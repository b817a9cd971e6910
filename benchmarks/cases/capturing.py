"""Capture: which architectures come out bit-equal, and what fails and why (``benchmarks.capture``)."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.jobs import run_module
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup

TITLE = "Capture"

WANTED = (
    "mobilenet_v1_075",
    "resnet20",
    "resnet56",
    "minilm",
    "minilm (eager attention)",
    "nn.TransformerEncoder",
    "nn.Transformer",
    "nn.LSTM",
    "nn.GRU",
)
"""What has to be captured in any case."""
OWN = ("kws_dscnn", "stories260k")
QUICK = ("resnet20", "kws_dscnn")


def run(setup: Setup) -> Outcome:
    """Capture everything in a fresh process and count what is equal to the bit."""
    path = setup.scratch / "capture.json"
    few = ("--only", *QUICK) if setup.quick else ()
    ran = run_module("benchmarks.capture", "--json", str(path), *few)
    found = json.loads(path.read_text(encoding="utf-8"))["rows"]
    details = {"title": TITLE, "cpu_s": ran["cpu_s"], "architectures": found}
    return Outcome(rows=rows(found), details=details)


def rows(architectures: list[dict[str, Any]]) -> list[Row]:
    """How many of them hold, and which do not."""
    equal = [r["name"] for r in architectures if not r["failed"] and all(r["equal"].values())]
    named = [name for name in WANTED if name in {r["name"] for r in architectures}]
    missing = [name for name in named if name not in equal]
    families = [name for name in equal if name not in WANTED and name not in OWN]
    return [
        Row(
            what="trained models and PyTorch's own modules, equal to the bit",
            figure=float(len(named) - len(missing)),
            target=f"all {len(named)}",
            met=not missing,
            note=_not(missing),
        ),
        Row(
            what="tiny random instances of transformers architectures, equal to the bit",
            figure=float(len(families)),
            at_least=12.0,
            note=_not([r["name"] for r in architectures if r["failed"]]),
        ),
        Row(
            what="of all of them, also equal in train mode with the same seed",
            figure=float(sum(bool(r.get("equal_in_train_mode")) for r in architectures)),
            note=_not([r["name"] for r in architectures if not r.get("equal_in_train_mode")]),
        ),
        Row(
            what="of all of them, captured a second time with the same output",
            figure=float(sum(bool(r.get("captures_again")) for r in architectures)),
            note=_not([r["name"] for r in architectures if not r.get("captures_again")]),
        ),
    ]


def _not(names: list[str]) -> str:
    return f"not: {', '.join(names)}" if names else ""
