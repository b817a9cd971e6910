from __future__ import annotations

import pytest

from kompakt.measuring.metrics import METRICS

from .conftest import Invoke


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mse", "When to use"),
        ("minmax", "Formula"),
        ("w8a8", "static: weights int8_narrow"),
        ("w4", "calibration not needed"),
        ("float32", "layers      float"),
        ("onnxruntime", "stays float:"),
        ("top1", "needs   labels"),
        ("agreement", "the float model's outputs"),
        ("perplexity", "better  lower"),
        ("int8", "8 bits"),
    ],
)
def test_everything_with_a_name_is_explained(invoke: Invoke, name: str, told: str) -> None:
    result = invoke("explain", name)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{name}: ")
    assert told in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_a_name_of_two_things_gets_both_texts(invoke: Invoke) -> None:
    shown = invoke("explain", "fp16").stdout
    assert "fp16: scheme" in shown
    assert "fp16: format" in shown


def test_without_a_name_all_names_are_listed(invoke: Invoke) -> None:
    shown = invoke("explain").stdout
    for name in ("mse", "w8a8", "onnxruntime", "spearman", "uint4"):
        assert name in shown


def test_an_unknown_name_gets_the_nearest_one(invoke: Invoke) -> None:
    result = invoke("explain", "minmx")
    assert result.exit_code == 2
    assert "did you mean 'minmax'" in result.stderr
    assert "kompakt help K012" in invoke("explain", "K012").stderr


def test_each_metric_has_a_text_of_its_own(invoke: Invoke) -> None:
    shown = {name: " ".join(invoke("explain", name).stdout.split()) for name in METRICS}
    for name, metric in METRICS.items():
        assert " ".join(metric.about.split()) in shown[name]
        assert "Metrics of decisions" not in shown[name]
    assert len({metric.about for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize(
    ("kind", "member"), [("schemes", "w8a8"), ("calibrators", "mse"), ("metric", "top1")]
)
def test_a_kind_of_things_lists_its_names(invoke: Invoke, kind: str, member: str) -> None:
    result = invoke("explain", kind)
    assert result.exit_code == 0
    assert member in result.stdout
    assert "onnxruntime" not in result.stdout


def test_a_long_row_goes_on_below_its_own_text(invoke: Invoke) -> None:
    lines = invoke("explain", "onnxruntime").stdout.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("other integer"))
    assert lines[row + 1].startswith(" " * 16)
    assert lines[row + 2].startswith("rounding ")


@pytest.mark.parametrize("name", ["int9", "int8", "w4", "w8a8", "onnxruntime", "psnr", "auto8"])
def test_no_text_shows_python_or_markup(invoke: Invoke, name: str) -> None:
    shown = invoke("explain", name).stdout
    for leak in ("``", ">>>", "PerChannel", "PerGroup", "import"):
        assert leak not in shown


def test_formats_no_runtime_executes_are_explained_but_not_listed(invoke: Invoke) -> None:
    listed = invoke("explain").stdout.partition("format\n")[2].replace(",", " ").split()
    assert {"int8_narrow", "uint8", "int4", "fp16", "auto8"} <= set(listed)
    assert not {"int9", "uint13", "int3_narrow"} & set(listed)
    assert "no runtime here executes it" in invoke("explain", "int9").stdout
    assert "no runtime" not in invoke("explain", "int8").stdout


def test_auto8_names_what_it_means_on_each_processor(invoke: Invoke) -> None:
    shown = invoke("explain", "auto8").stdout
    assert "onnxruntime on x86: uint8" in shown
    assert "onnxruntime on arm: int8" in shown
