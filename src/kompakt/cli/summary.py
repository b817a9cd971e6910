"""The end of a run on the terminal: the verdict first, then the figures, then what to type next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompakt.escaping import rich_markup

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from kompakt.report.draft import Draft
    from kompakt.report.wording import Wording

TEXT_LIMIT = 1500
MARKS = {
    "proven": ("✓", "green"),
    "observed": ("~", "yellow"),
    "undecided": ("?", "yellow"),
    "violated": ("✗", "red"),
    "unmeasured": ("–", "yellow"),
}
"""A sign and a colour for each verdict; the word always stands beside them."""
SIGNS = {
    "good": ("✓", "green"),
    "bad": ("✗", "red"),
    "open": ("?", "yellow"),
    "none": ("–", "yellow"),
}
SLOWER = "; keep the float model, or use this one for its size only"


def summary(record: Mapping[str, Any], next_commands: Sequence[Sequence[str]]) -> RenderableType:
    """What a run found.

    Args:
        record: The record's JSON.
        next_commands: Commands worth typing next, as argument lists.

    Returns:
        Something rich prints. It fits 80 columns; names and messages in it are escaped.
    """
    from rich.console import Group

    return Group(
        *_verdict(record),
        "",
        figures(record),
        *_runtimes(record),
        *_judgements(record),
        *map(_unwrapped, _artifact(record)),
        *map(_unwrapped, _next(next_commands)),
    )


def _unwrapped(line: str) -> Text:
    """A line that stays one, so that what is typed after it can be copied from a file, too."""
    from rich.text import Text

    text = Text.from_markup(line, emoji=False)
    text.no_wrap, text.overflow = True, "ignore"
    return text


def figures(record: Mapping[str, Any]) -> Table:
    """The float model and the compressed one beside each other, with intervals."""
    from kompakt.report.messages import sentences
    from kompakt.report.wording import Wording

    words = Wording.of(record, sentences("en"))
    return comparison_table(("float", "compressed"), words.level(), _rows(record, words))


def comparison_table(
    names: tuple[str, str], level: str, rows: Iterator[tuple[str, str, str, str, str]]
) -> Table:
    """A table of quantities of two models, their change and its interval."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    for name in (*names, "change", f"{level} interval"):
        table.add_column(rich_markup(name), justify="right")
    for row in rows:
        table.add_row(*(rich_markup(cell) for cell in row))
    return table


def _rows(record: Mapping[str, Any], words: Wording) -> Iterator[tuple[str, str, str, str, str]]:
    from kompakt.report.wording import milliseconds, number, size

    baseline, candidate = record["baseline"], record["candidate"]
    metric = record.get("metric") or {}

    def row(
        label: str, key: str, show: Any, change: str = "", interval: str = ""
    ) -> tuple[str, str, str, str, str]:
        return label, show(baseline.get(key)), show(candidate.get(key)), change, interval

    if record.get("drop") is not None:
        drop = words.drop(record["drop"])
        spread = words.interval(record.get("drop_interval"), words.drop_number)
        yield row(str(metric.get("name", "metric")), "metric", words.metric, f"drop {drop}", spread)
    if record.get("speedup") is not None:
        speed = f"{words.ratio(record['speedup'])} speed"
        spread = words.interval(record.get("speedup_interval"), words.ratio)
        yield row("latency", "latency_ms", milliseconds, speed, spread)
    if candidate.get("throughput") is not None:
        yield row(f"per second{_throughput_batch(record)}", "throughput", number)
    yield row("size", "size_bytes", size, _smaller(record.get("size_ratio"), words))
    if candidate.get("peak_memory_bytes") is not None:
        yield row(
            "peak memory", "peak_memory_bytes", size, _smaller(record.get("memory_ratio"), words)
        )


def _runtimes(record: Mapping[str, Any]) -> Iterator[Table]:
    """Every runtime that was tried, where all of them were."""
    from rich.table import Table

    from kompakt.report.wording import milliseconds, size

    rows = record.get("runtimes") or ()
    if not rows:
        return
    table = Table(title="runtimes side by side", title_justify="left", box=None, pad_edge=False)
    for name in ("runtime", "scheme", "float", "compressed", "size", "outcome"):
        table.add_column(name, overflow="fold")
    for row in rows:
        why = f": {row['why']}" if row.get("why") else ""
        table.add_row(
            rich_markup(str(row["target"])),
            rich_markup(str(row.get("scheme") or "–")),
            milliseconds(row.get("float_ms")),
            milliseconds(row.get("latency_ms")),
            size(row.get("size_bytes")),
            rich_markup(f"{row['outcome']}{why}", TEXT_LIMIT),
        )
    yield table


def _smaller(value: object, words: Wording) -> str:
    from kompakt.report.wording import real

    times = real(value)
    if not times:
        return ""
    if round(times, 2) == 1:
        return "the same"
    return f"{words.ratio(times)} smaller" if times >= 1 else f"{words.ratio(1 / times)} bigger"


def _throughput_batch(record: Mapping[str, Any]) -> str:
    from kompakt.report.latency import throughput_batch

    batch = throughput_batch(record.get("latency") or {})
    return "" if batch is None else f", batch {batch:,}"


def _verdict(record: Mapping[str, Any]) -> Iterator[str]:
    """What was chosen, and how accuracy and speed stand: what is bad before what is good."""
    from kompakt.report.draft import Draft
    from kompakt.report.reading import visible
    from kompakt.report.recipe import chosen

    draft = Draft.of(visible(record), "en")
    if draft.part("parity").get("verdict") == "failed":
        yield "[bold red]✗ The file does not compute what was simulated: do not ship it.[/]"
    lines = [_accuracy(draft), _speed(draft)]
    yield from sorted(lines, key=lambda line: SIGNS["bad"][0] not in line)
    if text := chosen(draft):
        yield f"chosen: {_text(text)}"


def _accuracy(draft: Draft) -> str:
    from kompakt.report.wording import real, whole

    word = str(draft.record.get("verdict") or "unmeasured")
    sign, colour = MARKS.get(word, ("–", "yellow"))
    shown = "not measured" if word == "unmeasured" else rich_markup(word)
    mark = f"accuracy: [bold {colour}]{sign} {shown}[/]"
    drop, metric, words = draft.record.get("drop"), draft.part("metric"), draft.words
    if real(drop) is None:
        return mark
    told = [f"drop {words.drop(drop)} on {whole(metric.get('n'))} samples"]
    if real(metric.get("margin")) is not None:
        told.append(f"at most {words.drop(metric['margin'])} allowed")
    if real(metric.get("samples_needed")) is not None:
        told.append(f"about {whole(metric['samples_needed'])} samples would settle it")
    return f"{mark}: {_text(', '.join(told))}"


def _speed(draft: Draft) -> str:
    from kompakt.report.verdict import speed_mark, speed_standing

    mark, standing = speed_mark(draft), speed_standing(draft)
    sign, colour = SIGNS[mark.standing]
    text = f"speed: [bold {colour}]{sign} {mark.text}[/]"
    if standing == "unmeasured":
        return text
    ratio = draft.words.ratio(draft.record.get("speedup"))
    spread = draft.words.interval(draft.record.get("speedup_interval"), draft.words.ratio)
    interval = "" if spread == "–" else f" ({draft.words.level()} interval {spread})"
    advice = SLOWER if standing == "slower" else ""
    return f"{text}: {ratio} the speed of the float model{interval}{advice}"


def _judgements(record: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    if record.get("latency"):
        yield _timing(record["latency"])
    if record.get("validation_split"):
        yield _split(record["validation_split"])
    if record.get("parity"):
        yield _parity(record["parity"])
        yield from _processors(record["parity"])
    if record.get("budget_met") is not None and _is_limited(record.get("budget") or {}):
        yield "budget: [green]✓ met[/]" if record["budget_met"] else "budget: [red]✗ not met[/]"
        yield from (f"  because {_text(reason)}" for reason in record.get("budget_reasons") or ())
    notes = (record.get("target") or {}).get("notes") or ()
    yield from (f"[cyan]note:[/] {_text(line)}" for line in notes)
    yield from (f"[yellow]warning:[/] {_text(line)}" for line in record.get("warnings") or ())
    yield from (f"[cyan]finding:[/] {_text(line)}" for line in record.get("diagnosis") or ())


def _split(split: Mapping[str, Any]) -> str:
    choosing, certifying = split.get("choosing") or 0, split.get("certifying") or 0
    return (
        f"validation split: {choosing:,} samples to choose, {certifying:,} for the final figures; "
        "give --test to avoid this"
    )


def _is_limited(budget: Mapping[str, Any]) -> bool:
    return any(value is not None for name, value in budget.items() if name != "confidence")


def _timing(latency: Mapping[str, Any]) -> str:
    threads, batch = int(latency.get("threads") or 1), int(latency.get("batch") or 1)
    noisy = " [yellow](the machine was noisy)[/]" if latency.get("noisy") else ""
    return f"latency: {threads:,} thread{'s' if threads > 1 else ''}, batch {batch:,}{noisy}"


def _parity(parity: Mapping[str, Any]) -> str:
    verdict = str(parity.get("verdict"))
    colour, sign = ("red", "✗") if verdict == "failed" else ("green", "✓")
    layers = parity.get("dynamic_layers") or 0
    if parity.get("quantizers") == 0 and not layers:
        mark = f"[{colour}]{sign} {rich_markup(verdict)}[/], " if verdict == "failed" else ""
        error = parity.get("forced_output_error", parity.get("output_relative_error"))
        return f"parity: {mark}{outputs_only(error)}"
    if parity.get("quantizers") == 0:
        text = (
            f"parity: [{colour}]{sign} {rich_markup(verdict)}[/], {layers:,} layers that find their "
            "ranges while they run were compared, each with the same input"
        )
        return _first_difference(text, parity)
    text = (
        f"parity: [{colour}]{sign} {rich_markup(verdict)}[/], "
        f"{parity.get('differing_codes', 0):,} of {parity.get('codes', 0):,} codes differ "
        f"at {parity.get('quantizers', 0):,} quantizers"
    )
    if parity.get("dynamic_layers"):
        text += (
            f", {parity.get('differing_dynamic_layers', 0):,} of {parity['dynamic_layers']:,} "
            "dynamic layers differ on the runtime's own inputs"
        )
    return _first_difference(text, parity)


def _processors(parity: Mapping[str, Any]) -> Iterator[str]:
    """On which processors no integer sum saturates."""
    families = parity.get("exact_on")
    if not isinstance(families, list) or not families:
        return
    text = f"processors: no sum saturates on {', '.join(str(name) for name in families)}"
    risky = [str(row["layer"]) for row in parity.get("pair_sums") or () if _at_risk(row)]
    if risky:
        text += f"; on x86 without VNNI some do, in {len(risky):,} layers (--isa any avoids it)"
    yield rich_markup(text, TEXT_LIMIT)


def _at_risk(row: Mapping[str, Any]) -> bool:
    return row.get("verdict") in ("seen", "possible")


def _first_difference(text: str, parity: Mapping[str, Any]) -> str:
    first = parity.get("first_difference")
    return f"{text}; first at {rich_markup(str(first))}" if first else text


def outputs_only(error: object) -> str:
    """What was compared where no activation is quantized, and so there are no codes."""
    from kompakt.report.wording import real

    value = real(error)
    shown = "unknown" if value is None else f"{value:.1e}"
    return f"no quantized activations: outputs compared only, relative error {shown}"


def _artifact(record: Mapping[str, Any]) -> Iterator[str]:
    if not record.get("artifact"):
        return
    folder = Path(str(record["artifact"]))
    yield ""
    yield f"artifact  {_text(str(folder))}"
    if os.path.isfile(folder / "report.html"):
        yield f"report    {_text(str(folder / 'report.html'))}"


def _next(commands: Sequence[Sequence[str]]) -> Iterator[str]:
    if commands:
        yield ""
        yield "next"
        yield from (f"  {rich_markup(shlex.join(command), 400)}" for command in commands)


def _text(value: object) -> str:
    return rich_markup(str(value), TEXT_LIMIT)
