"""MiniLM sentence embeddings on STS-B: the ladder has to find out by itself what works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import models, sts
from benchmarks.jobs import compressed, cpu_seconds, short_record, size_row, speed_row
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt import Budget

DYNAMIC = {"input_ids": {1: "sequence"}, "attention_mask": {1: "sequence"}}
TIMED_LENGTH, LENGTH = 32, 64
"""Tokens: the length speed is measured at (that of the calibration sentences), and of evaluation."""
CALIBRATION_PAIRS, BATCH = 64, 10


def run(setup: Setup) -> Outcome:
    """Calibrate on 128 training sentences, choose on other training pairs, report on ``dev``."""
    entry = models.MODELS["minilm"]
    chosen_on = 100 if setup.quick else 1000
    pairs = {
        "calibration": sts.pairs(
            setup.assets, "train", slice(CALIBRATION_PAIRS), length=TIMED_LENGTH
        ),
        "validation": sts.pairs(
            setup.assets, "train", slice(1000, 1000 + chosen_on), length=LENGTH
        ),
        "test": sts.pairs(setup.assets, "dev", setup.some(1500, 150), length=LENGTH),
    }
    data = {
        split: sts.PairBatches(data=some, size=BATCH, labelled=split != "calibration")
        for split, some in pairs.items()
    }
    result = compressed(
        setup,
        "minilm",
        entry.load(setup.assets),
        example_inputs=entry.example(),
        dynamic=DYNAMIC,
        **data,
        metric=sts.METRIC,
        budget=Budget(max_drop=0.004),
    )
    record = result.record
    chosen = next((t["name"] for t in record.trials if t["outcome"] == "chosen"), "?")
    rows = [
        Row(
            what="Spearman drop",
            figure=record.drop if record.drop is not None else "not measured",
            at_most=0.004,
            interval=record.drop_interval,
            others="minilm.drop",
            note=f"{(record.metric or {}).get('n')} pairs of STS-B dev, float "
            f"{record.baseline.metric:.4f}; the ladder chose: {chosen}; {record.verdict}",
        ),
        speed_row(result, at_least=2.6, others="minilm.speed"),
        *_plain_static(record.trials),
        Row(
            what="the report says what static quantization costs here, and why",
            figure="yes" if record.diagnosis else "no",
            target="it does",
            met=bool(record.diagnosis),
            note=" ".join(record.diagnosis),
        ),
        size_row(result),
        _parity(record.parity or {}),
    ]
    return Outcome(
        rows=rows, details={"cpu_s": cpu_seconds(result), "record": short_record(result)}
    )


def _plain_static(trials: Any) -> list[Row]:
    """The figures of the best plain static trial, on the pairs used for choosing."""
    plain = [t for t in trials if t["name"].startswith("static") and "," not in t["name"]]
    return [
        Row(
            what=f"trial: {trial['name']}",
            figure=trial["drop"] if trial["drop"] is not None else trial["outcome"],
            interval=trial["drop_interval"],
            note=f"Spearman drop on {trial['samples']} training pairs, output error "
            f"{_text(trial['output_error'])}, speed {_text(trial['speedup'])}×",
        )
        for trial in plain
    ]


def _parity(parity: Mapping[str, Any]) -> Row:
    return Row(
        what="referee against ONNX Runtime: relative error of the output",
        figure=parity["output_relative_error"],
        at_most=1e-5,
        note=f"verdict: {parity['verdict']}; {parity['codes']:,} codes at {parity['quantizers']} "
        "quantizers",
    )


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
