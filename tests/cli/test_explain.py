from __future__ import annotations

import pytest

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
