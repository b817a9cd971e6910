"""Verdicts on drops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kompakt.errors import MetricError
from kompakt.measuring.comparison import compare
from kompakt.measuring.metric import Metric
from kompakt.measuring.metrics import METRICS
from kompakt.measuring.scores import Scores

TOP1 = METRICS["top1"]


def answers(n: int, losses: int, gains: int) -> tuple[np.ndarray, np.ndarray]:
    """Right and wrong answers of which the candidate loses some and gains some."""
    mine = np.ones(n)
    mine[losses : losses + gains] = 0
    theirs = mine.copy()
    theirs[: losses + gains] = 1 - theirs[: losses + gains]
    return mine, theirs


@pytest.mark.parametrize(
    ("n", "losses", "gains", "margin", "verdict"),
    [
        (10_000, 60, 50, 0.005, "proven"),
        (800, 40, 38, 0.005, "observed"),
        (800, 50, 38, 0.005, "undecided"),
        (800, 80, 10, 0.005, "violated"),
        (1000, 0, 0, 0.01, "proven"),
        (100, 0, 0, 0.01, "observed"),
    ],
)
def test_the_four_verdicts(n: int, losses: int, gains: int, margin: float, verdict: str) -> None:
    found = compare(TOP1, *answers(n, losses, gains), margin)
    assert found.verdict == verdict
    assert found.drop == pytest.approx((losses - gains) / n)
    assert found.discordant == losses + gains
    assert (found.samples_needed is None) == (verdict in ("proven", "violated"))
    assert found.method == "Tango score interval"


def test_half_a_point_cannot_be_proven_on_800_images() -> None:
    found = compare(TOP1, *answers(800, 40, 40), 0.005)
    assert found.samples_needed == pytest.approx(24_700, rel=0.02)


def test_the_samples_said_to_be_needed_are_enough() -> None:
    found = compare(TOP1, *answers(1000, 12, 10), 0.01)
    assert found.verdict == "observed"
    assert found.samples_needed is not None
    assert found.samples_needed > 1000
    factor = 2 * found.samples_needed // 1000
    grown = compare(TOP1, *answers(1000 * factor, 12 * factor, 10 * factor), 0.01)
    assert grown.verdict == "proven"


def test_a_gain_below_a_margin_of_nothing_is_proven() -> None:
    assert compare(TOP1, *answers(1000, 5, 60), 0.0).verdict == "proven"
    assert compare(TOP1, *answers(1000, 5, 5), 0.0).verdict == "observed"


def test_without_a_margin_there_is_an_interval_and_nothing_to_decide() -> None:
    found = compare(TOP1, *answers(100, 3, 1))
    assert (found.verdict, found.samples_needed, found.margin) == ("observed", None, None)
    assert found.interval[0] < found.drop < found.interval[1]


def test_bounded_scores_are_bootstrapped() -> None:
    rng = np.random.default_rng(0)
    mine = rng.uniform(0.5, 1.0, 400)
    theirs = np.clip(mine - rng.normal(0.01, 0.02, 400), -1, 1)
    found = compare(METRICS["cosine"], mine, theirs, 0.02)
    assert found.verdict == "proven"
    assert "studentised" in found.method


def test_cosines_of_exactly_one_are_not_taken_for_yes_and_no() -> None:
    found = compare(METRICS["cosine"], np.ones(400), np.ones(400), 0.001)
    assert "betting" in found.method
    assert found.verdict == "observed"


def test_tokens_are_bounded_scores_of_the_same_metric() -> None:
    rng = np.random.default_rng(0)
    mine = rng.integers(0, 9, 300) / 8
    found = compare(TOP1, mine, np.clip(mine - rng.integers(0, 2, 300) / 8, 0, 1), 0.5)
    assert "studentised" in found.method


def test_lower_is_better_turns_the_sign() -> None:
    rng = np.random.default_rng(0)
    loss = np.stack([rng.gamma(20, 1, 300), np.full(300, 10.0)], axis=1)
    worse = loss * [1.05, 1.0]
    found = compare(METRICS["perplexity"], loss, worse, 0.1)
    assert found.drop > 0
    assert found.verdict == "violated"


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    flipped = np.repeat(rng.random(50) < 0.1, 20)
    mine = np.ones(1000)
    alone = compare(TOP1, mine, 1.0 - flipped, 0.2)
    grouped = compare(TOP1, mine, 1.0 - flipped, 0.2, groups=np.repeat(np.arange(50), 20))
    assert grouped.drop == alone.drop
    assert grouped.upper > alone.upper + 0.02
    with pytest.raises(MetricError, match="K231"):
        compare(TOP1, mine, 1.0 - flipped, 0.2, groups=np.arange(50))


def test_psnr_is_compared_by_its_plain_mean() -> None:
    rng = np.random.default_rng(0)
    mine = rng.normal(35, 3, 200)
    found = compare(METRICS["psnr"], mine, mine - rng.gamma(2, 0.1, 200), 0.3)
    assert "studentised" in found.method
    assert found.verdict == "proven"


def test_a_few_ruined_images_are_not_trimmed_away() -> None:
    rng = np.random.default_rng(0)
    mine = rng.normal(38, 3, 1000)
    lost = np.where(np.arange(1000) < 45, 30.0, 0.001)
    found = compare(METRICS["psnr"], mine, mine - lost, 0.1)
    assert found.drop == pytest.approx(lost.mean())
    assert found.verdict == "violated"


OWN = Metric(name="own", kind="unbounded", per_sample=lambda outputs, labels, reference: labels)


def test_the_mean_of_a_score_without_bounds_is_never_proven() -> None:
    rng = np.random.default_rng(0)
    mine = rng.normal(0, 1, 1000)
    close = compare(OWN, mine, mine - rng.normal(0, 0.01, 1000), 0.1)
    assert (close.verdict, close.samples_needed) == ("observed", None)
    assert close.upper < 0.1
    assert "without bounds" in close.unproven
    collapsed = compare(OWN, mine, mine - 1000.0 * (np.arange(1000) < 50), 0.1)
    assert collapsed.verdict == "violated"
    assert collapsed.drop == pytest.approx(50.0)


def test_scores_that_happen_to_be_0_or_1_are_not_taken_for_yes_and_no() -> None:
    mine, theirs = answers(1000, 5, 60)
    found = compare(OWN, mine, theirs, 0.1)
    assert "Tango" not in found.method
    assert found.verdict == "observed"


def test_average_precision_of_20_samples_proves_nothing() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(20) % 2
    score = label * 5.0 + rng.normal(0, 0.1, 20)
    rows = np.stack([score, label], axis=1), np.stack([score + 0.01, label], axis=1)
    pair = [Scores(metric=METRICS["ap"], rows=part, order=()) for part in rows]
    assert compare(METRICS["ap"], *pair, 0.99).verdict == "observed"


def correlated(n: int, noise: float) -> tuple[Scores, Scores]:
    rng = np.random.default_rng(0)
    label = rng.normal(size=n)
    score = label + rng.normal(0, 0.5, n)
    worse = score + rng.normal(0, noise, n) if noise else score.copy()
    metric = METRICS["spearman"]
    return tuple(
        Scores(metric=metric, rows=np.stack([s, label], axis=1), order=()) for s in (score, worse)
    )


def test_corpus_metrics_are_bootstrapped() -> None:
    mine, theirs = correlated(1500, 0.3)
    found = compare(METRICS["spearman"], mine, theirs, 0.004)
    assert "BCa" in found.method
    assert found.verdict == "violated"
    assert found.drop == pytest.approx(mine.value() - theirs.value())


def test_an_identical_corpus_does_not_prove_a_tiny_margin() -> None:
    found = compare(METRICS["spearman"], *correlated(300, 0.0), 0.001)
    assert (found.drop, found.discordant, found.verdict) == (0.0, 0, "observed")
    assert found.upper > 0.005
    loss = np.ones((300, 2))
    assert compare(METRICS["perplexity"], loss, loss, 0.1).upper == np.inf


def test_what_is_not_paired_is_refused() -> None:
    mine, theirs = answers(10, 1, 1)
    with pytest.raises(MetricError, match="K231"):
        compare(TOP1, mine, theirs[:-1], 0.1)
    first = Scores(metric=TOP1, rows=mine, order=(1, 2))
    second = Scores(metric=TOP1, rows=theirs, order=(2, 1))
    with pytest.raises(MetricError, match="another order"):
        compare(TOP1, first, second, 0.1)


@pytest.mark.parametrize(("margin", "confidence"), [(-0.1, 0.95), (0.1, 0.4), (0.1, 1.0)])
def test_impossible_settings_are_refused(margin: float, confidence: float) -> None:
    with pytest.raises(MetricError, match="K230"):
        compare(TOP1, *answers(100, 3, 3), margin, confidence)


@given(
    n=st.integers(2, 400),
    losses=st.integers(0, 60),
    gains=st.integers(0, 60),
    margin=st.floats(0, 0.5),
)
def test_verdicts_never_contradict_the_figures(
    n: int, losses: int, gains: int, margin: float
) -> None:
    losses, gains = min(losses, n // 2), min(gains, n // 2)
    found = compare(TOP1, *answers(n, losses, gains), margin)
    assert found.interval[0] <= found.lower <= found.drop <= found.upper <= found.interval[1]
    if found.verdict == "proven":
        assert found.upper < margin
    elif found.verdict == "violated":
        assert found.lower > margin
    else:
        assert (found.verdict == "observed") == (found.drop <= margin)
        assert found.samples_needed is None or found.samples_needed > n
