"""Capture: which architectures come out bit-equal, and what fails and why (``benchmarks.capture``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.jobs import run_module
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup

QUICK = ("resnet20", "kws_dscnn")


def run(setup: Setup) -> Outcome:
    """Capture everything in a fresh process and count what is equal to the bit."""
    path = setup.scratch / "capture.json"
    few = ("--only", *QUICK) if setup.quick else ()
    ran = run_module("benchmarks.capture", "--json", str(path), *few)
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return Outcome(rows=rows(found["rows"]), details={"cpu_s": ran["cpu_s"], "rows": found["rows"]})


def rows(architectures: list[dict[str, Any]]) -> list[Row]:
    """How many of them hold, and the names of those that do not."""
    checks = {
        "captured": lambda row: True,
        "equal to the bit, at every shape tried": lambda row: all(row["equal"].values()),
        "equal in train mode, same seed": lambda row: row["equal_in_train_mode"],
        "captured a second time": lambda row: row["captures_again"],
    }
    made = []
    for what, holds in checks.items():
        failing = [row["name"] for row in architectures if row["failed"] or not holds(row)]
        made.append(
            Row(
                what=f"architectures {what}",
                figure=float(len(architectures) - len(failing)),
                target=f"all {len(architectures)}",
                met=not failing,
                note="not: " + ", ".join(failing) if failing else "",
            )
        )
    return made
