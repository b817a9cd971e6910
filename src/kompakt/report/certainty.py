"""How sure the two main figures are, and what had been asked for."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from kompakt.report.draft import Draft
from kompakt.report.plots.intervals import Band, Estimate, Reference, intervals
from kompakt.report.tables import Cell, Column, Figure, Table
from kompakt.report.wording import milliseconds, pair, real, size


def figure(draft: Draft) -> Figure | None:
    """Drop and speed with their intervals; ``None`` when neither was measured."""
    pictures = [p for p in (_drop(draft), _speed(draft)) if p is not None]
    if not pictures:
        return None
    say = draft.say
    has_drop = real(draft.record.get("drop")) is not None
    has_speed = real(draft.record.get("speedup")) is not None
    label = say("figure", number=draft.numbering.figure())
    return Figure(
        ident="certainty",
        label=label,
        caption=say(
            "certainty.caption",
            confidence=draft.words.level(),
            drop=say("certainty.caption.drop") if has_drop else "",
            speed=say("certainty.caption.speed") if has_speed else "",
        ).strip(),
        pictures=pictures,
        table=_table(draft),
        layout="pair",
    )


def _drop(draft: Draft) -> Markup | None:
    say, words, record = draft.say, draft.words, draft.record
    value = real(record.get("drop"))
    if value is None:
        return None
    unit = 100.0 if words.as_percent else 1.0
    ends, upper = pair(record.get("drop_interval")), real(record.get("drop_upper"))
    estimate = Estimate(
        value=value * unit,
        low=ends[0] * unit if ends else None,
        high=ends[1] * unit if ends else None,
        bound=None if upper is None else upper * unit,
    )
    references = [Reference(value=0.0, label=say("certainty.zero"))]
    margin = real(draft.part("metric").get("margin"))
    if margin is not None:
        references.append(
            Reference(value=margin * unit, label=say("certainty.margin"), strong=True)
        )
    name = draft.metric_name()
    axis = say("certainty.drop.axis" if words.as_percent else "certainty.drop.axis_plain")
    return intervals(
        [estimate],
        references,
        axis=axis,
        ident="certainty-drop",
        title=say("certainty.drop.title", metric=name, drop=words.drop(value)),
        desc=_desc(draft, words.interval(record.get("drop_interval"), words.drop)),
    )


def _speed(draft: Draft) -> Markup | None:
    say, record = draft.say, draft.record
    value = real(record.get("speedup"))
    if value is None:
        return None
    ends, noise = (
        pair(record.get("speedup_interval")),
        pair(draft.part("latency").get("noise_interval")),
    )
    references = [Reference(value=1.0, label=say("certainty.one"))]
    minimum = real(draft.part("budget").get("min_speedup"))
    if minimum is not None:
        references.append(Reference(value=minimum, label=say("certainty.minimum"), strong=True))
    return intervals(
        [Estimate(value=value, low=ends[0] if ends else None, high=ends[1] if ends else None)],
        references,
        axis=say("certainty.speed.axis"),
        ident="certainty-speed",
        title=say("certainty.speed.title", ratio=draft.words.ratio(value)),
        desc=_desc(draft, draft.words.interval(record.get("speedup_interval"), draft.words.ratio)),
        band=Band(low=noise[0], high=noise[1]) if noise else None,
    )


def _desc(draft: Draft, interval: str) -> str:
    return draft.say("certainty.desc", confidence=draft.words.level(), interval=interval)


def _table(draft: Draft) -> Table:
    say = draft.say
    return Table(
        ident="certainty-table",
        label="",
        caption=say("certainty.table"),
        columns=(
            Column(label=say("column.quantity")),
            Column(label=say("column.estimate"), kind="number"),
            Column(label=say("column.low"), kind="number"),
            Column(label=say("column.high"), kind="number"),
        ),
        rows=list(_rows(draft)),
    )


def _rows(draft: Draft) -> Iterator[tuple[Cell, ...]]:
    say, words, record = draft.say, draft.words, draft.record
    if real(record.get("drop")) is not None:
        low, high = pair(record.get("drop_interval")) or (None, None)
        label = say("certainty.row.drop", metric=draft.metric_name())
        yield (label, words.drop(record.get("drop")), words.drop(low), words.drop(high))
    if real(record.get("drop_upper")) is not None:
        upper = words.drop(record.get("drop_upper"))
        yield (say("certainty.row.upper"), "–", "–", upper)
    if real(record.get("speedup")) is not None:
        low, high = pair(record.get("speedup_interval")) or (None, None)
        label = say("certainty.row.speed")
        yield (
            label,
            draft.words.ratio(record.get("speedup")),
            draft.words.ratio(low),
            draft.words.ratio(high),
        )
    noise = pair(draft.part("latency").get("noise_interval"))
    if noise is not None:
        yield (
            say("certainty.row.noise"),
            "–",
            draft.words.ratio(noise[0]),
            draft.words.ratio(noise[1]),
        )


def budget_table(draft: Draft) -> Table | None:
    """What was asked for and what came out; ``None`` when no budget was set."""
    say, words, record = draft.say, draft.words, draft.record
    budget, candidate = draft.part("budget"), draft.part("candidate")
    lines = (
        ("max_drop", "budget.at_most", words.drop, record.get("drop_upper")),
        ("min_speedup", "budget.at_least", draft.words.ratio, record.get("speedup")),
        ("max_size_bytes", "budget.at_most", size, candidate.get("size_bytes")),
        ("max_latency_ms", "budget.at_most", milliseconds, candidate.get("latency_ms")),
    )
    rows: list[tuple[Cell, ...]] = []
    for key, phrase, show, value in lines:
        if real(budget.get(key)) is not None:
            got = say("not_measured") if real(value) is None else show(value)
            if key == "max_drop" and real(value) is not None:
                got = say("budget.bound", drop=words.drop(record.get("drop")), bound=got)
            rows.append((say(f"budget.{key}"), say(phrase, value=show(budget.get(key))), got))
    if not rows:
        return None
    return Table(
        ident="budget-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("budget.table"),
        columns=(
            Column(label=say("budget.limit")),
            Column(label=say("budget.asked")),
            Column(label=say("budget.got"), kind="long"),
        ),
        rows=rows,
        stacked=True,
    )
