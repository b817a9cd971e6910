from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kompakt.cli.summary import summary

from .conftest import make_record


def shown(*commands: list[str], **changes: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, highlight=False, emoji=False)
    console.print(summary(make_record(**changes).to_json(), commands))
    return stream.getvalue()


def test_the_verdict_comes_first_and_the_commands_last() -> None:
    lines = shown(["kompakt", "verify", "my folder"], ["kompakt", "sys"]).splitlines()
    assert lines[0] == "✓ proven The drop is proven to stay below 0.02."
    assert lines[-2].strip() == "kompakt verify 'my folder'"
    assert lines[-1].strip() == "kompakt sys"


def test_float_and_compressed_stand_beside_each_other_with_intervals() -> None:
    text = shown().replace("\N{NO-BREAK SPACE}", " ")
    for figure in (
        "97.50%", "97.00%", "drop 0.50 points", "−0.20 to 1.20",
        "1.25 ms", "0.500 ms", "2.50× speed", "2.40× to 2.60×",
        "2.83 MB", "710 kB", "3.99× smaller", "9.00 MB", "3.00 MB", "95% interval",
    ):  # fmt: skip
        assert figure in text, figure
    assert "parity: ✓ exact, 0 of 12,000 codes differ at 5 quantizers" in text
    assert "budget: ✓ met" in text


def test_it_fits_80_columns_even_with_long_names() -> None:
    text = shown(["kompakt", "verify", "x" * 300], metric={"name": "m" * 200}, artifact="a" * 300)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("verdict", ["proven", "observed", "undecided", "violated", "unmeasured"])
def test_every_verdict_stands_in_words(verdict: str) -> None:
    assert verdict in shown(verdict=verdict).splitlines()[0]


def test_nothing_is_claimed_that_was_not_measured() -> None:
    text = shown(
        latency=None,
        drop=None,
        speedup=None,
        memory_ratio=None,
        parity=None,
        budget_met=None,
        artifact=None,
    )
    for word in ("top1", "latency", "parity", "budget", "artifact", "next"):
        assert word not in text


def test_an_unmet_budget_says_why_and_what_got_bigger() -> None:
    text = shown(budget_met=False, budget_reasons=["the size is 12"], size_ratio=0.5)
    assert "budget: ✗ not met" in text
    assert "because the size is 12" in text
    assert "2.00× bigger" in text


def test_without_a_limit_no_budget_is_told_of() -> None:
    assert "budget" not in shown(budget={"max_drop": None, "confidence": 0.95})


def test_warnings_and_causes_are_told() -> None:
    text = shown(warnings=["the machine is noisy"], diagnosis=["conv1 clips 3 %"])
    assert "warning: the machine is noisy" in text
    assert "finding: conv1 clips 3 %" in text


def test_names_from_a_model_are_shown_as_they_are_and_do_nothing() -> None:
    hostile = "layer[/][bold red]\x1b[2J\x07\u202e:smile:"
    text = shown(
        verdict_text=hostile,
        warnings=[hostile],
        parity={"verdict": "failed", "first_difference": hostile},
        metric={"name": hostile},
        artifact=hostile,
        verdict=hostile,
    )
    assert "layer[/][bold red]" in text
    for active in ("\x1b", "\x07", "\u202e"):
        assert active not in text


def test_the_report_is_named_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("")
    assert "report.html" in shown(artifact=str(tmp_path)).replace("\n", "")
    assert "report.html" not in shown(artifact="nowhere")
