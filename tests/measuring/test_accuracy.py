"""Running models over data, paired and stoppable."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from kompakt.errors import DataError, MetricError
from kompakt.measuring.accuracy import PairedEvaluation, evaluate, evaluate_together
from kompakt.measuring.comparison import compare
from kompakt.measuring.data import ArrayDataset, Batch, prepare
from kompakt.measuring.metrics import METRICS
from kompakt.network.interface import TensorSpec
from kompakt.progress import Event, listening

SPECS = (TensorSpec("x", ("batch", 4), torch.float32),)
TOP1 = METRICS["top1"]
Arrays = dict[str, np.ndarray]


def dataset(n: int = 600, groups: bool = False) -> ArrayDataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    right = np.where(rng.random(n) < 0.8, x.argmax(1), rng.integers(0, 4, n))
    return ArrayDataset(
        {"x": x}, right, np.arange(n) // 10 if groups else None, name="synthetic", batch=32
    )


def model(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"]}


class Noisy:
    """A candidate that errs on a share of the samples, always on the same ones."""

    def __init__(self, share: float) -> None:
        self.share, self.calls = share, 0

    def __call__(self, inputs: Arrays) -> Arrays:
        self.calls += 1
        x = inputs["x"]
        turned = (np.abs(np.sin(1e4 * x[:, 0])) < self.share)[:, None]
        return {"y": np.where(turned, np.roll(x, 1, axis=1), x)}


def test_scores_of_one_model() -> None:
    data = dataset()
    scores = evaluate(model, prepare(data, SPECS), TOP1)
    assert scores.n == 600
    assert scores.value() == (data.inputs["x"].argmax(1) == data.labels).mean()


def test_models_evaluated_together_see_every_batch_once() -> None:
    first, second = Noisy(0.0), Noisy(0.2)
    scores = evaluate_together({"a": first, "b": second}, prepare(dataset(), SPECS), TOP1)
    assert first.calls == second.calls == 19
    assert scores["a"].order == scores["b"].order
    assert compare(TOP1, scores["a"], scores["b"], 0.01).verdict == "violated"


def test_agreement_needs_no_labels_but_the_float_model() -> None:
    data = prepare([batch.inputs for batch in dataset()], SPECS)
    scores = evaluate_together(
        {"float": model, "int8": Noisy(0.1)}, data, METRICS["agreement"], reference="float"
    )
    assert scores["float"].value() == 1.0
    assert 0.8 < scores["int8"].value() < 0.95
    assert evaluate(model, data, METRICS["agreement"], reference=model).value() == 1.0
    with pytest.raises(MetricError, match="K224"):
        evaluate(model, data, METRICS["agreement"])


def test_the_float_model_runs_once_for_all_candidates() -> None:
    baseline = Noisy(0.0)
    paired = PairedEvaluation(baseline, prepare(dataset(), SPECS), TOP1)
    for share in (0.01, 0.02):
        assert paired.run(Noisy(share)).complete
    assert baseline.calls == 19


@pytest.mark.parametrize("keep_bytes", [1 << 20, 100])
def test_reference_outputs_are_kept_up_to_a_size(keep_bytes: int) -> None:
    baseline = Noisy(0.0)
    paired = PairedEvaluation(
        baseline, prepare(dataset(), SPECS), METRICS["cosine"], keep_bytes=keep_bytes
    )
    found = paired.run(Noisy(0.1)).scores
    assert baseline.calls == (19 if keep_bytes > 100 else 38)
    known = evaluate(Noisy(0.1), prepare(dataset(), SPECS), METRICS["cosine"], reference=model)
    assert (found.values == known.values).all()


def test_a_runtime_that_reuses_its_output_buffer_is_no_problem() -> None:
    buffer = np.zeros((32, 4), np.float32)

    def reusing(inputs: Arrays) -> Arrays:
        buffer[: len(inputs["x"])] = inputs["x"]
        return {"y": buffer[: len(inputs["x"])]}

    paired = PairedEvaluation(reusing, prepare(dataset(), SPECS), METRICS["agreement"])
    assert paired.run(model).scores.value() == 1.0


def test_a_hopeless_candidate_is_dropped_and_a_good_one_is_not() -> None:
    paired = PairedEvaluation(model, prepare(dataset(2000), SPECS), TOP1)
    hopeless = Noisy(0.7)
    found = paired.run(hopeless, margin=0.01)
    assert not found.complete
    assert found.lower is not None
    assert found.lower > 0.01
    assert hopeless.calls < 10
    assert found.scores.n == 32 * hopeless.calls
    assert paired.run(Noisy(0.005), margin=0.01).complete


def test_nothing_is_dropped_where_the_bound_would_not_be_true() -> None:
    in_order = ArrayDataset(
        dataset(2000).inputs, dataset(2000).labels, name="sorted", batch=32, shuffle=None
    )
    assert PairedEvaluation(model, prepare(in_order, SPECS), TOP1).run(
        Noisy(0.7), margin=0.01
    ).complete  # fmt: skip
    f1 = PairedEvaluation(model, prepare(dataset(2000), SPECS), METRICS["f1"])
    assert f1.run(Noisy(0.7), margin=0.01).complete


def test_groups_travel_with_the_scores() -> None:
    data = prepare(dataset(1200, groups=True), SPECS)
    scores = evaluate(model, data, TOP1)
    assert scores.groups is not None
    assert sorted(scores.groups) == sorted(np.arange(1200) // 10)
    other = evaluate(Noisy(0.3), data, TOP1)
    assert "120 groups" in compare(TOP1, scores, other, 0.1).method


def test_data_that_changes_its_order_is_found_out() -> None:
    class Reshuffled:
        def __init__(self) -> None:
            self.passes = 0

        def __iter__(self) -> Iterator[Batch]:
            self.passes += 1
            data = dataset()
            return iter(ArrayDataset(data.inputs, data.labels, name="x", shuffle=self.passes))

    paired = PairedEvaluation(model, prepare(Reshuffled(), SPECS), TOP1)
    assert paired.baseline.n == 600
    with pytest.raises(DataError, match="K213"):
        paired.run(model)


def test_data_that_ends_early_is_found_out() -> None:
    class Shrinking:
        def __init__(self) -> None:
            self.left = 10

        def __iter__(self) -> Iterator[Batch]:
            self.left -= 5
            return iter(list(dataset())[: self.left + 1])

    paired = PairedEvaluation(model, prepare(Shrinking(), SPECS), TOP1)
    assert paired.baseline.n == 6 * 32
    with pytest.raises(DataError, match="K213"):
        paired.run(model)


def test_a_model_that_returns_nan_is_named() -> None:
    def broken(inputs: Arrays) -> Arrays:
        return {"logits": np.where(inputs["x"] > 3, np.nan, inputs["x"])}

    paired = PairedEvaluation(model, prepare(dataset(2000), SPECS), TOP1)
    with pytest.raises(MetricError, match="'logits' holds NaN") as caught:
        paired.run(broken, name="w4a4")
    assert caught.value.code == "K225"
    assert "w4a4" in caught.value.where


def test_progress_is_told() -> None:
    events: list[Event] = []
    with listening(events.append):
        evaluate(model, prepare(dataset(), SPECS), TOP1, task="judging")
    assert (events[0].task, events[0].total, events[-1].done) == ("judging", 19, 19)
