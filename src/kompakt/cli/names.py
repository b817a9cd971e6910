"""Are the names on the command line known? Checked before anything is loaded or computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kompakt.cli.suggest import check_name

ISAS = (
    "auto",
    "any",
    "x86",
    "x86-vnni",
    "x86-avx2",
    "x86-avx512f",
    "vnni",
    "avx2",
    "avx512",
    "arm",
)


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse unknown names of schemes, targets, calibrators, methods, metrics and instruction sets.

    Args:
        settings: Names by what they are for; those that are missing or ``None`` are not checked.

    Raises:
        UsageError: K003, with the nearest known name.
    """
    check_name("--isa", settings.get("isa"), ISAS)
    _check_scheme(settings.get("scheme"))
    _check_metric(settings.get("metric"))
    _check_target(settings.get("target"))
    _check_calibrator(settings.get("calibrator"))
    _check_methods(settings.get("methods") or ())


def _check_scheme(name: str | None) -> None:
    from kompakt.schemes import PRESETS

    if name is not None and Path(name).suffix not in (".json", ".toml"):
        check_name("--scheme", name, PRESETS)


def _check_metric(name: str | None) -> None:
    from kompakt.measuring.metrics import ALIASES, METRICS

    if name is not None and ":" not in name:
        check_name("--metric", name, METRICS, ALIASES)


def _check_target(name: str | None) -> None:
    from kompakt.targets import TARGETS

    check_name("--target", name, ("auto", *TARGETS))


def _check_calibrator(name: str | None) -> None:
    from kompakt.observe import OBSERVERS

    check_name("--calibrator", name, OBSERVERS)


def _check_methods(names: Sequence[str]) -> None:
    from kompakt.quantize import METHODS

    for name in names:
        check_name("--method", name, METHODS)
