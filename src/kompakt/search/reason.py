"""Why the chosen candidate was chosen, in a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence

from kompakt.search.trial import ALIKE, Trial


def why_chosen(chosen: Trial, trials: Sequence[Trial]) -> str:
    """The reason that :func:`kompakt.search.trial.prefer` had, in words.

    Args:
        chosen: The ladder's choice.
        trials: All trials, the choice among them.

    Returns:
        A clause without a full stop; empty when there was nothing to choose from.
    """
    built = [t for t in trials if t.build is not None and t.outcome != "failed"]
    if len(built) < 2:
        return ""
    within = [t for t in built if not t.over and t.outcome != "dropped early"]
    if chosen not in within:
        return f"none of {len(built)} holds the budget; this one comes closest"
    if len(within) == 1:
        return f"the only one of {len(built)} that holds the budget"
    return f"of {len(within)} that hold the budget {_among(chosen, within)}"


def _among(chosen: Trial, within: Sequence[Trial]) -> str:
    alike, reasons = list(within), []
    if all(t.latency for t in alike):
        fastest = max(_speed(t) for t in alike)
        alike = [t for t in alike if _speed(t) >= fastest * (1 - ALIKE)]
        if len(alike) == 1:
            return "the fastest"
        if len(alike) < len(within):
            reasons.append(f"{len(alike)} are about as fast as the fastest")
    smallest = min(_size(t) for t in alike)
    smaller = [t for t in alike if _size(t) <= smallest * (1 + ALIKE)]
    if len(smaller) == 1:
        return ", ".join([*reasons, "this one is the smallest of them"])
    if len(smaller) < len(alike):
        reasons.append(f"{len(smaller)} are about as small as the smallest")
    return ", ".join([*reasons, "this one's outputs are closest to the float model's"])


def _speed(trial: Trial) -> float:
    return trial.latency.ratio if trial.latency else 0.0


def _size(trial: Trial) -> int:
    return trial.build.written.size_bytes if trial.build else 0
