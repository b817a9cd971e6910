"""Latency by threads and batch size, and how noisy the machine was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kompakt.report.draft import Draft
from kompakt.report.plots.intervals import Band, Estimate, Reference, intervals
from kompakt.report.tables import Column, Figure, Table
from kompakt.report.wording import number, pair, real, whole

_MOST_DRAWN = 16


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The section; without a table nothing was timed."""

    text: str
    figure: Figure | None
    table: Table | None


def section(draft: Draft) -> Latency:
    """Write the section."""
    say, found = draft.say, draft.part("latency")
    rows = [row for row in found.get("table") or () if isinstance(row, Mapping)]
    if real(draft.record.get("speedup")) is None and not rows:
        return Latency(text=say("latency.none"), figure=None, table=None)
    sentences = [say("latency.intro", pairs=whole(found.get("pairs")))]
    noise = pair(found.get("noise_interval"))
    if noise is not None:
        sentences.append(
            say("latency.noise", low=draft.words.ratio(noise[0]), high=draft.words.ratio(noise[1]))
        )
    if found.get("noisy"):
        sentences.append(say("latency.noisy"))
    return Latency(
        text=say("space").join(sentences),
        figure=_figure(draft, rows, noise),
        table=_table(draft, rows) if rows else None,
    )


def throughput_batch(latency: Mapping[str, Any]) -> int | None:
    """The batch size of the record's ``throughput``: that of the last row timed."""
    rows = [row for row in latency.get("table") or () if isinstance(row, Mapping)]
    batch = real(rows[-1].get("batch")) if rows else None
    return None if batch is None else int(batch)


def _figure(
    draft: Draft, rows: Sequence[Mapping[str, Any]], noise: tuple[float, float] | None
) -> Figure | None:
    say = draft.say
    drawn = [row for row in rows if real(row.get("speedup")) is not None][:_MOST_DRAWN]
    if len(drawn) < 2:
        return None
    estimates = []
    for row in drawn:
        low, high = pair(row.get("interval")) or (None, None)
        estimates.append(
            Estimate(
                value=float(row["speedup"]),
                low=low,
                high=high,
                label=draft.setting(row.get("threads"), row.get("batch")),
            )
        )
    values = [estimate.value for estimate in estimates]
    picture = intervals(
        estimates,
        [Reference(value=1.0, label=say("certainty.one"))],
        axis=say("certainty.speed.axis"),
        ident="latency-plot",
        title=say("latency.plot.title"),
        desc=say(
            "latency.plot.desc",
            count=len(drawn),
            low=draft.words.ratio(min(values)),
            high=draft.words.ratio(max(values)),
        ),
        band=Band(low=noise[0], high=noise[1]) if noise else None,
    )
    return Figure(
        ident="latency-figure",
        label=say("figure", number=draft.numbering.figure()),
        caption=say("latency.caption", confidence=draft.words.level()),
        pictures=[picture],
        table=None,
        layout="single",
    )


def _table(draft: Draft, rows: Sequence[Mapping[str, Any]]) -> Table:
    say = draft.say
    columns = (
        Column(label=say("column.threads"), kind="number"),
        Column(label=say("column.batch"), kind="number"),
        Column(label=say("column.float_ms"), kind="number"),
        Column(label=say("column.compressed_ms"), kind="number"),
        Column(label=say("column.speed"), kind="number"),
        Column(label=say("column.interval", confidence=draft.words.level()), kind="number"),
    )
    return Table(
        ident="latency-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("latency.table"),
        columns=columns,
        rows=[
            (
                whole(row.get("threads")),
                whole(row.get("batch")),
                number(row.get("baseline_ms")),
                number(row.get("candidate_ms")),
                draft.words.ratio(row.get("speedup")),
                draft.words.interval(row.get("interval"), draft.words.ratio),
            )
            for row in rows
        ],
    )
