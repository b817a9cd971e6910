"""``kompakt measure``: what a model scores on data, alone or against another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from kompakt.cli import options
from kompakt.cli.ending import NOT_MET
from kompakt.cli.quantities import check_number
from kompakt.errors import UsageError

if TYPE_CHECKING:
    from kompakt.cli.subjects import Subject
    from kompakt.report.wording import Wording


def measure(
    model: options.Subject,
    data: options.TestData,
    metric: options.MeasuredMetric = None,
    against: options.Against = None,
    max_drop: options.MaxDrop = None,
    confidence: options.Confidence = 0.95,
    target: options.Target = "onnxruntime",
    threads: options.Threads = 1,
    trust_source: options.TrustSource = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure an artifact or model on data."""
    from kompakt.cli.console import print_json, print_result
    from kompakt.cli.names import check_names
    from kompakt.cli.subjects import open_subject
    from kompakt.cli.work import working
    from kompakt.measuring.margin import read_drop

    allowed = read_drop(max_drop, "--max-drop", "K004")
    check_number("--confidence", confidence, above=0.5, below=1, why="it lies between 0.5 and 1")
    check_names({"metric": metric, "target": target})
    with working([model, data, metric, against], quiet=quiet) as console:
        subject = open_subject(model, data, target, trust=trust_source)
        other = open_subject(against, data, target, trust=trust_source) if against else None
        chosen = metric or subject.metric or ("top1" if other is None else "agreement")
        _check_pair(chosen, other)
        console.print(_understood(subject, other, data, chosen), soft_wrap=True)
        found = _measured(subject, other, data, chosen, allowed, confidence, target, threads)
    if as_json:
        print_json(found)
    else:
        print_result(*_lines(found, subject, other))
    if found["budget_met"] is False:
        raise typer.Exit(NOT_MET)


def _check_pair(metric: str, other: Subject | None) -> None:
    from kompakt.measuring.metrics import get_metric

    if other is None and get_metric(metric).needs_reference:
        raise UsageError(
            "K001",
            f"--metric {metric} without --against",
            why="it compares a model with another one",
            help="add --against MODEL, for instance the float model, or another --metric",
        )


def _measured(
    subject: Subject,
    other: Subject | None,
    data: str,
    metric: str,
    max_drop: float | None,
    confidence: float,
    target: str,
    threads: int,
) -> dict[str, Any]:
    from kompakt.measuring.data import open_data
    from kompakt.steps import measure as measure_model

    found = measure_model(
        subject.model,
        open_data(data, subject.input_names, "test"),
        metric,
        against=None if other is None else other.model,
        max_drop=max_drop,
        confidence=confidence,
        target=target,
        threads=threads,
    )
    judged = max_drop is not None and other is not None
    return {
        "model": subject.name,
        "against": other.name if other else None,
        **found,
        "budget_met": found["drop"] <= max_drop if judged else None,
    }


def _understood(subject: Subject, other: Subject | None, data: str, metric: str) -> str:
    from kompakt.escaping import rich_markup

    against = f" · against {other.name}" if other else ""
    text = f"model {subject.name}{against} · data {data} · metric {metric}"
    return "[bold]understood:[/] " + rich_markup(text, 1000)


def _lines(found: Mapping[str, Any], subject: Subject, other: Subject | None) -> Iterator[Any]:
    from kompakt.cli.summary import MARKS, comparison_table
    from kompakt.escaping import rich_markup
    from kompakt.report.messages import sentences
    from kompakt.report.wording import Wording

    record = {
        "metric": {"name": found["metric"]},
        "baseline": {"metric": found["value"]},
        "confidence": found.get("confidence"),
    }
    words = Wording.of(record, sentences("en"))
    name = rich_markup(str(found["metric"]))
    if other is None:
        yield f"{name} {words.metric(found['value'])}{_sure(found, words)} on {found['n']:,} samples"
        return
    sign, colour = MARKS.get(found["verdict"], ("–", "yellow"))
    if found["margin"] is not None:
        more = found["samples_needed"]
        needs = f" (needs about {more:,} samples)" if more else ""
        asked = f"drop at most {words.drop(found['margin'])}{needs}"
        yield f"[bold {colour}]{sign} {found['verdict']}[/] {asked}\n"
    row = (
        str(found["metric"]),
        words.metric(found["baseline"]),
        words.metric(found["value"]),
        f"drop {words.drop(found['drop'])}",
        words.interval(list(found["interval"]), words.drop_number),
    )
    yield comparison_table((other.name, subject.name), words.level(), iter([row]))
    yield f"\non {found['n']:,} samples, {found['discordant']:,} of which differ; {found['method']}"


def _sure(found: Mapping[str, Any], words: Wording) -> str:
    """The interval of a figure that stands alone."""
    interval = found.get("value_interval")
    if interval is None:
        return ""
    shown = words.interval(interval, words.metric)
    return f" ({words.level()} interval {shown}, {found['value_method']})"
