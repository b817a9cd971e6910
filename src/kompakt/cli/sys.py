"""``kompakt sys``: what matters about this machine. Paste it into a bug report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kompakt.cli import options

NO_TELEMETRY = "no telemetry: kompakt sends nothing anywhere"
_NAMES = {"isa": "instruction set", "vnni": "VNNI", "cpu": "CPU", "os": "system"}


def sys(as_json: options.AsJson = False) -> None:
    """Print what matters about this machine."""
    import torch

    from kompakt import __version__
    from kompakt.cli.console import print_json, print_result
    from kompakt.measuring.environment import environment

    found = {"kompakt": __version__, **environment(), "threads": torch.get_num_threads()}
    if as_json:
        print_json(found)
    else:
        print_result(*_lines(found), NO_TELEMETRY)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    from rich.markup import escape

    for key, value in found.items():
        if key == "versions":
            shown = ", ".join(f"{name} {version}" for name, version in value.items())
        elif key == "memory_bytes":
            shown = _memory(value)
        elif key == "vnni":
            shown = _vnni(found)
        else:
            shown = _shown(value)
        name = _NAMES.get(key, key.removesuffix("_bytes").replace("_", " "))
        yield f"{name:16} {escape(shown)}"


def _memory(value: object) -> str:
    from kompakt.report.wording import size

    return size(value)


def _vnni(found: Mapping[str, Any]) -> str:
    if found["vnni"]:
        return "yes: sums of 8-bit products are exact"
    if str(found["isa"]).startswith("x86"):
        return "no: sums of uint8 by int8 products can saturate on this processor"
    return "no"


def _shown(value: object) -> str:
    from kompakt.escaping import plain

    if value is None:
        return "unknown"
    if isinstance(value, list | tuple):
        return " ".join(_shown(v) for v in value) or "none"
    return plain(str(value), 500)
