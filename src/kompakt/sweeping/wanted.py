"""What a sweep was asked for, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kompakt.errors import DataError, UsageError
from kompakt.measuring.data import Dataset, Prepared, hold_in_memory, prepare
from kompakt.network.layers import layers
from kompakt.network.match import select
from kompakt.network.network import Network
from kompakt.observe import OBSERVERS
from kompakt.progress import note
from kompakt.quantize import METHODS
from kompakt.schemes import FLOAT, Scheme, get_scheme
from kompakt.search.runtimes import AUTO, candidates_for_auto
from kompakt.search.split import Half
from kompakt.sweeping.plan import Space
from kompakt.sweeping.proposals import SAMPLERS
from kompakt.targets import get_target

HELD_BYTES = 1 << 30
"""The most data that is held in memory and sent to workers."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The axes of a sweep as they were asked for; see :func:`kompakt.sweep`."""

    schemes: Sequence[str | Scheme]
    methods: Sequence[Sequence[str]]
    targets: Sequence[str]
    calibrators: Sequence[str]
    keep_float: Sequence[str]
    per_layer: Sequence[str]
    trials: int | None
    sampler: str
    jobs: int

    def __post_init__(self) -> None:
        for combination in self.methods:
            for name in combination:
                _known("the method", name, METHODS)
        for name in self.calibrators:
            _known("the calibrator", name, OBSERVERS)
        _known("the sampler", self.sampler, SAMPLERS)
        for what, given in (
            ("schemes", self.schemes), ("targets", self.targets), ("calibrators", self.calibrators)
        ):  # fmt: skip
            if not given:
                raise UsageError("K001", f"a sweep without {what}", why="at least one is needed")
        if self.jobs < 0 or (self.trials is not None and self.trials < 1):
            raise UsageError(
                "K001", f"jobs={self.jobs}, trials={self.trials}", why="both are 1 or more"
            )

    def space(self, network: Network) -> Space:
        """All plans that this means for a network.

        Raises:
            KompaktError: A scheme, target or layer is not known.
        """
        schemes = tuple(get_scheme(s) if isinstance(s, str) else s for s in self.schemes)
        names = [scheme.name for scheme in schemes]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError("K001", "the schemes of a sweep", why=f"two are called {twice!r}")
        for pattern in self.keep_float:
            select(network, pattern)
            schemes = tuple(scheme.with_override(pattern, FLOAT) for scheme in schemes)
        targets = tuple(dict.fromkeys(_targets(self.targets)))
        for target in targets:
            get_target(target)
        treatments = {name: get_scheme(name).default for name in self.per_layer}
        weighted = [row.name for row in layers(network) if row.parameters and row.macs]
        return Space(
            schemes=schemes,
            methods=tuple(dict.fromkeys(tuple(m) for m in self.methods)) or ((),),
            targets=targets,
            calibrators=tuple(dict.fromkeys(self.calibrators)),
            layers=tuple(weighted) if treatments else (),
            treatments=treatments,
            typed={
                name: s for name, s in zip(names, self.schemes, strict=True) if isinstance(s, str)
            },
        )


def _targets(names: Sequence[str]) -> list[str]:
    """The runtimes, ``auto`` being all that are installed."""
    return [t for name in names for t in (candidates_for_auto() if name == AUTO else [name])]


def _known(what: str, name: str, names: Iterable[str]) -> None:
    there = list(names)
    if name not in there:
        raise UsageError(
            "K003", f"{what} {name!r}", why="there is none of that name",
            help=f"use one of {', '.join(there)}",
        )  # fmt: skip


def divided(
    calibration: Prepared | None, validation: Prepared | None, *, needed: bool
) -> tuple[Dataset | None, Dataset | None]:
    """Data to calibrate and data to judge with, held in memory.

    Args:
        calibration: Data given for ranges.
        validation: Data given to judge on.
        needed: Whether anything needs ranges. Where they were not given data, every other sample of the validation data
            gives them, and the rest judges.

    Raises:
        DataError: K601 without any data for ranges, K214 when there is too much to be held.
    """
    judging = None if validation is None else _held(validation, "validation")
    if calibration is not None:
        return _held(calibration, "calibration"), judging
    if not needed or validation is None or judging is None:
        if needed:
            raise DataError(
                "K601",
                "a sweep of static schemes without calibration data",
                why="static activation ranges come from data",
            )
        return None, judging
    halves = [Half(prepare(judging, validation.input_specs), which) for which in (0, 1)]
    ranges, rest = (
        _held(prepare(half, validation.input_specs), name)
        for half, name in zip(halves, ("calibration", "validation"), strict=True)
    )
    note(
        f"no calibration data: {ranges.count():,} samples of the validation data are used to calibrate, "
        f"{rest.count():,} to judge"
    )
    return ranges, rest


def _held(data: Prepared, name: str) -> Dataset:
    return hold_in_memory(data, limit_bytes=HELD_BYTES, shuffle=None, name=name)
