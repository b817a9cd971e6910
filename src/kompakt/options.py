"""How one call of :func:`kompakt.compress` works, as plain data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from kompakt.errors import UsageError
from kompakt.measuring.margin import check_drop
from kompakt.measuring.metrics import get_metric
from kompakt.quantize import METHODS
from kompakt.schemes import Scheme
from kompakt.search.budget import Budget
from kompakt.search.candidates import LEVELS
from kompakt.search.runtimes import AUTO
from kompakt.targets import Target, get_target


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
    methods: tuple[str, ...]
    keep_float: tuple[str, ...]
    threads: int
    batch: int
    seed: int
    name: str
    measure_latency: bool
    measure_memory: bool
    commands: tuple[str, ...]
    target_options: Mapping[str, bool] = field(default_factory=dict)


def target_for(options: Options, name: str | None = None) -> Target:
    """A runtime that writes the way the options say.

    Args:
        options: What was asked for.
        name: Another runtime than the one asked for; options it does not have are left out then.

    Raises:
        UsageError: K003 when the runtime asked for has no such option, K404, K405.
    """
    target = get_target(name or options.target)
    known = [
        p.name
        for p in inspect.signature(target.write).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = [option for option in options.target_options if option not in known]
    if unknown and options.target != AUTO:
        raise UsageError(
            "K003",
            f"the option {unknown[0]!r} of the target {target.name}",
            why=f"its options are {', '.join(known)}" if known else "it has no options",
        )
    given = {key: on for key, on in options.target_options.items() if key in known}
    return replace(target, write=partial(target.write, **given)) if given else target


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
        target_for(options)
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
    stand_in = None if options.target == AUTO else get_target(options.target).stand_in
    if timed and stand_in is not None:
        raise UsageError(
            "K603",
            f"a limit on the speed of {options.target}",
            why=f"its files do not run here; {stand_in} checks them",
            help="leave the limit out, and measure on the machine it is for",
        )
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
    if options.methods:
        _check_methods(options.methods, options.scheme)
    if options.threads < 1 or options.batch < 1:
        raise UsageError(
            "K001", f"threads={options.threads}, batch={options.batch}", why="both are 1 or more"
        )


def _check_methods(methods: tuple[str, ...], scheme: Scheme | None) -> None:
    if scheme is None:
        raise UsageError(
            "K001",
            f"the methods {', '.join(methods)} without a scheme",
            why="without a scheme the ladder chooses both",
            help="give a scheme as well, or leave the methods out",
        )
    for name in methods:
        if name not in METHODS:
            raise UsageError(
                "K003",
                f"the method {name!r}",
                why="there is no such method",
                help=f"methods are {', '.join(METHODS)}",
            )
