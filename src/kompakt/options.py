"""How one call of :func:`kompakt.compress` works, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from kompakt.errors import UsageError
from kompakt.measuring.margin import check_drop
from kompakt.measuring.metrics import get_metric
from kompakt.schemes import Scheme
from kompakt.search.budget import Budget
from kompakt.search.candidates import LEVELS
from kompakt.search.runtimes import AUTO
from kompakt.targets import get_target


@dataclass(frozen=True, kw_only=True)
class Options:
    """How :func:`compress` works; see there."""

    metric: str
    budget: Budget
    target: str
    isa: str
    level: int | None
    scheme: Scheme | None
    calibrator: str | None
    keep_float: tuple[str, ...]
    threads: int
    batch: int
    seed: int
    name: str
    measure_latency: bool
    measure_memory: bool
    commands: tuple[str, ...]


def check_options(options: Options, *, calibration: bool, validation: bool) -> None:
    """Refuse what cannot work, before anything is computed.

    Args:
        options: What was asked for.
        calibration: Whether there is calibration data.
        validation: Whether there is validation data.

    Raises:
        UsageError: K001, K404, K405, K600, K601 or K603.
    """
    if options.target != AUTO:
        get_target(options.target)
    elif not options.measure_latency:
        raise UsageError(
            "K603", "the fastest runtime without measuring latency", help="measure latency"
        )
    check_drop(get_metric(options.metric), options.budget.max_drop)
    if options.budget.max_drop is not None and not validation:
        raise UsageError(
            "K603",
            f"max_drop={options.budget.max_drop:g} without validation data",
            why="a drop is measured on validation data",
            help="give --validation DATA",
        )
    timed = options.budget.min_speedup is not None or options.budget.max_latency_ms is not None
    if timed and not options.measure_latency:
        raise UsageError(
            "K603", "a limit on speed without measuring latency", help="measure latency"
        )
    if options.level is not None and options.level not in LEVELS:
        raise UsageError(
            "K001", f"level {options.level}", help=f"levels are {', '.join(map(str, LEVELS))}"
        )
    if options.level == 2 and not calibration and options.scheme is None:
        raise UsageError("K601", "level 2 without calibration data")
    scheme = options.scheme
    if scheme is not None and scheme.needs_calibration and not calibration:
        raise UsageError(
            "K601",
            f"the static scheme {scheme.name} without calibration data",
            why="static activation ranges come from data",
        )
    if options.threads < 1 or options.batch < 1:
        raise UsageError(
            "K001", f"threads={options.threads}, batch={options.batch}", why="both are 1 or more"
        )
