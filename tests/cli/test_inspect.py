from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console, Group

from kompakt.cli.site_tables import short, site_tables, totals

from .conftest import Invoke

HOSTILE = "layer[/][red]\x1b[2J\u202e" + "x" * 100_000

ROWS = [
    {
        "name": "features.0.conv",
        "kind": "conv",
        "role": "weight",
        "format": "int8_narrow",
        "shape": ["batch", 32, 112, 112],
        "parameters": 864,
        "bytes": 3456,
        "macs": 10_838_016,
    },
    {
        "name": HOSTILE,
        "kind": "softmax",
        "role": "activation",
        "format": None,
        "why_float": "softmax needs exponentials",
    },
    {"name": "image", "kind": "input", "role": "activation", "format": "uint8"},
]


def shown(width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(Group(*site_tables(ROWS)))
    return stream.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def test_layers_edges_reasons_and_totals_are_shown() -> None:
    text = shown(120)
    for part in (
        "features.0.conv", "int8_narrow", "batch×32×112×112", "864", "3.46 kB", "10.8 M",
        "image", "uint8", "softmax needs exponentials:", "3 sites, 2 quantized", "in float",
    ):  # fmt: skip
        assert part in text, part
    assert "bytes" not in text, "that is the float model's size, and is called so"
    assert totals(ROWS) == {"parameters": 864, "bytes": 3456, "macs": 10_838_016}


def test_hostile_names_are_tamed_and_80_columns_hold() -> None:
    text = shown()
    assert "layer[/][red]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text) < 3000
    assert max(map(len, text.splitlines())) <= 80


def test_counts_are_short() -> None:
    counts = [short(n).replace("\N{NO-BREAK SPACE}", " ") for n in (0, 999, 590_000, 1_179_648)]
    assert counts == ["0", "999", "590 k", "1.18 M"]
    assert short(None) == "–"


@pytest.mark.usefixtures("models")
def test_a_model_is_inspected_layer_by_layer(invoke: Invoke) -> None:
    result = invoke("inspect", "my_models:net")
    assert result.exit_code == 0, result.output
    assert "layer" in result.stdout
    assert "int8_narrow" in result.stdout
    assert "650" in result.stdout
    as_json = json.loads(invoke("inspect", "my_models:net", "--json").stdout)
    layer = next(row for row in as_json["sites"] if row["role"] == "weight")
    assert layer["name"] == "layer"
    assert layer["parameters"] == 650
    assert layer["macs"] == 640
    assert as_json["totals"]["parameters"] == 650


@pytest.mark.usefixtures("models")
def test_layers_kept_in_float_say_why(invoke: Invoke) -> None:
    found = json.loads(invoke("inspect", "my_models:net", "--keep-float", "layer", "--json").stdout)
    layer = next(row for row in found["sites"] if row["role"] == "weight")
    assert layer["format"] is None
    assert layer["why_float"]


@pytest.mark.usefixtures("models")
def test_a_pattern_that_matches_nothing_is_an_error(invoke: Invoke) -> None:
    result = invoke("inspect", "my_models:net", "--keep-float", "lair")
    assert result.exit_code == 1
    assert "'lair'" in result.stderr
    assert "layer" in result.stderr


def test_example_inputs_can_come_from_data(invoke: Invoke, models: Path) -> None:
    assert invoke("inspect", "my_models:net_alone").exit_code == 1
    result = invoke("inspect", "my_models:net_alone", "--data", "builtin:digits")
    assert result.exit_code == 0, result.output
