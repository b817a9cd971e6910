"""``kompakt help``: what an error code means, without a network."""

from __future__ import annotations

from typing import Annotated

import typer

from kompakt.cli.suggest import did_you_mean
from kompakt.error_catalogue import CATALOGUE
from kompakt.errors import UsageError


def help(
    code: Annotated[
        str | None,
        typer.Argument(metavar="CODE", help="An error code such as K012, or `codes` for all."),
    ] = None,
) -> None:
    """Explain an error code such as K012."""
    from kompakt.cli.console import print_prose

    if code is None or code.lower() == "codes":
        print_prose("\n".join(f"{key}  {entry.title}" for key, entry in sorted(CATALOGUE.items())))
        return
    wanted = code.strip("[]").upper()
    if wanted not in CATALOGUE:
        raise UsageError(
            "K006", f"the error code {code!r}", help=did_you_mean(wanted, CATALOGUE) + _ALL
        )
    entry = CATALOGUE[wanted]
    print_prose(f"{wanted}: {entry.title}\n\n{entry.explanation}\n\nhelp: {entry.remedy}")


_ALL = "`kompakt help codes` lists all of them"
