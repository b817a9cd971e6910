"""The record: plain JSON, whatever it was made of."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kompakt.measuring.record import SCHEMA, Figures, Record

REQUIRED: dict[str, Any] = {
    "kompakt": "0.1.0",
    "model": {"name": "net", "parameters": 3},
    "target": {"name": "onnxruntime"},
    "scheme": {"name": "w8a8"},
    "scheme_name": "w8a8",
    "level": 2,
    "calibrator": "mse",
    "seed": 0,
    "confidence": 0.95,
    "baseline": Figures(runtime="onnxruntime", latency_ms=2.0),
    "source": Figures(runtime="torch"),
    "candidate": Figures(runtime="onnxruntime", latency_ms=1.0),
    "verdict": "proven",
    "verdict_text": "It is fine.",
}

DOCUMENTED = {
    *("schema", "kompakt", "model", "target", "scheme", "scheme_name", "level", "calibrator"),
    *("seed", "confidence", "metric", "baseline", "source", "candidate", "drop", "drop_interval"),
    *(
        "drop_upper",
        "agreement",
        "changes",
        "validation_split",
        "speedup",
        "speedup_interval",
        "size_ratio",
        "memory_ratio",
    ),
    *("latency", "parity", "verdict", "verdict_text", "warnings", "budget", "budget_met"),
    *(
        "budget_reasons",
        "trials",
        "runtimes",
        "sites",
        "distributions",
        "diagnosis",
        "error_split",
        "environment",
    ),
    *("timings", "commands", "artifact", "methods"),
}
FIGURES = {
    *("runtime", "metric", "latency_ms", "latency_p90_ms", "throughput", "size_bytes"),
    "peak_memory_bytes",
}


def record(**fields: Any) -> Record:
    return Record(**{**REQUIRED, **fields})


def test_every_documented_key_is_there_even_when_nothing_was_measured() -> None:
    data = json.loads(record().dumps())
    assert set(data) == DOCUMENTED
    assert next(iter(data)) == "schema"
    assert data["schema"] == SCHEMA
    for figures in ("baseline", "source", "candidate"):
        assert set(data[figures]) == FIGURES
    assert data["drop"] is None
    assert data["source"]["latency_ms"] is None


def test_what_was_not_measured_or_is_no_number_is_null() -> None:
    data = record(
        drop=float("nan"), drop_interval=(-float("inf"), 0.1), timings={"a_s": float("inf")}
    ).to_json()
    assert data["drop"] is None
    assert data["drop_interval"] == [None, 0.1]
    assert data["timings"] == {"a_s": None}
    assert "NaN" not in record(drop=float("nan")).dumps()


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    data = record(
        drop=np.float32(0.5),
        agreement=torch.tensor(0.25),
        parity={
            "codes": np.int64(7),
            "exact": np.bool_(True),
            "rows": np.array([1, 2]),
            "none": np.float64("nan"),
            "path": Path("a/b"),
            3: "key",
        },
        sites=({"shape": (1, 2)},),
    ).to_json()
    assert data["drop"] == 0.5
    assert data["agreement"] == 0.25
    assert data["parity"] == {
        "codes": 7, "exact": True, "rows": [1, 2], "none": None, "path": "a/b", "3": "key",
    }  # fmt: skip
    assert isinstance(data["parity"]["codes"], int)
    assert data["parity"]["exact"] is True
    assert data["sites"] == [{"shape": [1, 2]}]


def test_text_of_any_kind_survives() -> None:
    hostile = 'a"</script>\x1b[31m\u202e数\x00'
    data = json.loads(record(model={"name": hostile}).dumps())
    assert data["model"]["name"] == hostile


def test_a_record_is_never_edited() -> None:
    made = record()
    with pytest.raises(FrozenInstanceError):
        made.drop = 0.0  # type: ignore[misc]
