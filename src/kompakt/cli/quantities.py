"""Sizes, times and ratios as people write them: ``10MB``, ``1MiB``, ``5ms``, ``200us``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from kompakt.errors import UsageError

SIZE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
TIME_UNITS = {"": 1.0, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "s": 1e3}
_DIMENSION = re.compile(r"([^:=]+):(-?\d+)=([A-Za-z_]\w*)")
_QUANTITY = re.compile(r"\s*(-?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµμ]*)\s*")


def parse_size(option: str, text: str | None) -> int | None:
    """Bytes, from ``10MB`` (10⁷), ``1MiB`` (2²⁰), ``500kB`` or ``800B``."""
    value = _parse(option, text, SIZE_UNITS, "10MB, 500kB or 1MiB")
    return None if value is None else max(1, round(value))


def parse_latency(option: str, text: str | None) -> float | None:
    """Milliseconds, from ``5ms``, ``200us``, ``0.1s`` or a plain number of milliseconds."""
    return _parse(option, text, TIME_UNITS, "5ms, 200us or 0.1s")


def check_number(
    option: str,
    value: float | None,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    why: str,
) -> None:
    """Refuse NaN, infinity and numbers outside of a range.

    Raises:
        UsageError: K004.
    """
    if value is None or (math.isfinite(value) and above < value < below and value >= at_least):
        return
    raise UsageError("K004", f"{option} {value:g}", why=why)


def _parse(
    option: str, text: str | None, units: dict[str, int] | dict[str, float], examples: str
) -> float | None:
    if text is None:
        return None
    match = _QUANTITY.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in units:
        raise UsageError(
            "K004",
            f"{option} {text}",
            why="it has no unit"
            if match and not unit
            else "it is not a number with a unit that is known here",
            help=f"write it like {examples}",
        )
    value = float(match.group(1)) * units[unit]
    check_number(option, value, above=0, why="it must be positive and finite")
    return value


def parse_dynamic(option: str, texts: Sequence[str] | None) -> dict[str, dict[int, str]] | None:
    """Variable dimensions by input name, from ``input_ids:1=sequence``.

    Returns:
        ``None`` when nothing was asked for; an empty dict for ``none``.

    Raises:
        UsageError: K022.
    """
    if not texts:
        return None
    if list(texts) == ["none"]:
        return {}
    dynamic: dict[str, dict[int, str]] = {}
    for text in texts:
        match = _DIMENSION.fullmatch(text)
        if match is None:
            raise UsageError(
                "K022", f"{option} {text}", why="it does not read input:dimension=name"
            )
        name, dimension, symbol = match.groups()
        dynamic.setdefault(name, {})[int(dimension)] = symbol
    return dynamic


def parse_switches(option: str, texts: Sequence[str] | None) -> dict[str, bool]:
    """``["integer_io=yes"]`` as ``{"integer_io": True}``; a name alone means yes.

    Raises:
        UsageError: K004 when one is neither yes nor no.
    """
    words = {
        "yes": True,
        "true": True,
        "1": True,
        "": True,
        "no": False,
        "false": False,
        "0": False,
    }
    found = {}
    for text in texts or ():
        name, _, word = text.partition("=")
        if not name or word.lower() not in words:
            raise UsageError("K004", f"{option} {text}", why="it does not read NAME=yes or NAME=no")
        found[name] = words[word.lower()]
    return found
