"""``kompakt report``: the report of an artifact once more, in another language or another place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kompakt.errors import UsageError


def report(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="The artifact.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", show_default="beside the artifact"),
    ] = None,
    lang: Annotated[str, typer.Option(metavar="LANG", help="en or zh-CN.")] = "en",
) -> None:
    """Write an artifact's report again, also in Chinese."""
    from kompakt.artifact import open_artifact
    from kompakt.cli.console import print_text
    from kompakt.cli.suggest import check_name
    from kompakt.cli.work import working
    from kompakt.report import LANGUAGES, write_report

    check_name("--lang", lang, LANGUAGES)
    with working([]):
        opened = open_artifact(artifact)
        path = output or opened.path.with_name(f"{opened.path.name}-report.{lang}.html")
        if path.resolve().is_relative_to(opened.path.resolve()):
            raise UsageError(
                "K001",
                f"the report {path}",
                why="it would lie inside the artifact, which then no longer is what was written",
                help="give a file outside of it with -o",
            )
        write_report(opened.record, path, lang=lang)
    print_text(str(path))
