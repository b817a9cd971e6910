"""Candidates: what the ladder tries, cheapest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kompakt.schemes import Scheme, w4, w8, w8a8, w8a8_dynamic

LEVELS = {0: "float", 1: "no data: dynamic or weight-only", 2: "static, with calibration data"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to compress a network.

    Attributes:
        name: Short name for tables.
        level: 1 needs no data, 2 needs calibration data.
        scheme: What to do to which sites.
        calibrator: Observer of the activation ranges (static schemes), or one for each site.
        methods: Names of the methods applied after calibration, in order (see ``quantize.METHODS``).
        why: Why it is tried.
        improves: Name of the candidate it builds on.
    """

    name: str
    level: int
    scheme: Scheme
    calibrator: str | Mapping[str, str] | None = None
    methods: tuple[str, ...] = ()
    why: str = ""
    improves: str | None = None

    @property
    def calibrator_name(self) -> str | None:
        """The calibrator for tables."""
        return (
            self.calibrator
            if self.calibrator is None or isinstance(self.calibrator, str)
            else ("per site")
        )


def without_data(keep_float: tuple[str, ...] = ()) -> list[Candidate]:
    """Level 1, cheapest first: nothing but the weights is needed."""
    return [
        Candidate(
            name="dynamic",
            level=1,
            scheme=w8a8_dynamic(keep_float=keep_float),
            why="activation ranges at run time: needs no data",
        ),
        Candidate(
            name="weights in 8 bits",
            level=1,
            scheme=w8(keep_float=keep_float),
            why="small and accurate; computes in float",
        ),
        Candidate(
            name="weights in 4 bits",
            level=1,
            scheme=w4(keep_float=keep_float),
            why="smallest; computes in float",
        ),
    ]


def static(calibrator: str, keep_float: tuple[str, ...] = ()) -> Candidate:
    """Level 2: calibrated static INT8."""
    return Candidate(
        name=f"static ({calibrator})",
        level=2,
        scheme=w8a8(keep_float=keep_float),
        calibrator=calibrator,
        why="integer kernels throughout",
    )


def improved(candidate: Candidate, *methods: str, why: str) -> Candidate:
    """The same candidate with methods applied to it.

    Args:
        candidate: What is improved.
        methods: Names of methods (see ``quantize.METHODS``), in order.
        why: Why that may help.
    """
    words = " + ".join(method.replace("_", " ") for method in methods)
    return replace(
        candidate,
        name=f"{candidate.name} + {words}",
        methods=(*candidate.methods, *methods),
        why=why,
        improves=candidate.name,
    )


def with_bias_correction(candidate: Candidate) -> Candidate:
    """The same candidate with its biases corrected on calibration samples."""
    return improved(
        candidate, "bias_correction", why="gives back the mean that rounding takes away"
    )
