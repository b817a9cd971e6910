"""Metrics of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kompakt.errors import MetricError
from kompakt.measuring.accuracy import PairedEvaluation, evaluate
from kompakt.measuring.comparison import compare
from kompakt.measuring.data import Batch
from kompakt.measuring.metrics import get_metric

MODULE = """
import numpy as np

def hits(outputs, labels):
    return outputs["y"].argmax(1) == labels
hits.bounds = (0, 1)

def error(outputs, labels):
    return np.abs(outputs["y"][:, 0] - labels)
error.higher_is_better = False

def median(outputs, labels):
    return float(np.median(outputs["y"][:, 0] - labels))

def distance(outputs, labels, reference):
    return -np.abs(outputs["y"] - reference["y"]).sum(1)
distance.needs_labels = False

def pair_cosines(outputs, labels):
    a, b = outputs["y"][0::2], outputs["y"][1::2]
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

def nan(outputs, labels): return np.full(len(labels), np.nan)
def short(outputs, labels): return np.zeros(len(labels) - 1)
def table(outputs, labels): return np.zeros((len(labels), 2))
def text(outputs, labels): return "good"
def none(outputs, labels): return None
def raises(outputs, labels): return outputs["missing"]
def liar(outputs, labels): return np.full(len(labels), 2.0)
liar.bounds = (0, 1)
def bad_bounds(outputs, labels): return 0
bad_bounds.bounds = (1, 0)
value = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_metrics.py").write_text(MODULE)
    (tmp_path / "broken_metrics.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_metrics"
    for name in ("own_metrics", "broken_metrics"):
        sys.modules.pop(name, None)


def batches(count: int = 4, size: int = 25) -> list[Batch]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        x = torch.tensor(rng.normal(size=(size, 3)), dtype=torch.float32)
        made.append(Batch({"x": x}, torch.tensor(rng.integers(0, 3, size)), size))
    return made


def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"]}


def worse(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"] + np.float32(0.5) * np.sin(37 * inputs["x"])}


def test_scores_for_each_sample(module: str) -> None:
    metric = get_metric(f"{module}:hits")
    assert metric.kind == "bounded"
    scores = evaluate(model, batches(), metric)
    labels = np.concatenate([b.labels.numpy() for b in batches()])
    outputs = np.concatenate([b.inputs["x"].numpy() for b in batches()])
    assert scores.value() == (outputs.argmax(1) == labels).mean()
    assert "Tango" in compare(metric, scores, evaluate(worse, batches(), metric), 0.5).method


def test_lower_may_be_better(module: str) -> None:
    metric = get_metric(f"{module}:error")
    comparison = compare(
        metric, evaluate(model, batches(), metric), evaluate(worse, batches(), metric)
    )
    assert metric.kind == "unbounded"
    assert "without bounds" in comparison.unproven


def test_one_number_for_all_samples_is_resampled(module: str) -> None:
    metric = get_metric(f"{module}:median")
    paired = PairedEvaluation(model, batches(), metric)
    candidate = paired.run(worse).scores
    outputs = np.concatenate([b.inputs["x"].numpy()[:, 0] for b in batches()])
    labels = np.concatenate([b.labels.numpy() for b in batches()])
    assert paired.baseline.value() == pytest.approx(np.median(outputs - labels))
    comparison = compare(metric, paired.baseline, candidate, 0.1)
    assert "BCa" in comparison.method
    assert comparison.interval[0] < comparison.drop < comparison.interval[1]
    assert comparison.discordant == 100


def test_a_third_argument_is_the_float_model(module: str) -> None:
    metric = get_metric(f"{module}:distance")
    assert metric.needs_reference
    paired = PairedEvaluation(model, batches(), metric)
    assert paired.baseline.value() == 0.0
    assert paired.run(worse).scores.value() < 0


def test_a_built_in_metric_of_pairs(module: str) -> None:
    made = [Batch(b.inputs, b.labels[::2].double(), b.size) for b in batches(4, 24)]
    scores = evaluate(model, made, get_metric(f"spearman@{module}:pair_cosines"))
    assert scores.n == 48
    assert -1 <= scores.value() <= 1


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nan", "K222"),
        ("text", "K222"),
        ("none", "K222"),
        ("liar", "K222"),
        ("short", "K223"),
        ("table", "K223"),
        ("raises", "K226"),
    ],
)
def test_nonsense_is_an_error_that_names_the_batch(module: str, name: str, code: str) -> None:
    with pytest.raises(MetricError) as caught:
        evaluate(model, batches(), get_metric(f"{module}:{name}"))
    assert caught.value.code == code
    assert name in caught.value.what
    assert "batch 0" in caught.value.where or "own_metrics.py, line" in caught.value.where


@pytest.mark.parametrize(
    "spec",
    ["own_metrics:absent", "own_metrics:value", "no_such_module:f", "broken_metrics:f",
     "own_metrics:bad_bounds", "own metrics:f", "spearman@own_metrics:absent"],
)  # fmt: skip
def test_what_cannot_be_imported_is_an_error(module: str, spec: str) -> None:
    with pytest.raises(MetricError, match="K221"):
        get_metric(spec)


def test_an_error_on_import_names_the_line(module: str) -> None:
    with pytest.raises(MetricError) as caught:
        get_metric("broken_metrics:f")
    assert "ZeroDivisionError" in caught.value.why
    assert caught.value.where.endswith("broken_metrics.py, line 1")
