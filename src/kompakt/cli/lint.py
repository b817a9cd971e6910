"""``kompakt lint``: whether an ONNX file keeps a runtime's rules for quantized models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kompakt.cli import options
from kompakt.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from kompakt.targets.tensorrt_rules import Violation

VIOLATED = 3
SHOWN = 40
LINTED = ("tensorrt",)


def lint(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An .onnx file, or an artifact.", show_default=False),
    ],
    target: Annotated[
        str, typer.Option("--target", metavar="NAME", help="Whose rules: tensorrt.")
    ] = "tensorrt",
    as_json: options.AsJson = False,
) -> None:
    """Check an ONNX file against a runtime's rules."""
    from kompakt.cli.console import print_json, print_result

    if target not in LINTED:
        raise UsageError(
            "K404",
            f"linting for {target!r}",
            why="there are no rules to check for it",
            help=f"use one of {', '.join(LINTED)}",
        )
    from kompakt.targets.tensorrt_lint import lint_file

    path = _model_file(file)
    found = lint_file(path)
    if as_json:
        print_json(_as_json(path, target, found))
    else:
        print_result(*_lines(path, found))
    if found:
        raise typer.Exit(VIOLATED)


def _model_file(path: Path) -> Path:
    """The file itself, or the model of an artifact."""
    if not path.is_dir():
        return path
    from kompakt.artifact import open_artifact

    artifact = open_artifact(path)
    name = str(artifact.record["target"]["main"])
    if not name.endswith(".onnx"):
        raise ArtifactError(
            "K516",
            "linting this artifact",
            where=str(path),
            why=f"its model is {name}, no ONNX file",
            help="lint an artifact of the target tensorrt or onnxruntime",
        )
    artifact.file(name)
    return path / name


def _as_json(path: Path, target: str, found: Sequence[Violation]) -> dict[str, Any]:
    from kompakt.targets.tensorrt_rules import RULES

    return {
        "ok": not found,
        "file": str(path),
        "target": target,
        "rules": len(RULES),
        "violations": [violation.to_json() for violation in found],
    }


def _lines(path: Path, found: Sequence[Violation]) -> Iterator[str]:
    from kompakt.escaping import rich_markup
    from kompakt.targets.tensorrt_rules import RULES

    name = rich_markup(str(path), 400)
    if not found:
        yield f"[green]✓ clean[/] {name} keeps all {len(RULES)} rules"
        return
    for rule in dict.fromkeys(violation.rule for violation in found):
        places = [violation for violation in found if violation.rule == rule]
        told = RULES[rule]
        yield f"[red]✗ {rule}[/] ({told.severity}, {_times(len(places))}) {told.sentence}"
        for place in places[: max(1, SHOWN // len(RULES) + 2)]:
            yield (
                f"    {rich_markup(place.node)} ({rich_markup(place.operator)}), tensor "
                f"{rich_markup(place.tensor)}: {rich_markup(place.found, 300)}"
            )
        hidden = len(places) - max(1, SHOWN // len(RULES) + 2)
        if hidden > 0:
            yield f"    and {hidden:,} more"
        yield f"    help: {told.help}"
        yield f"    source: {told.source}"
    errors = sum(violation.severity == "error" for violation in found)
    yield f"{errors:,} errors, {len(found) - errors:,} warnings in {name}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
