"""How often the judge of candidates is wrong: evaluations of candidates whose true drop is planted.

Each trial draws a float model's answers and a candidate's for the samples of one evaluation. The candidate loses some
right answers and wins some wrong ones, so that its true drop, over the population the samples come from, is known. It
is then judged as the ladder judges: dropped as soon as the samples evaluated prove that the drop over all of them
exceeds the limit, else compared at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kompakt.measuring.accuracy import PairedEvaluation
from kompakt.measuring.comparison import compare
from kompakt.measuring.data import Batch
from kompakt.measuring.metrics import get_metric

LIMIT = 0.005
DROPS = (0.0, 0.003, 0.005, 0.007, 0.015)
"""True drops: none, below the limit, at it, above it, far above it."""
DISCORDANT = 0.04
"""Share of the samples on which the two models' answers differ in being right."""
SAMPLES, BATCH = 2000, 50
CLASSES = 10
CONFIDENCE = 0.95

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One trial.

    Attributes:
        true_drop: Over the population.
        drop: Over the samples of this evaluation, all of them.
        verdict: ``dropped early``, or that of the comparison at the end.
        samples: How many were evaluated.
    """

    true_drop: float
    drop: float
    verdict: str
    samples: int

    @property
    def wrong(self) -> bool:
        """Whether the verdict says what is not so."""
        if self.verdict == "dropped early":
            return self.drop <= LIMIT
        if self.verdict == "proven":
            return self.true_drop > LIMIT
        return self.verdict == "violated" and self.true_drop <= LIMIT


def simulate(
    trials: int, *, drops: Sequence[float] = DROPS, alpha: float = 0.01, seed: int = 0
) -> list[Judged]:
    """Judge so many planted candidates, the drops taking turns.

    Args:
        trials: How many.
        drops: True drops.
        alpha: Error probability of dropping a candidate early.
        seed: Of everything random.
    """
    rng = np.random.default_rng(seed)
    return [_judged(drops[i % len(drops)], alpha, rng) for i in range(trials)]


def _judged(true_drop: float, alpha: float, rng: np.random.Generator) -> Judged:
    kinds = rng.random(SAMPLES)
    lost = kinds < (DISCORDANT + true_drop) / 2
    won = ~lost & (kinds < DISCORDANT)
    both = rng.random(SAMPLES) < 0.9
    right_before = np.where(lost, True, np.where(won, False, both))
    right_after = np.where(lost, False, np.where(won, True, both))
    columns = np.stack([right_before, right_after], 1).astype(np.float32)
    batches = [
        Batch(
            {"x": torch.from_numpy(columns[at : at + BATCH])},
            torch.zeros(BATCH, dtype=torch.int64),
            BATCH,
        )
        for at in range(0, SAMPLES, BATCH)
    ]
    judge = PairedEvaluation(_answers(0), batches, get_metric("top1"), random_order=True)
    found = judge.run(_answers(1), margin=LIMIT, alpha=alpha)
    verdict = "dropped early"
    if found.complete:
        verdict = compare(judge.metric, judge.baseline, found.scores, LIMIT, CONFIDENCE).verdict
    return Judged(
        true_drop=true_drop,
        drop=float(np.mean(right_before.astype(float) - right_after)),
        verdict=verdict,
        samples=found.scores.n,
    )


def _answers(column: int) -> Callable[[Arrays], Arrays]:
    """A model that is right, with class 0, where a column of its input says so."""

    def run(inputs: Arrays) -> Arrays:
        right = inputs["x"][:, column] > 0.5
        return {"y": np.eye(CLASSES, dtype=np.float32)[np.where(right, 0, 1)]}

    return run
