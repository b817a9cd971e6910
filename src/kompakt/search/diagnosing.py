"""From measured errors to causes: candidates are explained, their remedies tried, and what helped comes first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kompakt.measuring.cause import FLOAT, RECALIBRATE, Cause, Remedy
from kompakt.measuring.causes import site_causes
from kompakt.measuring.error_split import ErrorSplit, SiteError, measure_alone, split_errors
from kompakt.measuring.input_causes import Mismatch, compare_inputs
from kompakt.progress import track
from kompakt.quantize.freeze import frozen_copy
from kompakt.quantize.place import plan_of
from kompakt.search.remedies import Subject, try_remedy

WORTH_A_WORD = 0.02
"""Relative output error below which nothing is wrong, whatever helps."""
CLEAR = 0.6
"""A remedy that leaves at most this share of the output error has found the fault."""
CLEAR_SHAPE = 0.8
"""The same where the numbers themselves are out of shape."""
SHAPES = frozenset(
    {
        *("outlier_channel", "outlier_values", "uneven_channels", "shared_range", "too_wide"),
        *(
            "weight_outlier",
            "weight_channel_outlier",
            "depthwise_ranges",
            "bias_guard",
            "saturation",
        ),
    }
)
HOPELESS = 0.97
"""Where a site left in float leaves more of the error than this, nothing else is tried there."""
MATTERS = 0.3
"""A site at fault makes this share of the output error by itself, or more."""
ALIKE = 1.1
"""Remedies within so much of the best are as good; the cheaper one is named."""
CANDIDATES = 6
"""Sites whose remedies are tried."""
SILENT_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Found:
    """A cause with what was tried.

    Attributes:
        cause: The explanation.
        before: Relative output error as it is.
        after: The same with the best remedy alone; None where none could be tried.
        remedy: That remedy.
        tried: Every remedy that was tried, in words, with its output error.
        fault: Whether it explains most of the error.
    """

    cause: Cause
    before: float
    after: float | None
    remedy: Remedy | None
    tried: Sequence[tuple[str, float]] = ()
    fault: bool = False

    @property
    def sentence(self) -> str:
        """The cause and what helps, with the numbers."""
        text = self.cause.sentence
        if self.remedy is None or self.after is None:
            return text
        return (
            f"{text}. What helps: {self.remedy.words}: simulated, the output error falls from "
            f"{self.before:.2%} to {self.after:.2%}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "cause": self.cause.code,
            "site": self.cause.site,
            "role": self.cause.role,
            "sentence": self.sentence,
            "remedy": None if self.remedy is None else self.remedy.words,
            "step": None if self.remedy is None else self.remedy.step,
            "before": self.before if math.isfinite(self.before) else None,
            "after": self.after,
            "fault": self.fault,
            "alone": self.cause.alone,
            "tried": [[words, error] for words, error in self.tried],
            "facts": dict(self.cause.facts),
        }


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Where the accuracy went.

    Attributes:
        summary: One sentence.
        output_error: Relative error of the simulated outputs, ‖simulated − float‖ / ‖float‖; None where it could not
            be computed.
        samples: Rows of data it was measured on.
        causes: Worst first; those with ``fault`` explain most of the error.
        sites: The error of every treated site, see :class:`~kompakt.measuring.error_split.SiteError`.
        notes: What else was seen that does not cost accuracy by itself.
    """

    summary: str
    output_error: float | None
    samples: int
    causes: Sequence[Found] = ()
    sites: Sequence[SiteError] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def faults(self) -> list[Found]:
        """The causes that explain most of the error."""
        return [found for found in self.causes if found.fault]

    @property
    def sentences(self) -> list[str]:
        """Summary, faults and notes."""
        return [self.summary, *(found.sentence for found in self.faults), *self.notes]

    def to_json(self, most_sites: int | None = None) -> dict[str, Any]:
        """Plain data for records and ``--json``.

        Args:
            most_sites: Only so many sites, in network order, those that add most; ``None``: all.
        """
        kept = self.sites
        if most_sites is not None and len(kept) > most_sites:
            loud = sorted(kept, key=lambda e: -max(e.alone or 0.0, e.relative(e.own) * 1e-3))
            chosen = {id(error) for error in loud[:most_sites]}
            kept = [error for error in kept if id(error) in chosen]
        return {
            "summary": self.summary,
            "output_error": self.output_error,
            "samples": self.samples,
            "causes": [found.to_json() for found in self.causes],
            "sites": [error.to_json() for error in kept],
            "sites_left_out": len(self.sites) - len(kept),
            "notes": list(self.notes),
        }

    def with_first(self, first: Sequence[Found]) -> Diagnosis:
        """The same with these causes in front; one that leads makes the summary say no more than the figures."""
        if not first:
            return self
        summary = self.summary.partition(", and no single")[0].removesuffix(": nothing is wrong")
        return replace(self, causes=[*first, *self.causes], summary=summary)

    def __repr__(self) -> str:
        return "\n".join(self.sentences)


def unusable(causes: Sequence[Cause], samples: int) -> Diagnosis:
    """The diagnosis of a network whose float outputs are no numbers."""
    found = [Found(cause=c, before=math.nan, after=None, remedy=None, fault=True) for c in causes]
    text = "the float network itself holds NaN or infinity: nothing can be quantized"
    return Diagnosis(summary=text, output_error=None, samples=samples, causes=found)


def diagnose_subject(
    subject: Subject, *, candidates: int = CANDIDATES, most_alone: int = 64
) -> Diagnosis:
    """Measure, explain, try remedies, rank.

    Args:
        subject: What is diagnosed.
        candidates: Sites whose remedies are tried.
        most_alone: Sites that are measured alone.
    """
    split = split_errors(
        subject.placed,
        subject.reference,
        subject.batches,
        rules=subject.rules,
        saturates=subject.saturates,
    )
    measure_alone(split, subject.placed, subject.reference, subject.batches, most=most_alone)
    frozen = frozen_copy(subject.placed)
    worst = loudest(split, candidates)
    causes = site_causes(worst, frozen, subject.reference, subject.calibration, split.sites)
    if general := _data_cause(subject, split, causes):
        causes.insert(0, general)
    found = [_tried(subject, cause, split.output) for cause in track(causes, "trying remedies")]
    ranked = _ranked(found)
    return Diagnosis(
        summary=_summary(split, ranked),
        output_error=split.output if math.isfinite(split.output) else None,
        samples=split.samples,
        causes=ranked,
        sites=split.sites,
        notes=notes(subject, split),
    )


def loudest(split: ErrorSplit, count: int) -> list[SiteError]:
    """The sites that cost the outputs most by themselves; layers that saturate among them."""
    ordered = sorted(split.sites, key=lambda e: -(e.alone or 0.0))
    chosen = ordered[:count]
    saturating = [e for e in split.sites if e.saturation > 0 and e not in chosen]
    saturating.sort(key=lambda e: -e.relative(e.saturation))
    return [*chosen, *saturating[:3]]


def _data_cause(subject: Subject, split: ErrorSplit, causes: Sequence[Cause]) -> Cause | None:
    """What calibration and this data disagree about, as one cause."""
    seen, now = subject.calibration, subject.fresh_calibration
    if seen is None or now is None or not subject.judges_calibration:
        return None
    mismatch = compare_inputs(seen, now)
    if mismatch is None:
        off = [c for c in causes if c.code in ("beyond_calibration", "wider_calibration")]
        if len(off) < 2:
            return None
        first = off[0].sentence
        text = f"the calibration data is unlike this data at {len(off)} of the {len(causes)} costliest sites: {first}"
        mismatch = Mismatch(code="unlike", sentence=text, facts={"sites": [c.site for c in off]})
    return Cause(
        code=mismatch.code,
        site="",
        role="data",
        sentence=mismatch.sentence,
        remedies=[RECALIBRATE],
        facts=mismatch.facts,
    )


def _tried(subject: Subject, cause: Cause, before: float) -> Found:
    """Try a cause's remedies, cheapest first, until one is as good as leaving the site in float."""
    bound = try_remedy(subject, cause, FLOAT) if FLOAT in cause.remedies else None
    tried: list[tuple[Remedy, float]] = []
    if bound is None or bound < HOPELESS * before:
        for remedy in cause.remedies:
            error = bound if remedy == FLOAT else try_remedy(subject, cause, remedy)
            if error is not None:
                tried.append((remedy, error))
            if error is not None and bound is not None and error <= ALIKE * bound:
                break
    elif bound is not None:
        tried = [(FLOAT, bound)]
    if not tried:
        return Found(cause=cause, before=before, after=None, remedy=None)
    least = min(error for _, error in tried)
    chosen, after = next((r, e) for r, e in tried if e <= least * ALIKE)
    clear = CLEAR_SHAPE if cause.code in SHAPES else CLEAR
    return Found(
        cause=cause,
        before=before,
        after=after,
        remedy=chosen,
        tried=[(remedy.words, error) for remedy, error in tried],
        fault=before >= WORTH_A_WORD and after <= clear * before and _costs(cause, before),
    )


def _costs(cause: Cause, before: float) -> bool:
    """Whether a site costs enough by itself; a remedy may also hide what another site does."""
    return cause.role == "data" or cause.code == "saturation" or cause.alone >= MATTERS * before


def _ranked(found: Sequence[Found]) -> list[Found]:
    """What leaves least error first; among equals data before sites, then the site that costs most."""
    rest = [f for f in found if f.after is not None]
    if not rest:
        return list(found)
    least = min(f.after for f in rest if f.after is not None)

    def key(one: Found) -> tuple[bool, bool, float, float]:
        after = math.inf if one.after is None else one.after
        general = one.cause.role == "data" and after <= least * 1.25 + 1e-9
        counts = _costs(one.cause, one.before)
        return (not general, not counts, round(math.log(max(after, 1e-12)), 1), -one.cause.alone)

    return sorted(found, key=key)


def _summary(split: ErrorSplit, found: Sequence[Found]) -> str:
    if split.nonfinite or not math.isfinite(split.output):
        return "the float network itself gives NaN or infinity on this data"
    head = f"on {split.samples} samples the simulated outputs are {split.output:.2%} off the float outputs"
    if any(f.fault for f in found):
        return head
    if split.output < WORTH_A_WORD:
        return f"{head}: nothing is wrong"
    loud = max(split.sites, key=lambda e: e.alone or 0.0, default=None)
    if loud is None:
        return head
    return (
        f"{head}, and no single cause explains it: it is spread over {len(split.sites)} sites, of which "
        f"`{loud.site.name}` ({loud.site.role}) costs most, {loud.alone or 0.0:.2%} by itself"
    )


def notes(subject: Subject, split: ErrorSplit) -> list[str]:
    """What is worth knowing although it costs no accuracy by itself."""
    found = []
    seen = subject.calibration
    if seen is not None:
        for error in split.sites:
            statistics = seen.statistics.get(error.site.name)
            silent = None if statistics is None else statistics.channels.silent()
            total = (
                0
                if error.facts is None or error.facts.absmax is None
                else error.facts.absmax.numel()
            )
            if silent and total and len(silent) >= SILENT_SHARE * total:
                found.append(
                    f"{len(silent)} of {total} channels of `{error.site.name}` were 0 throughout calibration"
                )
    left = [s for s in plan_of(subject.placed).sites if s.role == "weight" and s.why_float]
    if left:
        named = ", ".join(f"`{s.name}`" for s in left[:3])
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        found.append(
            f"left in float, each with a change of format around it: {named}{more}: {left[0].why_float}"
        )
    return found[:6]


__all__ = ["Diagnosis", "Found", "diagnose_subject", "loudest"]
