"""The verdict in words: what a reader who reads one sentence must know, bad news first."""

from __future__ import annotations

from kompakt.measuring.comparison import Comparison
from kompakt.measuring.latency import LatencyComparison
from kompakt.measuring.metrics import METRICS

CLEARLY = 1.02
"""A speed-up whose whole interval lies above this is called faster."""


def verdict_text(
    *,
    metric: str | None,
    comparison: Comparison | None,
    latency: LatencyComparison | None,
    size_ratio: float,
    parity: str | None,
    unmet: list[str],
    chosen: str = "",
    slower: str = "",
) -> str:
    """Some sentences: parity failures, speed that was not gained, the budget, accuracy, size, the scheme."""
    sentences = []
    if parity == "failed":
        sentences.append("The file does not compute what was simulated: do not ship it.")
    sentences.append(speed_sentence(latency))
    sentences.append(f"Responsible, {slower}." if slower else "")
    if unmet:
        sentences.append(f"The budget is not met: {'; '.join(unmet)}.")
    sentences.append(accuracy_sentence(metric, comparison))
    sentences.append(size_sentence(size_ratio))
    sentences.append(f"Chosen: {chosen}." if chosen else "")
    return " ".join(s for s in sentences if s)


def speed_sentence(latency: LatencyComparison | None) -> str:
    """What is known about speed."""
    if latency is None:
        return "Speed was not measured."
    low, high = latency.interval
    span = f"{latency.ratio:.2f} times (interval {low:.2f} to {high:.2f})"
    if latency.noisy:
        return (
            f"The machine is too noisy to say how fast it is: {span} the float speed was measured."
        )
    if high < 1:
        return f"It is SLOWER than the float model in the same runtime: {span} the speed."
    if low <= CLEARLY < latency.ratio:
        return f"It buys no speed here that is proven: {span} the float speed in the same runtime."
    if low <= CLEARLY:
        return f"It buys no speed here: {span} the float speed in the same runtime."
    return f"It runs at {span} the float speed in the same runtime."


def size_sentence(size_ratio: float) -> str:
    """How much smaller, or larger, the files are."""
    if size_ratio >= 1:
        return f"The files are {size_ratio:.2f} times smaller."
    return f"The files are LARGER than the float model's: {1 / size_ratio:.2f} times their size."


def accuracy_sentence(metric: str | None, comparison: Comparison | None) -> str:
    """What is known about accuracy."""
    if comparison is None or metric is None:
        return "Accuracy was not measured: no validation data was given."
    in_points = is_share(metric)
    what = _change(metric, comparison, in_points)
    if comparison.margin is None:
        return f"{what}."
    margin = amount(comparison.margin, in_points)
    limit = f"a {'drop' if comparison.higher_is_better else 'rise'} of at most {margin}"
    needs = (
        f"; proving it takes about {comparison.samples_needed:,} samples"
        if comparison.samples_needed
        else f" ({comparison.unproven})"
        if comparison.unproven
        else ""
    )
    return {
        "proven": f"{what}: {limit} is proven.",
        "observed": f"{what}: {limit} is observed, not proven{needs}.",
        "violated": f"{what}: more than {margin} is proven lost.",
        "undecided": f"{what}: whether it is {limit} is undecided{needs}.",
    }[comparison.verdict]


def _change(metric: str, comparison: Comparison, in_points: bool) -> str:
    """By how much the metric moved, in which direction, and the interval of the drop."""
    unit = 100.0 if in_points else 1.0
    low, high = (f"{unit * end:.3g}" for end in comparison.interval)
    n = f"n = {comparison.n}"
    if comparison.drop == 0:
        return f"{metric} does not change (interval {low} to {high}, {n})"
    up = (comparison.drop < 0) == comparison.higher_is_better
    loss = "drop" if comparison.higher_is_better else "rise"
    verb, whose = "rises" if up else "falls", f" of the {loss}" if comparison.drop < 0 else ""
    by = amount(abs(comparison.drop), in_points)
    return f"{metric} {verb} by {by} (interval{whose} {low} to {high}, {n})"


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1, so that its changes are told in points."""
    known = METRICS.get(metric)
    return known is not None and known.bounds == (0.0, 1.0)


def amount(value: float, in_points: bool) -> str:
    """An amount of a metric: ``0.4 points``, or a plain number."""
    if not in_points:
        return f"{value:.4g}"
    points = f"{100 * value:.3g}"
    return f"{points} point{'' if points == '1' else 's'}"
