"""How often the upper bound of a corpus metric's drop holds wherever a drop may be called proven."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kompakt.errors import MetricError
from kompakt.measuring.bootstrap import FEW_DIFFERENT, grouped_bootstrap_corpus
from kompakt.measuring.metrics import METRICS

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]
Population = Callable[[np.random.Generator, int], Pair]


def retrieval(prevalence: float, noise: float, classes: int = 1) -> Population:
    """Scores of rare positives, and noisier ones: average precision."""

    def draw(rng: np.random.Generator, n: int) -> Pair:
        label = (rng.random((n, classes)) < prevalence).astype(float)
        score = 1.5 * label + rng.normal(size=(n, classes))
        worse = score + rng.normal(0, noise, (n, classes))
        return np.hstack([score, label]), np.hstack([worse, label])

    return draw


def related(tails: str) -> Population:
    """A score that follows its label, and a worse one: correlations."""

    def noise(rng: np.random.Generator, n: int, scale: float) -> Floats:
        normal = tails != "heavy"
        return rng.normal(0, scale, n) if normal else scale * 0.8 * rng.standard_t(3, n)

    def draw(rng: np.random.Generator, n: int) -> Pair:
        label = rng.normal(size=n)
        score = label + noise(rng, n, 0.6)
        lost = noise(rng, n, 0.25)
        if tails == "rare":
            lost = np.where(rng.random(n) < 0.1, rng.normal(0, 1.5, n), 0.0)
        return np.stack([score, label], axis=1), np.stack([score + lost, label], axis=1)

    return draw


def decided(shares: tuple[float, ...], wrong: float, flipped: float) -> Population:
    """Decisions among classes, some of them changed: F1."""
    one = np.eye(len(shares))

    def draw(rng: np.random.Generator, n: int) -> Pair:
        label, other, third = rng.choice(len(shares), (3, n), p=shares)
        mine = np.where(rng.random(n) < wrong, other, label)
        theirs = np.where(rng.random(n) < flipped, third, mine)
        rows = [
            np.hstack([one[found] * (found == label)[:, None], one[found], one[label]])
            for found in (mine, theirs)
        ]
        return rows[0], rows[1]

    return draw


def segmented(classes: int, rarest: float) -> Population:
    """Images in which some classes are missing, and areas are of all sizes: mean IoU."""

    def draw(rng: np.random.Generator, n: int) -> Pair:
        often = np.r_[1.0, np.full(classes - 2, 0.5), rarest]
        area = (rng.random((n, classes)) < often) * rng.gamma(1.0, 100.0, (n, classes))
        share = rng.beta(8, 2, (n, classes))
        lost = rng.beta(1, 20, (n, classes)) * (rng.random((n, classes)) < 0.8)
        return tuple(  # type: ignore[return-value]
            np.hstack([area * part, area * 1.1]) for part in (share, np.clip(share - lost, 0, 1))
        )

    return draw


def read(lost: Callable[[np.random.Generator, int], Any]) -> Population:
    """Documents of all lengths: perplexity."""

    def draw(rng: np.random.Generator, n: int) -> Pair:
        tokens = rng.integers(20, 200, n).astype(float)
        loss = np.exp(rng.normal(1.0, 0.3, n))
        worse = loss + lost(rng, n)
        return np.stack([loss * tokens, tokens], axis=1), np.stack([worse * tokens, tokens], axis=1)

    return draw


def mixed(rng: np.random.Generator, n: int) -> Floats:
    return np.where(rng.random(n) < 0.05, rng.exponential(0.6, n), rng.normal(0, 0.01, n))


POPULATIONS: dict[str, tuple[str, Population]] = {
    "ap, rare": ("ap", retrieval(0.05, 0.8)),
    "ap": ("ap", retrieval(0.2, 0.8)),
    "ap, common": ("ap", retrieval(0.5, 0.8)),
    "ap, ten classes": ("ap", retrieval(0.1, 0.3, 10)),
    "pearson": ("pearson", related("normal")),
    "pearson, heavy tails": ("pearson", related("heavy")),
    "pearson, few differ": ("pearson", related("rare")),
    "spearman": ("spearman", related("normal")),
    "spearman, heavy tails": ("spearman", related("heavy")),
    "f1, rare": ("f1", decided((0.95, 0.05), 0.2, 0.3)),
    "f1": ("f1", decided((0.5, 0.5), 0.1, 0.4)),
    "f1, ten classes": ("f1", decided((0.1,) * 10, 0.1, 0.4)),
    "miou": ("miou", segmented(5, 0.5)),
    "miou, rare class": ("miou", segmented(5, 0.05)),
    "miou, twenty classes": ("miou", segmented(20, 0.2)),
    "perplexity": ("perplexity", read(lambda rng, n: rng.normal(0.02, 0.1, n))),
    "perplexity, skewed": ("perplexity", read(lambda rng, n: np.exp(rng.normal(-4, 1.2, n)))),
    "perplexity, few collapse": ("perplexity", read(mixed)),
}


def drop(metric: str, pair: Pair, counts: Floats) -> Floats:
    corpus = METRICS[metric].corpus
    assert corpus is not None
    return METRICS[metric].worse_by(corpus(pair[0], counts), corpus(pair[1], counts))


@cache
def truth(name: str) -> float:
    """The drop of the whole population, from 600,000 samples."""
    metric, population = POPULATIONS[name]
    rng, size = np.random.default_rng(99), 200_000
    parts = [drop(metric, population(rng, size), np.ones((1, size)))[0] for _ in range(3)]
    return float(np.mean(parts))


def claims(name: str, n: int, runs: int, resamples: int) -> tuple[float, float]:
    """In which share of runs a drop may be called proven, and in which the bound then holds."""
    metric, population = POPULATIONS[name]
    rng, may, false = np.random.default_rng(0), 0, 0
    for _ in range(runs):
        pair = population(rng, n)
        try:
            found = grouped_bootstrap_corpus(
                lambda counts, pair=pair: drop(metric, pair, counts),  # type: ignore[misc]
                n, None, 0.05, rng, resamples=resamples,
            )  # fmt: skip
        except MetricError:  # hardly a resample has a positive: nothing is said at all
            continue
        able = not found.unproven and int((pair[0] != pair[1]).any(1).sum()) >= FEW_DIFFERENT
        may += able
        false += able and found.upper < truth(name)
    return may / runs, 1 - false / runs


@pytest.mark.parametrize("name", ["ap, common", "pearson", "f1", "miou", "perplexity", "spearman"])
def test_what_may_be_called_proven_holds(name: str) -> None:
    may, holds = claims(name, 250, 60, 300)
    assert holds >= 0.90
    assert may >= 0.4


def test_with_few_positives_or_samples_nothing_is_proven() -> None:
    assert claims("ap, rare", 100, 20, 200)[0] <= 0.1
    assert claims("pearson", 20, 20, 200)[0] == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("n", [50, 100, 300])
@pytest.mark.parametrize("name", POPULATIONS)
def test_what_may_be_called_proven_holds_in_many_runs(name: str, n: int) -> None:
    assert claims(name, n, 500, 600)[1] >= 0.93
