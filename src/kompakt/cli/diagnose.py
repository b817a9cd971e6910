"""``kompakt diagnose``: where the accuracy went, why, and what helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kompakt.cli import options
from kompakt.cli.quantities import parse_dynamic
from kompakt.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kompakt.search.diagnosing import Diagnosis

SHOWN = 12
"""Sites in the table, those that cost most."""
OTHER_CAUSES = 3

Subject = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT|SOURCE",
        help="An artifact's directory, or a SOURCE as for compress.",
        show_default=False,
    ),
]
Data = Annotated[
    str, typer.Option("--data", metavar="DATA", help="Typical inputs to measure errors on.")
]
FloatModel = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="With an artifact: the float model it was made from; splits the error by layer.",
    ),
]
Samples = Annotated[int, typer.Option("--samples", min=2, help="Rows of data to measure on.")]


def diagnose(
    subject: Subject,
    data: Data,
    source: FloatModel = None,
    calibration: options.Calibration = None,
    scheme: options.Scheme = None,
    calibrator: options.Calibrator = None,
    method: options.Method = None,
    keep_float: options.KeepFloat = None,
    target: options.Target = "onnxruntime",
    isa: options.Isa = "auto",
    dynamic: options.Dynamic = None,
    samples: Samples = 32,
    trust_source: options.TrustSource = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say where accuracy went, why, and what helps."""
    from kompakt.cli.console import print_json, print_result
    from kompakt.cli.names import check_names
    from kompakt.cli.work import working

    axes = parse_dynamic("--dynamic", dynamic)
    is_artifact = Path(subject).is_dir() and not (Path(subject) / "config.json").is_file()
    given = {
        "--scheme": scheme, "--calibrator": calibrator, "--method": method, "--keep-float": keep_float,
    }  # fmt: skip
    _check(is_artifact, source, [name for name, value in given.items() if value])
    check_names({"scheme": scheme or "w8a8", "target": target, "isa": isa})
    with working([subject, source, data, calibration], quiet=quiet):
        found = _diagnosed(
            subject if not is_artifact else source,
            subject if is_artifact else None,
            data,
            calibration,
            trust_source,
            axes,
            {
                "scheme": scheme or "w8a8",
                "calibrator": calibrator or "mse",
                "methods": tuple(method or ()),
                "keep_float": tuple(keep_float or ()),
                "target": target,
                "isa": isa,
                "samples": samples,
            },
        )
    if as_json:
        print_json(found.to_json())
    else:
        print_result(*lines(found))


def _check(is_artifact: bool, source: str | None, given: Sequence[str]) -> None:
    if source is not None and not is_artifact:
        raise UsageError(
            "K001",
            "--source without an artifact",
            why="what is diagnosed already is a float model",
            help="leave --source out, or name an artifact's directory first",
        )
    if is_artifact and given:
        raise UsageError(
            "K001",
            f"{', '.join(given)} with an artifact",
            why="an artifact tells itself how it was made",
            help="leave it out, or diagnose the SOURCE with it instead",
        )


def _diagnosed(
    model: str | None,
    artifact: str | None,
    data: str,
    calibration: str | None,
    trust: bool,
    axes: Any,
    settings: dict[str, Any],
) -> Diagnosis:
    from kompakt.artifact import open_artifact
    from kompakt.diagnosing import diagnose as run
    from kompakt.measuring.data import open_data
    from kompakt.sources import input_names, open_source, with_example

    if model is None:
        assert artifact is not None
        record = open_artifact(artifact).record
        names = [str(spec["name"]) for spec in record["model"]["inputs"]]
        return run(artifact, open_data(data, names, "validation"), samples=settings["samples"])
    found = with_example(open_source(model, trust=trust), {"validation": data})
    names = input_names(found.model, found.example_inputs)
    inputs = open_data(data, names, "validation")
    ranges = None if calibration is None else open_data(calibration, names, "calibration")
    common = {
        "calibration": ranges,
        "example_inputs": found.example_inputs,
        "dynamic": found.dynamic if axes is None else axes,
        "samples": settings["samples"],
    }
    if artifact is not None:
        return run(artifact, inputs, source=found.model, **common)
    return run(
        found.model, inputs, **common, **{k: v for k, v in settings.items() if k != "samples"}
    )


def lines(found: Diagnosis) -> Iterator[RenderableType]:
    """Everything the command prints: sentences, causes, the table of sites, notes."""
    from kompakt.escaping import rich_markup

    yield f"{rich_markup(found.summary, 1000)}\n"
    for cause in found.faults:
        yield f"[bold red]✗[/] {rich_markup(cause.sentence, 1500)}\n"
    if not found.faults and found.output_error is not None:
        others = [f for f in found.causes if f.after is not None and f.after < 0.9 * f.before]
        if others:
            yield "[bold]what would help a little[/]"
        for cause in others[:OTHER_CAUSES]:
            yield f"  {rich_markup(cause.sentence, 1500)}"
        yield ""
    if found.sites:
        yield site_table(found)
        yield (
            "error relative to the float values behind the site, in %; `alone`: error of the outputs when only this "
            "site is treated"
        )
    for note in found.notes:
        yield f"[dim]note:[/] {rich_markup(note, 1000)}"


def site_table(found: Diagnosis) -> RenderableType:
    """The sites that cost most, with the parts of their error."""
    from rich import box
    from rich.table import Table

    from kompakt.escaping import rich_markup

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("site", overflow="fold")
    table.add_column("", no_wrap=True)
    ordered = sorted(found.sites, key=lambda e: -(e.alone or 0.0))[:SHOWN]
    parts = ["clipping", "rounding", "saturation", "formula"]
    shown = [p for p in parts if p in parts[:2] or any(getattr(e, p) > 0 for e in ordered)]
    for name in (*shown, "before it", "alone"):
        table.add_column(name, justify="right", no_wrap=True)
    for error in ordered:
        cells = [_percent(error.relative(getattr(error, part))) for part in (*shown, "propagated")]
        role = "weights" if error.site.role == "weight" else "edge"
        table.add_row(rich_markup(error.site.name), role, *cells, _percent(error.alone))
    return table


def _percent(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{100 * value:.2g}" if value < 1 else f"{100 * value:.0f}"
