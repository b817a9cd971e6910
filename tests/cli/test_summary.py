from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kompakt.cli.console import print_result
from kompakt.cli.summary import summary
from kompakt.measuring.record import Figures

from .conftest import make_record


def shown(*commands: list[str], **changes: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, highlight=False, emoji=False)
    console.print(summary(make_record(**changes).to_json(), commands), crop=False)
    return stream.getvalue()


def test_the_verdict_comes_first_and_the_commands_last() -> None:
    lines = shown(["kompakt", "verify", "my folder"], ["kompakt", "sys"]).splitlines()
    assert lines[0] == (
        "accuracy: ✓ proven: drop 0.50 points on 600 samples, at most 2.00 points allowed"
    )
    assert lines[1] == "speed: ✓ faster: 2.50× the speed of the float model (95% interval 2.40× to "
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
    text = shown(metric={"name": "m" * 200}, scheme_name="s" * 200, warnings=["w" * 200])
    assert max(map(len, text[: text.index("artifact")].splitlines())) <= 80


def test_commands_and_paths_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    folder = "/".join(["folder"] * 30)
    commands = [["kompakt", "verify", folder], ["kompakt", "measure", folder, "--data", "x [/b]"]]
    print_result(summary(make_record(artifact=folder).to_json(), commands))
    lines = capsys.readouterr().out.splitlines()
    assert f"artifact  {folder}" in lines
    assert [shlex.split(line) for line in lines[-2:]] == commands


def test_bad_news_comes_first_and_says_what_to_do() -> None:
    slow = shown(speedup=0.82, speedup_interval=(0.8, 0.84)).splitlines()
    assert slow[0].startswith("speed: ✗ slower: 0.82× the speed of the float model (95% interval")
    assert slow[1].endswith("keep the float model, or use this one for its size only")
    assert slow[2].startswith("accuracy: ✓ proven")
    failed = shown(parity={"verdict": "failed", "quantizers": 5, "codes": 9}).splitlines()
    assert failed[0].startswith("✗ The file does not compute what was simulated")


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        ({"mode": "weight_only", "weight": "int4"}, "4-bit weights, float arithmetic"),
        ({"mode": "static", "weight": "int8_narrow", "activation": "auto8"}, "integer arithmetic"),
        ({"mode": "static", "weight": "int8", "activation": "auto16"}, "16-bit activations"),
        ({"mode": "dynamic", "weight": "int8"}, "ranges found at run time"),
        ({"mode": "float"}, "nothing is compressed"),
    ],
)
def test_the_choice_is_named_in_plain_words(treatment: dict[str, str], words: str) -> None:
    told = " ".join(shown(scheme_name="its name", scheme={"default": treatment}).split())
    assert "chosen: its name (" in told
    assert words in told


def test_samples_that_would_settle_it_are_told() -> None:
    metric = {"name": "top1", "n": 600, "margin": 0.02, "samples_needed": 1234}
    told = " ".join(shown(verdict="observed", metric=metric).split())
    assert "accuracy: ~ observed: drop 0.50 points on 600 samples" in told
    assert "about 1,234 samples would settle it" in told


def test_a_split_of_the_validation_data_is_told() -> None:
    told = " ".join(shown(validation_split={"choosing": 200, "certifying": 199}).split())
    assert "validation split: 200 samples to choose, 199 for the final figures; give --test" in told
    assert "validation split" not in shown()


def test_without_quantized_activations_nothing_is_ticked_off() -> None:
    nothing = {"quantizers": 0, "codes": 0, "forced_output_error": 1.8e-7}
    told = shown(parity=nothing | {"verdict": "exact"})
    assert "parity: no quantized activations: outputs compared only, relative error 1.8e-07" in told
    assert "parity: ✗ failed, no quantized" in shown(parity=nothing | {"verdict": "failed"})
    layers = nothing | {"verdict": "within tolerance", "dynamic_layers": 24}
    assert "parity: ✓ within tolerance, 24 layers that find" in shown(parity=layers)


def test_throughput_names_its_batch_and_equal_memory_is_no_gain() -> None:
    figures = {"runtime": "onnxruntime", "throughput": 800.0, "peak_memory_bytes": 3_000_000}
    text = shown(
        baseline=Figures(**figures),
        candidate=Figures(**figures),
        memory_ratio=1.003,
        latency={"threads": 1, "batch": 1, "table": [{"batch": 1}, {"batch": 8}]},
    )
    assert "per second, batch 8" in text
    assert "the same" in text
    assert "1.00×" not in text


@pytest.mark.parametrize("verdict", ["proven", "observed", "undecided", "violated", "unmeasured"])
def test_every_verdict_stands_in_words(verdict: str) -> None:
    told = "not measured" if verdict == "unmeasured" else verdict
    assert f" {told}" in shown(verdict=verdict).splitlines()[0]


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
        scheme_name=hostile,
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
