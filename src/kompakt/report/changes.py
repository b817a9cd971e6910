"""Samples that were right and are wrong now, or the reverse, and the classes they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from kompakt.report.draft import Draft
from kompakt.report.tables import Column, Table
from kompakt.report.wording import real, whole


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The paragraph, and the table where classes are known."""

    text: str
    table: Table | None


def section(draft: Draft) -> Changes | None:
    """Write the part; ``None`` where samples have no right and wrong."""
    say, found = draft.say, draft.part("changes")
    if real(found.get("lost")) is None or real(found.get("gained")) is None:
        return None
    text = say(
        "changes.text" if found["lost"] or found["gained"] else "changes.none",
        n=whole(draft.part("metric").get("n")),
        lost=whole(found["lost"]),
        gained=whole(found["gained"]),
    )
    rows = [
        tuple(whole(row.get(key)) for key in ("class", "n", "lost", "gained"))
        for row in found.get("classes") or ()
    ]
    if not rows:
        return Changes(text=text, table=None)
    columns = ("column.class", "column.samples", "column.lost", "column.gained")
    table = Table(
        ident="changes-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("changes.table"),
        columns=[Column(label=say(key), kind="number") for key in columns],
        rows=rows,
    )
    return Changes(text=text, table=table)


def split(draft: Draft) -> str:
    """That the validation data was split; empty where it was not."""
    found = draft.part("validation_split")
    choosing, certifying = found.get("choosing"), found.get("certifying")
    if real(choosing) is None or real(certifying) is None:
        return ""
    return draft.say("split", choosing=whole(choosing), certifying=whole(certifying))
