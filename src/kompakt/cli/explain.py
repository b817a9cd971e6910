"""``kompakt explain``: what an observer, scheme, target, metric, method or number format is."""

from __future__ import annotations

from typing import Annotated

import typer

from kompakt.cli.suggest import did_you_mean
from kompakt.errors import UsageError

KINDS = {"calibrator": "observer", "calibrators": "observer"}
"""Other words for the kinds of things that can be explained."""


def explain(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="For instance mse, w8a8, onnxruntime, top1 or int8."),
    ] = None,
) -> None:
    """Explain a scheme, observer, metric or target."""
    from kompakt.cli.console import print_prose
    from kompakt.cli.encyclopedia import articles, other_formats
    from kompakt.error_catalogue import CATALOGUE

    if name is not None and name.upper() in CATALOGUE:
        raise UsageError("K005", f"{name}", why="it is an error code", help=f"kompakt help {name}")
    shelves = articles()
    if name is None:
        lists = (f"{kind}\n  {', '.join(names)}" for kind, names in shelves.items() if names)
        print_prose("kompakt explain NAME, where NAME is one of\n\n" + "\n".join(lists))
        return
    kind = KINDS.get(name, name.removesuffix("s"))
    if shelves.get(kind):
        print_prose(f"{kind}\n  {', '.join(shelves[kind])}")
        return
    shelves["format"] |= other_formats()
    found = [
        f"{name}: {kind}\n\n{entries[name]()}"
        for kind, entries in shelves.items()
        if name in entries
    ]
    if not found:
        known = sorted({key for entries in shelves.values() for key in entries})
        raise UsageError(
            "K005",
            f"the name {name!r}",
            why="nothing of that name can be explained",
            help=did_you_mean(name, known) + "`kompakt explain` lists all names",
        )
    print_prose("\n\n\n".join(found))
