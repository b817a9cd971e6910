"""Every metric: one contract for all of them, and agreement with scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

from kompakt.errors import DataError, MetricError
from kompakt.measuring.accuracy import evaluate_together
from kompakt.measuring.data import Batch
from kompakt.measuring.metric import Metric
from kompakt.measuring.metrics import ALIASES, METRICS, get_metric
from kompakt.measuring.ranking import mid_ranks
from kompakt.measuring.scores import Scores, join_rows

N = 60
CORPUS = [name for name, metric in METRICS.items() if metric.kind == "corpus"]
LABELLED = [name for name, metric in METRICS.items() if metric.needs_labels]
REFERENCED = [name for name, metric in METRICS.items() if metric.needs_reference]


def example(name: str, rng: np.random.Generator) -> tuple[NDArray, NDArray | None, NDArray]:
    """Outputs, labels and reference outputs a metric can work with."""
    if name == "miou":
        scores = rng.normal(size=(N, 3, 4, 5)).astype(np.float32)
        return scores, rng.integers(0, 3, (N, 4, 5)), scores
    if name == "psnr":
        image = rng.random((N, 1, 6, 6)).astype(np.float32)
        return image + rng.normal(0, 0.05, image.shape).astype(np.float32), image, image
    if name == "perplexity":
        logits = rng.normal(size=(N, 7, 11)).astype(np.float32)
        return logits, rng.integers(0, 11, (N, 7)), logits
    if name in ("spearman", "pearson"):
        label = rng.normal(size=N)
        return (label + rng.normal(size=N)).astype(np.float32), label, label
    scores = rng.normal(size=(N, 8)).astype(np.float32)
    return scores, rng.integers(0, 8, N), scores + rng.normal(0, 0.3, (N, 8)).astype(np.float32)


def rows_of(metric: Metric, output: NDArray, labels: NDArray | None, reference: NDArray) -> Scores:
    rows = metric.per_sample({"y": output}, labels, {"y": reference})
    return Scores(metric=metric, rows=rows, order=())


@pytest.mark.parametrize("name", METRICS)
class TestContract:
    def test_batches_together_give_what_all_at_once_gives(self, name: str) -> None:
        metric = METRICS[name]
        output, labels, reference = example(name, np.random.default_rng(0))
        whole = rows_of(metric, output, labels, reference)
        parts = [
            metric.per_sample({"y": output[s]}, labels[s], {"y": reference[s]})
            for s in (slice(0, 25), slice(25, 26), slice(26, N))
        ]
        joined = Scores(metric=metric, rows=join_rows(metric, parts), order=())
        assert joined.n == whole.n == N
        assert joined.value() == pytest.approx(whole.value(), rel=1e-12)

    def test_scores_lie_within_their_bounds(self, name: str) -> None:
        metric = METRICS[name]
        scores = rows_of(metric, *example(name, np.random.default_rng(1)))
        if metric.kind != "corpus":
            assert scores.values.dtype == np.float64
            assert scores.values.shape == (N,)
        if metric.bounds is not None:
            assert metric.bounds[0] <= scores.value() <= metric.bounds[1]

    def test_a_damaged_output_is_worse(self, name: str) -> None:
        metric = METRICS[name]
        rng = np.random.default_rng(4)
        output, labels, reference = example(name, rng)
        if metric.needs_labels and name not in ("psnr", "spearman", "pearson"):
            # Make the outputs right first: the class of the label scores highest.
            axis = 1 if output.ndim == 4 else -1
            output = np.moveaxis(np.eye(output.shape[axis], dtype=np.float32)[labels], -1, axis) * 5
        good = rows_of(metric, output, labels, reference).value()
        damaged = rng.permutation(output)
        bad = rows_of(metric, damaged, labels, reference).value()
        assert metric.worse_by(np.asarray(good), np.asarray(bad)) > 0

    def test_nan_outputs_are_refused(self, name: str) -> None:
        output, labels, reference = example(name, np.random.default_rng(5))
        output = output.copy()
        output.reshape(-1)[3] = np.nan
        with pytest.raises(MetricError, match="K225"):
            METRICS[name].per_sample({"y": output}, labels, {"y": reference})


@pytest.mark.parametrize("name", CORPUS)
def test_counts_are_repetitions(name: str) -> None:
    metric = METRICS[name]
    rng = np.random.default_rng(2)
    output, labels, reference = example(name, rng)
    scores = rows_of(metric, output, labels, reference)
    counts = rng.multinomial(N, np.full(N, 1 / N), size=4).astype(np.float64)
    for count, found in zip(counts, scores.resampled(counts), strict=True):
        index = np.repeat(np.arange(N), count.astype(int))
        again = rows_of(metric, output[index], labels[index], reference[index])
        assert found == pytest.approx(again.value(), rel=1e-9)


@pytest.mark.parametrize("name", REFERENCED)
def test_the_reference_itself_is_perfect(name: str) -> None:
    metric = METRICS[name]
    output, _, _ = example(name, np.random.default_rng(3))
    assert rows_of(metric, output, None, output).value() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", LABELLED)
def test_missing_labels_are_named(name: str) -> None:
    metric = METRICS[name]
    output, _, _ = example(name, np.random.default_rng(6))
    batch = Batch({}, None, N)
    with pytest.raises(DataError, match="K210"):
        evaluate_together({"m": lambda _: {"y": output}}, [batch], metric)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_another_length_are_refused(name: str) -> None:
    metric = METRICS[name]
    output, labels, _ = example(name, np.random.default_rng(7))
    with pytest.raises(MetricError, match="K224"):
        metric.per_sample({"y": output}, labels[:-1], None)


def test_top1_and_top5_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(300, 9)), rng.integers(0, 9, 300)
    top1 = METRICS["top1"].per_sample({"y": scores}, labels, None)
    top5 = METRICS["top5"].per_sample({"y": scores}, labels, None)
    assert top1.mean() == sk.top_k_accuracy_score(labels, scores, k=1)
    assert top5.mean() == sk.top_k_accuracy_score(labels, scores, k=5)


@pytest.mark.parametrize("classes", [2, 5])
def test_f1_equals_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, classes)), rng.integers(0, classes, 200)
    found = rows_of(METRICS["f1"], scores, labels, scores).value()
    average = "binary" if classes == 2 else "macro"
    assert found == pytest.approx(sk.f1_score(labels, scores.argmax(1), average=average))


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_and_ap_equal_scipy_and_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 6, 150).astype(float)
    score = label + rng.normal(0, 2, 150)
    score = np.round(score) if ties else score
    for name, known in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        found = rows_of(METRICS[name], score, label, score).value()
        assert found == pytest.approx(known(score, label).statistic, rel=1e-12)
    yes = (label > 3).astype(int)
    ap = rows_of(METRICS["ap"], score, yes, score).value()
    assert ap == pytest.approx(sk.average_precision_score(yes, score))


def test_ap_of_many_classes_is_the_mean_over_those_that_occur() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(80, 4)), rng.integers(0, 3, 80)
    each = [sk.average_precision_score(labels == k, scores[:, k]) for k in range(3)]
    assert rows_of(METRICS["ap"], scores, labels, scores).value() == pytest.approx(np.mean(each))


def test_mid_ranks_equal_scipy() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0])
    assert mid_ranks(values, np.ones((1, 5)))[0].tolist() == stats.rankdata(values).tolist()


def test_miou_equals_the_jaccard_score_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(6, 4, 5, 5)), rng.integers(0, 4, (6, 5, 5))
    known = sk.jaccard_score(labels.ravel(), scores.argmax(1).ravel(), average="macro")
    assert rows_of(METRICS["miou"], scores, labels, scores).value() == pytest.approx(known)


def test_miou_does_not_count_ignored_pixels() -> None:
    scores = np.zeros((1, 2, 1, 2))
    scores[0, 1] = [1.0, -1.0]
    labels = np.array([[[1, 255]]])
    assert rows_of(METRICS["miou"], scores, labels, scores).value() == 1.0


def test_psnr_of_a_known_error_and_of_none() -> None:
    labels = np.zeros((2, 1, 2, 2), dtype=np.float32)
    image = labels + np.array([0.1, 0.0], dtype=np.float32)[:, None, None, None]
    found = METRICS["psnr"].per_sample({"y": image}, labels, None)
    assert found.tolist() == pytest.approx([20.0, 100.0], rel=1e-6)


def test_perplexity_of_uniform_logits_is_the_vocabulary() -> None:
    logits = np.zeros((3, 4, 17), dtype=np.float32)
    labels = np.full((3, 4), 5)
    labels[0, 1:] = -100
    assert rows_of(METRICS["perplexity"], logits, labels, logits).value() == pytest.approx(17.0)


def test_tokens_that_are_padding_do_not_count() -> None:
    logits = np.zeros((2, 3, 4))
    logits[..., 2] = 1.0
    labels = np.array([[2, 0, -100], [2, 2, -100]])
    assert METRICS["top1"].per_sample({"y": logits}, labels, None).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("name", ["top1", "top5", "f1", "ap", "miou", "perplexity"])
class TestSamplesThatAreNotCounted:
    """A label below 0 takes its sample out of the figure and out of n."""

    def judged(self, name: str, marked: slice) -> tuple[Scores, Scores]:
        """The scores with some samples marked, and those of the others alone."""
        output, labels, _ = example(name, np.random.default_rng(7))
        assert labels is not None
        kept = np.ones(N, dtype=bool)
        kept[marked] = False
        alone = self.evaluated(name, output[kept], labels[kept])
        labels[marked] = -100
        return self.evaluated(name, output, labels), alone

    def evaluated(self, name: str, output: NDArray, labels: NDArray) -> Scores:
        parts = [(output[s], labels[s]) for s in (slice(0, 20), slice(20, 40), slice(40, N))]
        batches = [
            Batch({"x": torch.from_numpy(x)}, torch.from_numpy(y), len(x), np.arange(len(x)))
            for x, y in parts
            if len(x)
        ]
        run = {"model": lambda arrays: {"y": arrays["x"]}}
        return evaluate_together(run, batches, METRICS[name])["model"]

    def test_they_leave_the_figure_and_the_number(self, name: str) -> None:
        found, alone = self.judged(name, slice(5, 45))
        assert found.n == alone.n == 20
        assert found.groups is not None
        assert found.groups.shape == (20,)
        assert found.value() == pytest.approx(alone.value(), rel=1e-12)

    def test_none_left_is_an_error(self, name: str) -> None:
        with pytest.raises(MetricError, match="K227") as caught:
            self.evaluated(name, *_all_ignored(name))
        assert "below 0" in caught.value.help


def _all_ignored(name: str) -> tuple[NDArray, NDArray]:
    output, labels, _ = example(name, np.random.default_rng(7))
    assert labels is not None
    return output, np.full_like(labels, -1)


def test_cosine_of_zero_vectors() -> None:
    mine, theirs = np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    found = METRICS["cosine"].per_sample({"y": mine}, None, {"y": theirs})
    assert found.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "output", "labels"),
    [
        ("top1", np.zeros((4, 3)), np.array([0, 1, 2, 3])),
        ("top5", np.zeros((4, 5)), np.zeros(4, int)),
        ("spearman", np.zeros((4, 2)), np.zeros(4)),
        ("miou", np.zeros((4, 3)), np.zeros(4, int)),
        ("top1", np.zeros((4, 3)), np.array(["a", "b", "c", "d"])),
    ],
)
def test_what_a_metric_cannot_judge_is_an_error(
    name: str, output: NDArray, labels: NDArray
) -> None:
    with pytest.raises(MetricError, match="K224"):
        METRICS[name].per_sample({"y": output}, labels, None)


def test_a_metric_without_a_value_is_an_error() -> None:
    scores = rows_of(METRICS["spearman"], np.arange(5.0), np.ones(5), np.ones(5))
    with pytest.raises(MetricError, match="K227"):
        scores.value()


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(MetricError, match="K220") as caught:
        get_metric("top-1")
    assert "did you mean top1?" in caught.value.why
    assert "spearman" in caught.value.help


@pytest.mark.parametrize(
    ("name", "meant"), [("accuracy", "top1"), ("Acc", "top1"), ("ppl", "perplexity")]
)
def test_other_words_for_a_metric_suggest_it(name: str, meant: str) -> None:
    with pytest.raises(MetricError, match="K220") as caught:
        get_metric(name)
    assert f"did you mean {meant}?" in caught.value.why
    assert set(ALIASES.values()) <= set(METRICS)
    assert not set(ALIASES) & set(METRICS)
