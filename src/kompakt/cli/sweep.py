"""``kompakt sweep``: many ways to compress a model, and the front of the best."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kompakt.cli import options
from kompakt.cli.quantities import check_number, parse_dynamic

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from kompakt.sweeping.sweep import Sweep

METHODS_FORM = (
    "--methods none,bias_correction,equalize+bias_correction tries three combinations: nothing, one method, and "
    "two in this order. The same command again makes only the trials that its journal does not have."
)
MOST_SHOWN = 20
"""Trials in the table of the terminal; the page has all."""
SIGNS = {"front": ("●", "green"), "not told apart": ("○", "yellow"), "dominated": ("×", "dim")}

Schemes = Annotated[
    str, typer.Option("--schemes", metavar="NAME,…", help="Schemes, by name or file.")
]
Methods = Annotated[
    str,
    typer.Option("--methods", metavar="NAME+NAME,…", help="Combinations of methods, and none."),
]
Targets = Annotated[
    str, typer.Option("--targets", metavar="NAME,…", help="Runtimes; auto for all installed.")
]
Calibrators = Annotated[
    str, typer.Option("--calibrators", metavar="NAME,…", help="Observers, for static schemes.")
]
Judged = Annotated[
    str, typer.Option("--data", metavar="DATA", help="Data to judge every trial on.")
]
PerLayer = Annotated[
    str | None,
    typer.Option(
        "--per-layer",
        metavar="SCHEME,…",
        help="Also let each layer be treated as in these schemes (float32: left in float).",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials", min=1, help="So many trials, proposed by optuna where there are more."
    ),
]
Sampler = Annotated[str, typer.Option("--sampler", metavar="NAME", help="nsga2 or tpe.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="Trials at once; only one is timed at a time.",
        show_default="1; on Ray all processors",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="auto|ADDRESS", help="Make the trials on a Ray cluster (or `local`)."),
]
JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FILE", help="Finished trials.", show_default="in DIR"),
]
Folder = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="For the page, JSON and journal.")
]
NoLatency = Annotated[bool, typer.Option("--no-latency", help="Measure accuracy and size only.")]


def sweep(
    context: typer.Context,
    source: options.Source,
    output: Folder,
    data: Judged,
    schemes: Schemes = "w8a8,w8a8-dynamic,w8",
    methods: Methods = "none,bias_correction",
    targets: Targets = "onnxruntime",
    calibrators: Calibrators = "mse",
    calibration: options.Calibration = None,
    metric: options.Metric = None,
    per_layer: PerLayer = None,
    trials: Trials = None,
    sampler: Sampler = "nsga2",
    jobs: Jobs = None,
    ray: Ray = None,
    journal: JournalFile = None,
    no_latency: NoLatency = False,
    isa: options.Isa = "auto",
    keep_float: options.KeepFloat = None,
    dynamic: options.Dynamic = None,
    threads: options.Threads = 1,
    batch: options.BatchSize = 1,
    confidence: options.Confidence = 0.95,
    seed: options.Seed = 0,
    trust_source: options.TrustSource = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Try many ways to compress a model; draw the front of accuracy, speed and size."""
    check_number("--confidence", confidence, above=0.5, below=1, why="it lies between 0.5 and 1")
    settings: dict[str, Any] = {
        "schemes": _names(schemes),
        "methods": [_combination(text) for text in _names(methods)],
        "targets": _names(targets),
        "calibrators": _names(calibrators),
        "per_layer": _names(per_layer or ""),
        "metric": metric or "agreement",
        "trials": trials,
        "sampler": sampler,
        "jobs": (1 if ray is None else 0) if jobs is None else jobs,
        "ray": ray,
        "journal": journal,
        "measure_latency": not no_latency,
        "isa": isa,
        "keep_float": tuple(keep_float or ()),
        "dynamic": parse_dynamic("--dynamic", dynamic),
        "threads": threads,
        "batch": batch,
        "confidence": confidence,
        "seed": seed,
        "out": output,
        "commands": [shlex.join(["kompakt", *context.obj])],
    }
    _check(settings)
    found = _run(source, data, calibration, settings, trust=trust_source, quiet=quiet)
    _finish(found, as_json=as_json)


def _names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _combination(text: str) -> tuple[str, ...]:
    """Methods between plus signs; ``none`` is no method."""
    return () if text == "none" else tuple(part.strip() for part in text.split("+"))


def _check(settings: Mapping[str, Any]) -> None:
    from kompakt.cli.names import check_names

    check_names({"isa": settings["isa"], "metric": settings["metric"]})
    for scheme in (*settings["schemes"], *settings["per_layer"]):
        check_names({"scheme": scheme})
    for target in settings["targets"]:
        check_names({"target": target})
    for calibrator in settings["calibrators"]:
        check_names({"calibrator": calibrator})
    for combination in settings["methods"]:
        check_names({"methods": combination})


def _run(
    source: str,
    data: str,
    calibration: str | None,
    settings: dict[str, Any],
    *,
    trust: bool,
    quiet: bool,
) -> Sweep:
    from kompakt.cli.work import working
    from kompakt.measuring.data import open_data
    from kompakt.measuring.imported import looks_imported
    from kompakt.sources import input_names, open_source, with_example

    with working([source, data, calibration, settings["metric"]], quiet=quiet) as console:
        from kompakt.sweeping.sweep import sweep as sweep_model

        specs = {"calibration": calibration or data, "validation": data}
        found = with_example(open_source(source, trust=trust), specs)
        names = input_names(found.model, found.example_inputs)
        # Data that comes in splits has one to calibrate with; other data is divided by the sweep.
        has_splits = data.startswith("builtin:") or looks_imported(data.partition("?")[0])
        ranges = calibration or (data if has_splits else None)
        judged = open_data(data, names, "validation")
        opened: dict[str, Any] = {
            "validation": judged,
            "calibration": open_data(ranges, names, "calibration") if ranges else None,
        }
        console.print(_understood(found.name, judged.describe(), settings), soft_wrap=True)
        if settings["dynamic"] is None:
            settings["dynamic"] = found.dynamic
        return sweep_model(
            found.model,
            example_inputs=found.example_inputs,
            name=found.name,
            **settings,
            **opened,
        )


def _understood(model: str, data: str, settings: Mapping[str, Any]) -> str:
    from kompakt.escaping import rich_markup

    axes = ("schemes", "methods", "calibrators", "targets")
    counts = [f"{axis} {len(settings[axis])}" for axis in axes]
    where = f"Ray at {settings['ray']}" if settings["ray"] else f"{settings['jobs']} at once"
    text = " · ".join([f"model {model}", data, f"metric {settings['metric']}", *counts, where])
    return "[bold]understood:[/] " + rich_markup(text, 1000)


def _finish(found: Sweep, *, as_json: bool) -> None:
    from kompakt.cli.console import print_json, print_result

    if as_json:
        print_json(found.document)
        return
    document = found.document
    print_result(_headline(document), "", _table(document), *_ending(document, found.path))


def _headline(document: Mapping[str, Any]) -> str:
    count, front = len(document["rows"]), len(document["front"])
    reused = f", {document['reused']} of them from the journal" if document["reused"] else ""
    return f"[bold]{front} of {count} trials are on the front[/]{reused}"


def _table(document: Mapping[str, Any]) -> Table:
    """The front first, then those not told apart from it, then the others; as many as fit."""
    from rich.table import Table

    from kompakt.escaping import rich_markup
    from kompakt.report.messages import sentences
    from kompakt.report.wording import Wording, size

    words = Wording.of(document, sentences("en"))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("trial", "runtime"):
        table.add_column(heading, overflow="fold")
    loss = "loss, points" if words.as_percent else "loss"
    for heading in (loss, f"{words.level()} interval", "speed", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in _ranked(document):
        sign, colour = SIGNS.get(str(row["standing"]), ("–", "red"))
        cells = [f"[{colour}]{sign}[/]", rich_markup(row["name"]), rich_markup(row["target"])]
        if row["standing"] is None:
            table.add_row(*cells, *["–"] * 3, rich_markup(row["outcome"]))
            continue
        table.add_row(
            *cells,
            words.drop_number(row["drop"]),
            words.interval(row["drop_interval"], words.drop_number),
            words.ratio((row["timing"] or {}).get("speedup")),
            size(row["size_bytes"]),
        )
    return table


def _ranked(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    place = {number: index for index, number in enumerate(document["front"])}
    order = list(SIGNS)

    def rank(row: Mapping[str, Any]) -> tuple[int, int]:
        standing = row["standing"]
        return order.index(standing) if standing else len(order), place.get(row["number"], 0)

    return sorted(document["rows"], key=rank)[:MOST_SHOWN]


def _ending(document: Mapping[str, Any], folder: Path) -> Iterator[RenderableType]:
    from rich.console import Group
    from rich.text import Text

    from kompakt.escaping import plain
    from kompakt.sweeping.findings import DATA, PAGE

    yield "\n● on the front  ○ not told apart from something on it  × dominated"
    more = len(document["rows"]) - MOST_SHOWN
    if more > 0:
        yield f"and {more} more on the page"
    for what, name in (("\npage", PAGE), ("data", DATA)):
        # Somebody will copy it: it stays one line. Text on its own would be joined with what is printed before.
        line = Text(f"{what}  {plain(str(folder / name), 1000)}", no_wrap=True, overflow="ignore")
        yield Group(line)
