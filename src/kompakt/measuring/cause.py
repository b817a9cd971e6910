"""A cause of lost accuracy, and what can be changed about it: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kompakt.measuring.error_split import SiteError

Step = Literal[
    "recalibrate", "calibrator", "method", "wide", "dynamic", "float", "per_channel", "eight_bits",
    "clip_weights", "seven_bits", "none",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Something that can be changed.

    Attributes:
        step: What kind of change.
        value: A method's or calibrator's name.
        words: The change in words, as advice.
    """

    step: Step
    value: str = ""
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One explanation.

    Attributes:
        code: Its stable name, for instance ``outlier_channel``.
        site: The site; empty where it concerns the whole network.
        role: ``weight``, ``activation`` or ``data``.
        sentence: What was seen, with the numbers.
        remedies: What to try, cheapest first.
        alone: Relative output error of the site by itself; decides what is tried first.
        facts: The numbers.
    """

    code: str
    site: str
    role: str
    sentence: str
    remedies: Sequence[Remedy]
    alone: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


DYNAMIC = Remedy(step="dynamic", words="let the layers that read it find its range while they run")
FLOAT = Remedy(step="float", words="leave it in float")
WIDE = Remedy(step="wide", words="give it 16 bits")
MINMAX = Remedy(
    step="calibrator", value="minmax", words="let the calibrator minmax choose its range"
)
RECALIBRATE = Remedy(step="recalibrate", words="calibrate with data like this")
OTHERS = tuple(
    Remedy(step="calibrator", value=name, words=f"let the calibrator {name} choose its range")
    for name in ("mse", "percentile", "entropy")
)
METHODS = tuple(
    Remedy(step="method", value=name, words=f"apply the method {name}")
    for name in ("equalize", "smooth", "bias_correction")
)


def cause_of(
    error: SiteError, code: str, sentence: str, remedies: Sequence[Remedy], facts: dict[str, Any]
) -> Cause:
    """The cause of what one site loses."""
    return Cause(
        code=code,
        site=error.site.name,
        role=error.site.role,
        sentence=sentence,
        remedies=remedies,
        alone=error.alone or 0.0,
        facts=facts,
    )


__all__ = [
    "DYNAMIC",
    "FLOAT",
    "METHODS",
    "MINMAX",
    "OTHERS",
    "RECALIBRATE",
    "WIDE",
    "Cause",
    "Remedy",
    "cause_of",
]
