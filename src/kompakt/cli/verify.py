"""``kompakt verify``: whether an artifact is what was written, and computes the same here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kompakt.cli import options
from kompakt.errors import ArtifactError

if TYPE_CHECKING:
    from kompakt.artifact import VerifyReport

DIFFERENT = 3
SHOWN_PROBLEMS = 50


def verify(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="The artifact.")],
    here: Annotated[
        bool, typer.Option("--here", help="Also replay its golden pack on this machine.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Check that an artifact is what was written."""
    from kompakt.artifact import verify as verify_files
    from kompakt.cli.console import print_json, print_result
    from kompakt.cli.work import working

    with working([]):
        report = verify_files(artifact)
        replayed = _replayed(artifact) if here and report.ok else None
    if as_json:
        print_json({"ok": report.ok, **_as_json(report), "here": replayed})
    else:
        print_result(*_lines(report), *_here_lines(replayed))
    if not report.ok:
        raise _error(report)
    if replayed is not None and not replayed["ok"]:
        raise typer.Exit(DIFFERENT)


def _as_json(report: VerifyReport) -> dict[str, Any]:
    problems = [{"file": p.file, "what": p.what, "code": p.code} for p in report.problems]
    return {"artifact": str(report.path), "files": report.files, "problems": problems}


def _lines(report: VerifyReport) -> Iterator[str]:
    from kompakt.escaping import rich_markup

    if report.ok:
        where = rich_markup(str(report.path), 400)
        yield f"[green]✓ intact[/] {report.files} files in {where} are what was written"
    for problem in report.problems[:SHOWN_PROBLEMS]:
        yield f"[red]✗[/] {rich_markup(problem.file)} {rich_markup(problem.what, 400)}"
    if len(report.problems) > SHOWN_PROBLEMS:
        yield f"and {len(report.problems) - SHOWN_PROBLEMS:,} more"


def _error(report: VerifyReport) -> ArtifactError:
    first, count = report.problems[0], len(report.problems)
    return ArtifactError(
        first.code,
        "verifying the artifact",
        where=str(report.path),
        why=f"{count:,} problem{'s' if count > 1 else ''} with its files",
        help="take it from its origin again, or run the compression again",
    )


def _replayed(artifact: Path) -> dict[str, Any]:
    from kompakt.steps import replay

    found = replay(artifact)
    first = [difference.site for difference in found.differences] + list(found.missing)
    error = found.output_relative_error
    return {
        "ok": found.agrees,
        "exact": found.exact,
        "quantizers": found.sites,
        "differing_quantizers": len(found.differences),
        "first_difference": first[0] if first else None,
        "outputs_equal": found.outputs_equal,
        "output_relative_error": error if math.isfinite(error) else None,
        "output_tolerance": found.output_tolerance,
    }


def _here_lines(replayed: Mapping[str, Any] | None) -> Iterator[str]:
    from kompakt.escaping import rich_markup

    if replayed is None:
        return
    if replayed["ok"] and not replayed["quantizers"]:
        from kompakt.cli.summary import outputs_only

        error = replayed["output_relative_error"]
        yield f"[green]✓ the same here[/] {outputs_only(error)}"
        return
    if replayed["ok"]:
        codes = f"[green]✓ the same here[/] every code of {replayed['quantizers']:,} quantizers"
        if replayed["outputs_equal"]:
            yield f"{codes} and every output is as expected on this machine"
        else:
            yield (
                f"{codes} is as expected on this machine; relative error of the outputs "
                f"{replayed['output_relative_error']:.1e}, within the certificate's "
                f"{replayed['output_tolerance']:.0e}"
            )
        return
    first = rich_markup(str(replayed["first_difference"] or "the outputs"))
    error = replayed["output_relative_error"]
    yield (
        f"[red]✗ different here[/] first at {first}; {replayed['differing_quantizers']:,} of "
        f"{replayed['quantizers']:,} quantizers differ; relative error of the outputs "
        f"{'unknown' if error is None else format(error, '.1e')}"
    )
