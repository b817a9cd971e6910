"""The verdict in words: what a reader who reads one sentence must know, bad news first."""

from __future__ import annotations

from kompakt.measuring.comparison import Comparison
from kompakt.measuring.latency import LatencyComparison

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
) -> str:
    """Some sentences: parity failures, speed that was not gained, the budget, accuracy, size, the scheme."""
    sentences = []
    if parity == "failed":
        sentences.append("The file does not compute what was simulated: do not ship it.")
    sentences.append(speed_sentence(latency))
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
    low, high = comparison.interval
    what = f"{metric} falls by {comparison.drop:.4g} (interval {low:.4g} to {high:.4g}, n = {comparison.n})"
    if comparison.drop < 0:
        what = (
            f"{metric} rises by {-comparison.drop:.4g} (interval of the drop {low:.4g} to {high:.4g}, "
            f"n = {comparison.n})"
        )
    if comparison.margin is None:
        return f"{what}."
    limit = f"a drop of at most {comparison.margin:g}"
    needs = (
        f"; proving it takes about {comparison.samples_needed:,} samples"
        if comparison.samples_needed
        else ""
    )
    return {
        "proven": f"{what}: {limit} is proven.",
        "observed": f"{what}: {limit} is observed, not proven{needs}.",
        "violated": f"{what}: more than {comparison.margin:g} is proven lost.",
        "undecided": f"{what}: whether it is {limit} is undecided{needs}.",
    }[comparison.verdict]
