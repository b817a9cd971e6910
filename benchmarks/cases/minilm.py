"""MiniLM sentence embeddings on STS-B: the ladder has to find out by itself what works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import models, sts
from benchmarks.jobs import compressed, cpu_seconds, short_record, size_row, speed_row
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt import Budget, Result

TITLE = "MiniLM sentence embeddings, STS-B"

DYNAMIC = {"input_ids": {1: "sequence"}, "attention_mask": {1: "sequence"}}
TIMED_LENGTH, LENGTH = 32, 64
"""Tokens: the length speed is measured at (that of the calibration sentences), and of evaluation."""
CALIBRATION_PAIRS, BATCH = 64, 10


def splits(setup: Setup) -> dict[str, sts.PairBatches]:
    """128 training sentences to calibrate on, other training pairs to choose on, ``dev`` to report."""
    chosen_on = 100 if setup.quick else 1000
    pairs = {
        "calibration": ("train", slice(CALIBRATION_PAIRS), TIMED_LENGTH),
        "validation": ("train", slice(1000, 1000 + chosen_on), LENGTH),
        "test": ("dev", setup.some(1500, 150), LENGTH),
    }
    return {
        split: sts.PairBatches(
            data=sts.pairs(setup.assets, source, rows, length=length),
            size=BATCH,
            labelled=split != "calibration",
        )
        for split, (source, rows, length) in pairs.items()
    }


def by_ladder(setup: Setup, name: str, **arguments: Any) -> Result:
    """What comes of a budget, without a word about schemes or calibrators unless ``arguments`` say one."""
    entry = models.MODELS["minilm"]
    return compressed(
        setup,
        name,
        entry.load(setup.assets),
        example_inputs=entry.example(),
        dynamic=DYNAMIC,
        **splits(setup),
        metric=sts.METRIC,
        **arguments,
    )


def run(setup: Setup) -> Outcome:
    """The ladder's choice under a budget; then plain static INT8, to see what it would have cost."""
    result = by_ladder(setup, "minilm", budget=Budget(max_drop=0.004, min_speedup=2.6))
    plain = by_ladder(
        setup, "minilm-static", scheme="w8a8", budget=Budget(max_drop=0.004), measure_memory=False
    )
    record = result.record
    chosen = next((t["name"] for t in record.trials if t["outcome"] == "chosen"), "?")
    rows = [
        Row(
            what="drop of Spearman",
            figure=record.drop if record.drop is not None else "not measured",
            at_most=0.004,
            interval=record.drop_interval,
            others="minilm.drop",
            note=f"{(record.metric or {}).get('n')} pairs of STS-B dev, float "
            f"{record.baseline.metric:.4f}; the ladder chose: {chosen}; {record.verdict}",
        ),
        speed_row(result, at_least=2.6, others="minilm.speed"),
        size_row(result),
        *_plain_static(plain, result),
        _parity("the choice", record.parity or {}),
        _parity("plain static", plain.record.parity or {}),
    ]
    details = {
        "title": TITLE,
        "cpu_s": cpu_seconds(result),
        "record": short_record(result),
        "plain_static": short_record(plain),
    }
    return Outcome(rows=rows, details=details)


def static_findings(result: Result) -> list[str]:
    """What the report of the chosen artifact itself says about plain static INT8."""
    return [text for text in result.record.diagnosis if "plain static INT8" in text]


def _plain_static(plain: Result, result: Result) -> list[Row]:
    """What plain static INT8 costs here, and what the report of the ladder's choice says about it."""
    record, told = plain.record, static_findings(result)
    return [
        Row(
            what=f"for comparison, static W8A8 ({record.calibrator}) as it comes: Spearman drop",
            figure=record.drop if record.drop is not None else "not measured",
            interval=record.drop_interval,
            note=f"speed {_text(record.speedup)}×",
        ),
        Row(
            what="the report of the choice says why plain static quantization costs what it costs",
            figure="yes" if len(told) > 1 else "no",
            target="it does",
            met=len(told) > 1,
            note="; ".join(told[:3]),
        ),
    ]


def _parity(what: str, parity: Mapping[str, Any]) -> Row:
    """The output where the referee has the runtime's own values at every site; the note tells the free-running one."""
    layers = parity["dynamic_layers"]
    return Row(
        what=f"integer referee against ONNX Runtime, {what}: relative error of the output, given "
        "the runtime's own values at every site",
        figure=parity["forced_output_error"],
        at_most=1e-5,
        note=f"verdict: {parity['verdict']}; {parity['codes']:,} codes at {parity['quantizers']} "
        f"quantizers, {layers - parity['differing_dynamic_layers']} of {layers} dynamic layers equal to the bit; "
        f"running freely {parity['free_running_output_error']:.2g}, "
        f"at most {parity['free_running_output_largest']:.2g} in one value",
    )


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
