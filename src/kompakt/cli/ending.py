"""How a run ends: JSON or the summary on stdout, and the exit code its record deserves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

NOT_MET = 3


def finish(
    record: Mapping[str, Any], next_commands: Sequence[Sequence[str]], *, as_json: bool
) -> None:
    """Print what came out, and leave with 3 when what was asked for is not met."""
    from kompakt.cli.console import print_json, print_result
    from kompakt.cli.summary import summary

    if as_json:
        print_json(record)
    else:
        print_result(summary(record, next_commands))
    code = exit_code(record)
    if code:
        raise typer.Exit(code)


def exit_code(record: Mapping[str, Any]) -> int:
    """3 when the budget or parity is not met, else 0."""
    failed = (record.get("parity") or {}).get("verdict") == "failed"
    return NOT_MET if failed or record.get("budget_met") is False else 0
