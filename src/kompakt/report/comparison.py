"""Accuracy, latency, size and memory: float and compressed beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.report.draft import Draft
from kompakt.report.latency import throughput_batch
from kompakt.report.plots import bars
from kompakt.report.tables import Column, Table
from kompakt.report.wording import milliseconds, number, pair, percent, real, size, two_decimals

Show = Callable[[object], str]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the four figures; without a ``value`` it was not measured, and ``why`` says why."""

    ident: str
    name: str
    note: str
    value: str | None
    baseline: str
    change: str
    interval: str
    picture: Markup
    why: str


def panels(draft: Draft) -> list[Panel]:
    """The four figures in their order."""
    say, words = draft.say, draft.words
    return [
        _panel(
            draft,
            "accuracy",
            ("metric", words.metric),
            note=_metric(draft),
            change=_change(draft),
            interval=_change_interval(draft),
        ),
        _panel(
            draft,
            "latency",
            ("latency_ms", milliseconds),
            note=_timing(draft),
            change=_speed(draft),
            interval=_interval(draft, "speedup_interval", words.ratio),
        ),
        _panel(
            draft,
            "size",
            ("size_bytes", size),
            note=say("panel.size.note"),
            change=_share(draft, "panel.share", "size"),
        ),
        _panel(
            draft,
            "memory",
            ("peak_memory_bytes", size),
            note=say("panel.memory.note"),
            change=_share(draft, "panel.memory_share", "memory"),
        ),
    ]


def _panel(
    draft: Draft,
    name: str,
    quantity: tuple[str, Show],
    *,
    note: str,
    change: str,
    interval: str = "",
) -> Panel:
    say, (key, show) = draft.say, quantity
    baseline, candidate = draft.part("baseline").get(key), draft.part("candidate").get(key)
    title = say(
        "panel.title",
        name=say(f"panel.{name}"),
        baseline=show(baseline),
        candidate=show(candidate),
    )
    picture = bars.pair(
        real(baseline), real(candidate), ident=f"panel-{name}", title=title, desc=say("panel.desc")
    )
    has_float = real(baseline) is not None
    return Panel(
        ident=name,
        name=say(f"panel.{name}"),
        note=note,
        value=None if real(candidate) is None else show(candidate),
        baseline=say("panel.float", value=show(baseline)) if has_float else say("panel.no_float"),
        change=change,
        interval=interval,
        picture=picture,
        why=say(f"why.{name}"),
    )


def _metric(draft: Draft) -> str:
    return draft.metric_name() if draft.part("metric").get("name") else ""


def _change(draft: Draft) -> str:
    drop = draft.record.get("drop")
    change = draft.words.change(drop)
    return "" if real(drop) is None else draft.say("panel.change", change=change)


def _change_interval(draft: Draft) -> str:
    words = draft.words
    shown = words.change_interval(draft.record.get("drop_interval"), words.change_number)
    if shown == "–":
        return ""
    return draft.say("panel.interval", interval=shown, confidence=words.level())


def _speed(draft: Draft) -> str:
    speedup = draft.record.get("speedup")
    if real(speedup) is None:
        return ""
    return draft.say("panel.speed", ratio=draft.words.ratio(speedup))


def _interval(draft: Draft, key: str, show: Show) -> str:
    ends = draft.record.get(key)
    if pair(ends) is None:
        return ""
    shown = draft.words.interval(ends, show)
    return draft.say("panel.interval", interval=shown, confidence=draft.words.level())


def _timing(draft: Draft) -> str:
    latency = draft.part("latency")
    if real(latency.get("threads")) is None:
        return ""
    return draft.setting(latency.get("threads"), latency.get("batch"))


def _share(draft: Draft, key: str, quantity: str) -> str:
    value = real(draft.record.get(f"{quantity}_ratio"))
    return draft.say(key, share=percent(1 / value)) if value else ""


def table(draft: Draft) -> Table:
    """All measured quantities for the user's own model, the float file and the compressed file."""
    say = draft.say
    columns = (
        Column(label=say("column.quantity")),
        Column(label=say("column.source"), kind="number"),
        Column(label=say("column.baseline", runtime=draft.runtime()), kind="number"),
        Column(label=say("column.candidate"), kind="number"),
        Column(label=say("column.change"), kind="number"),
        Column(label=say("column.interval", confidence=draft.words.level()), kind="number"),
    )
    return Table(
        ident="comparison-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("comparison.table"),
        columns=columns,
        rows=list(_rows(draft)),
        stacked=True,
    )


def _rows(draft: Draft) -> Iterator[tuple[str, ...]]:
    say, words, record = draft.say, draft.words, draft.record

    def row(label: str, key: str, show: Show, change: str = "", ends: str = "") -> tuple[str, ...]:
        values = (show(draft.part(part).get(key)) for part in ("source", "baseline", "candidate"))
        return (label, *values, change or "–", ends or "–")

    name = _metric(draft) or say("panel.accuracy")
    change = words.change(record.get("drop"))
    ends = words.change_interval(record.get("drop_interval"), words.change_number)
    yield row(name[:1].upper() + name[1:], "metric", words.metric, change, ends)
    ends = words.interval(record.get("speedup_interval"), words.ratio)
    yield row(say("row.latency"), "latency_ms", milliseconds, _speed(draft), ends)
    yield row(say("row.latency_p90"), "latency_p90_ms", milliseconds)
    batch = throughput_batch(draft.part("latency"))
    suffix = "" if batch is None else say("batch.suffix", batch=batch)
    throughput = say("row.throughput", batch=suffix)
    yield row(throughput, "throughput", lambda value: _per_second(draft, value))
    yield row(say("row.size"), "size_bytes", size, _share(draft, "row.share", "size"))
    memory = _share(draft, "row.share", "memory")
    yield row(say("row.memory"), "peak_memory_bytes", size, memory)
    agreement = two_decimals(record.get("agreement"))
    yield (say("row.agreement"), "–", "–", agreement, "–", "–")


def _per_second(draft: Draft, value: object) -> str:
    return "–" if real(value) is None else draft.say("row.per_second", number=number(value))
