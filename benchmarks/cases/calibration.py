"""What calibrating MobileNetV1 costs: above the bare forward pass, in memory, and as a whole job."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.jobs import run_module
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup

TITLE = "Calibration: MobileNetV1-0.75, 200 images"

EQUAL_MB = 5.0
"""Two peaks this close count as equal: the allocator alone differs by as much."""


def run(setup: Setup) -> Outcome:
    """Each part in a fresh process."""
    count, pairs = ("40", "3") if setup.quick else ("200", "15")
    assets = str(setup.assets)
    arguments = ["--assets", assets, "--images", count, "--pairs", pairs]
    memory = [] if setup.quick else ["--memory"]
    ran = run_module("benchmarks.calibration_overhead", *arguments, *memory)
    cost = json.loads(ran["output"])
    job = run_module("benchmarks.cases.whole_job", assets, str(setup.scratch), count)
    jobs = json.loads(job["output"].splitlines()[-1])
    rows = [*_time(cost["overhead"]), *_memory(cost.get("memory")), *_job(jobs)]
    details = {"title": TITLE, "overhead": cost, "job": jobs | {"process_cpu_s": job["cpu_s"]}}
    return Outcome(rows=rows, details=details)


def _time(found: dict[str, Any]) -> list[Row]:
    each = found["milliseconds_per_image"]
    about = f"{found['images']} images, {found['sites']} sites, {found['pairs']} pairs of CPU times"
    return [
        Row(
            what="all five observers in one pass, over the bare forward pass",
            figure=found["over_bare_same"]["median"],
            unit="×",
            at_most=1.3,
            interval=found["over_bare_same"]["interval"],
            others="calibration.over_bare",
            note=f"same network, engine, batch size and memory layout; {about}; "
            f"{each['bare_same']['median']} → {each['calibrate']['median']} ms an image",
        ),
        Row(
            what="the same over the bare pass with batches as they come",
            figure=found["over_bare_given"]["median"],
            unit="×",
            interval=found["over_bare_given"]["interval"],
            note=f"batches of {found['batch']}, default memory layout: "
            f"{each['bare_given']['median']} ms an image",
        ),
    ]


def _memory(found: dict[str, Any] | None) -> list[Row]:
    if found is None:
        return []
    growth = found["growth_200_to_2000_mb"]
    return [
        Row(
            what="memory above the bare pass, 200 images",
            figure=found["above_bare_mb"],
            unit="MB",
            at_most=100.0,
            others="calibration.memory",
        ),
        Row(
            what="memory with 2000 images, above that with 200",
            figure=growth,
            unit="MB",
            target="equal",
            met=abs(growth) <= EQUAL_MB,
            note=f"peaks of fresh processes; within {EQUAL_MB:g} MB counts as equal",
        ),
    ]


def _job(jobs: dict[str, Any]) -> list[Row]:
    first, again = jobs["first"], jobs["again"]
    stages = sorted(first["stages_cpu_s"].items(), key=lambda item: -item[1])
    named = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages if seconds >= 0.05)
    return [
        Row(
            what="whole job: model object to written, certified file",
            figure=first["cpu_s"],
            unit="CPU-s",
            at_most=8.0,
            others="calibration.job",
            note=f"one calibrator, no accuracy evaluation, photos in memory; parity "
            f"{first['parity']}; {named}; the rest is capturing, imports and the report. "
            f"The same job once more in the same process: {again['cpu_s']:.2f}",
        )
    ]
