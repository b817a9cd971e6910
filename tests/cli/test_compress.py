from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kompakt.errors import CaptureError, ParityError
from kompakt.search.budget import Budget

from .conftest import Compressor, Invoke, make_record

RUN = ("compress", "my_models:net", "-o", "out")
DATA = ("--calibration", "builtin:digits", "--validation", "builtin:digits")


@pytest.mark.usefixtures("models")
def test_every_option_reaches_compress(invoke: Invoke, compressor: Compressor) -> None:
    arguments = (
        *RUN, *DATA, "--test", "builtin:digits", "--metric", "top1", "--max-drop", "0.01",
        "--max-size", "10MB", "--min-speedup", "2", "--max-latency", "5ms", "--confidence", "0.9",
        "--isa", "x86", "--level", "2", "--scheme", "w8a8", "--calibrator", "mse",
        "--method", "bias_correction",
        "--keep-float", "layer", "--keep-float", "kind:conv", "--dynamic", "image:2=height",
        "--threads", "2", "--batch", "8", "--seed", "7", "--journal", "j",
    )  # fmt: skip
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert type(compressor.model).__name__ == "Net"
    settings = compressor.settings
    datasets = [settings.pop(split) for split in ("calibration", "validation", "test")]
    assert [data.count() for data in datasets] == [400, 600, 400]
    assert tuple(settings.pop("example_inputs").shape) == (2, 1, 8, 8)
    assert settings == {
        "name": "Net",
        "metric": "top1",
        "budget": Budget(
            max_drop=0.01, max_size=10_000_000, min_speedup=2.0, max_latency_ms=5.0, confidence=0.9
        ),
        "target": "onnxruntime",
        "target_options": {},
        "isa": "x86",
        "level": 2,
        "scheme": "w8a8",
        "calibrator": "mse",
        "methods": ("bias_correction",),
        "keep_float": ("layer", "kind:conv"),
        "dynamic": {"image": {2: "height"}},
        "threads": 2,
        "batch": 8,
        "seed": 7,
        "journal": Path("j"),
        "out": Path("out"),
        "commands": [f"kompakt {' '.join(arguments)}"],
    }


@pytest.mark.usefixtures("models", "compressor")
def test_the_result_is_on_stdout_and_the_narration_on_stderr(invoke: Invoke) -> None:
    result = invoke(*RUN, *DATA, "--metric", "top1")
    assert result.exit_code == 0, result.output
    first = result.stderr.splitlines()
    assert "building" in first
    assert any(
        line.startswith("understood: model Net (650 parameters")
        and "400 samples" in line
        and "top1" in line
        and "onnxruntime" in line
        and "isa auto (" in line
        and "1 thread" in line
        for line in first
    )
    assert "a library prints" in first
    lines = result.stdout.splitlines()
    assert lines[0].startswith("accuracy: ✓ proven: drop 0.50 points")
    assert lines[-4].strip() == "next"
    assert lines[-3].strip() == "kompakt verify out --here"
    assert "building" not in result.stdout


@pytest.mark.usefixtures("models", "compressor")
def test_json_is_exactly_one_object_with_the_promised_keys(invoke: Invoke) -> None:
    result = invoke(*RUN, *DATA, "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    record = json.loads(result.stdout)
    promised = (
        "baseline candidate drop drop_interval speedup speedup_interval size_ratio memory_ratio "
        "parity verdict budget_met artifact trials"
    )
    assert set(promised.split()) <= set(record)
    for part in ("baseline", "candidate"):
        assert {"metric", "latency_ms", "size_bytes", "peak_memory_bytes"} <= set(record[part])


@pytest.mark.usefixtures("models", "compressor")
def test_quiet_says_nothing_on_stderr_itself(invoke: Invoke) -> None:
    result = invoke(*RUN, *DATA, "--quiet")
    assert "understood" not in result.stderr
    assert "proven" in result.stdout


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    "changes",
    [
        {"budget_met": False, "budget_reasons": ["the size in bytes is 12, the limit 10"]},
        {"parity": {"verdict": "failed", "first_difference": "conv1"}},
    ],
)
def test_what_was_asked_for_and_is_not_met_exits_with_3(
    invoke: Invoke, compressor: Compressor, changes: dict[str, object]
) -> None:
    compressor.record = make_record(**changes)
    shown = invoke(*RUN, *DATA)
    assert shown.exit_code == 3
    assert "✗ not met" in shown.stdout or "conv1" in shown.stdout
    as_json = invoke(*RUN, *DATA, "--json")
    assert as_json.exit_code == 3
    assert json.loads(as_json.stdout)["artifact"] == "out"


@pytest.mark.usefixtures("models")
def test_no_budget_is_no_failure(invoke: Invoke, compressor: Compressor) -> None:
    compressor.record = make_record(budget_met=None, verdict="unmeasured", drop=None, metric=None)
    assert invoke(*RUN).exit_code == 0


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CaptureError("K018", "it cannot be captured", where="net.py, line 3"), 1),
        (ParityError("K001", "the codes differ"), 3),
        (RuntimeError("surprise"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_of_the_work(
    invoke: Invoke, compressor: Compressor, error: BaseException, code: int
) -> None:
    compressor.error = error
    result = invoke(*RUN, *DATA, "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if isinstance(error, KeyboardInterrupt):
        assert "kompakt compress my_models:net -o out" in result.stderr
    else:
        assert "error[K" in result.stderr
        assert "  help: " in result.stderr


@pytest.mark.usefixtures("models", "compressor")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--scheme", "w8a9"), "did you mean 'w8a8'"),
        (("--target", "onnxrumtime"), "did you mean 'onnxruntime'"),
        (("--calibrator", "minmx"), "did you mean 'minmax'"),
        (("--metric", "spearmann"), "did you mean 'spearman'"),
        (("--metric", "accuracy"), "did you mean 'top1'"),
        (("--max-size", "10"), "no unit"),
        (("--isa", "x68"), "did you mean 'x86'"),
        (("--max-size", "-1MB"), "positive"),
        (("--max-latency", "5MB"), "5ms"),
        (("--max-drop", "-0.1"), "0 or more"),
        (("--max-drop", "nan"), "0 or more"),
        (("--min-speedup", "0"), "positive"),
        (("--confidence", "95"), "between 0.5 and 1"),
        (("--level", "3"), "--level"),
        (("--level", "two"), "--level"),
        (("--threads", "0"), "--threads"),
        (("--dynamic", "image"), "input:dimension=name"),
        (("--colour",), "--colour"),
    ],
)
def test_usage_errors_exit_with_2_and_name_the_argument(
    invoke: Invoke, arguments: tuple[str, ...], told: str
) -> None:
    result = invoke(*RUN, *DATA, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error[K0")
    assert told in result.stderr


def test_a_missing_argument_and_an_unknown_command_are_usage_errors(invoke: Invoke) -> None:
    for arguments in (("compress",), ("compress", "a:b"), ("compres",), ("--nonsense",)):
        result = invoke(*arguments)
        assert result.exit_code == 2, arguments
        assert "error[K002]" in result.stderr


@pytest.mark.usefixtures("compressor")
def test_a_model_without_example_inputs_gets_them_from_the_data(
    invoke: Invoke, compressor: Compressor, models: Path
) -> None:
    result = invoke("compress", "my_models:net_alone", "-o", "out", *DATA)
    assert result.exit_code == 0, result.output
    assert tuple(compressor.settings["example_inputs"].shape[1:]) == (1, 8, 8)
    without = invoke("compress", "my_models:net_alone", "-o", "out")
    assert without.exit_code == 1
    assert "error[K018]" in without.stderr


@pytest.mark.usefixtures("models", "compressor")
def test_hostile_text_from_a_model_reaches_no_terminal(invoke: Invoke) -> None:
    result = invoke("compress", "my_models:broken", "-o", "out")
    assert result.exit_code == 1
    assert "no [/] weights" in result.stderr
    assert "\x1b" not in result.output
    assert "my_models.py, line" in result.stderr


@pytest.mark.usefixtures("models")
def test_the_current_folder_can_be_imported_from_only_by_name(
    invoke: Invoke, compressor: Compressor, models: Path
) -> None:
    import sys

    before = list(sys.path)
    assert invoke(*RUN).exit_code == 0
    assert sys.path == before


def test_the_record_is_not_touched() -> None:
    assert replace(make_record()) == make_record()
