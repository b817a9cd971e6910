"""Every site: its format and range, what it clips and loses, or why it stays float."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kompakt.report.draft import Draft
from kompakt.report.reading import ROW_LIMIT
from kompakt.report.tables import Cell, Column, Table, Wide
from kompakt.report.wording import number, pair, percent, real, whole

_OPEN_UP_TO = 30


@dataclass(frozen=True, kw_only=True)
class Sites:
    """The section; ``table`` is ``None`` when no sites were recorded."""

    summary: str
    left_out: str
    reasons: Table | None
    table: Table | None
    opened: bool


def section(draft: Draft) -> Sites:
    """Write the section."""
    say, sites = draft.say, draft.items("sites")
    if not sites:
        return Sites(summary=say("sites.none"), left_out="", reasons=None, table=None, opened=True)
    left_out = len(sites) - ROW_LIMIT
    return Sites(
        summary=_summary(draft, sites),
        left_out=say("sites.left_out", count=whole(left_out)) if left_out > 0 else "",
        reasons=_reasons(draft, sites),
        table=_table(draft, sites),
        opened=len(sites) <= _OPEN_UP_TO,
    )


def _summary(draft: Draft, sites: Sequence[Mapping[str, Any]]) -> str:
    say = draft.say
    formats = Counter(str(site["format"]) for site in sites if not _stays_float(site))
    listed = say("list").join(
        say("sites.format_count", count=whole(count), format=name)
        for name, count in formats.most_common()
    )
    quantized = sum(formats.values())
    key = "sites.summary" if quantized < len(sites) else "sites.summary.all"
    return say(
        key,
        quantized=whole(quantized),
        total=whole(len(sites)),
        formats=listed or say("none"),
        kept=whole(len(sites) - quantized),
    )


def _stays_float(site: Mapping[str, Any]) -> bool:
    return not site.get("format") or bool(site.get("why_float"))


def _reasons(draft: Draft, sites: Sequence[Mapping[str, Any]]) -> Table | None:
    say = draft.say
    kept = [site for site in sites if _stays_float(site)]
    if not kept:
        return None
    reasons = Counter(str(site.get("why_float") or say("sites.no_reason")) for site in kept)
    return Table(
        ident="reasons-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("sites.reasons"),
        columns=(
            Column(label=say("column.reason"), kind="long"),
            Column(label=say("column.sites"), kind="number"),
        ),
        rows=[(reason, whole(count)) for reason, count in reasons.most_common(40)],
    )


def _table(draft: Draft, sites: Sequence[Mapping[str, Any]]) -> Table:
    say = draft.say
    shown = sites[:ROW_LIMIT]
    key = "sites.table" if len(shown) == len(sites) else "sites.table.cut"
    columns = (
        Column(label=say("column.site"), kind="name"),
        Column(label=say("column.role")),
        Column(label=say("column.kind")),
        Column(label=say("column.format")),
        Column(label=say("column.granularity")),
        Column(label=say("column.range_low"), kind="number"),
        Column(label=say("column.range_high"), kind="number"),
        Column(label=say("column.zero_point"), kind="number"),
        Column(label=say("column.clipped"), kind="number"),
        Column(label=say("column.sqnr"), kind="number"),
    )
    return Table(
        ident="sites-table",
        label=say("table", number=draft.numbering.table()),
        caption=say(key, shown=whole(len(shown)), total=whole(len(sites))),
        columns=columns,
        rows=[_row(draft, site) for site in shown],
    )


def _row(draft: Draft, site: Mapping[str, Any]) -> tuple[Cell, ...]:
    role = draft.term("role", site.get("role"))
    start = (str(site.get("name") or "–"), role, str(site.get("kind") or "–"))
    if _stays_float(site):
        why = site.get("why_float") or draft.say("sites.no_reason")
        return (*start, Wide(text=draft.say("sites.why_float", why=why), span=7))
    return (
        *start,
        str(site["format"]),
        _scales(draft, site),
        number(site.get("low")),
        number(site.get("high")),
        _zero_point(site.get("zero_point")),
        percent(site.get("clipped_share")),
        "–" if real(site.get("sqnr_db")) is None else number(site["sqnr_db"]),
    )


def _scales(draft: Draft, site: Mapping[str, Any]) -> str:
    if site.get("granularity") is None and real(site.get("scale")) is not None:
        return draft.say("granularity.per_tensor")
    return granularity(draft, site.get("granularity"))


def granularity(draft: Draft, value: object) -> str:
    """How many scales a site has, from ``PerChannel(axis=0)`` or the same as JSON."""
    if isinstance(value, Mapping):
        value = " ".join(f"{key}={part}" for key, part in value.items())
    text = str(value or "")
    size = re.search(r"size=(\d+)", text)
    if size and "roup" in text:
        return draft.say("granularity.groups", size=size[1])
    word = re.search(r"[Pp]er_?([Tt]ensor|[Cc]hannel|[Gg]roup|[Tt]oken)", text)
    return draft.term("granularity", f"per_{word[1].lower()}" if word else value)


def _zero_point(value: object) -> str:
    ends = pair(value)
    if ends is not None:
        low, high = whole(ends[0]), whole(ends[1])
        return low if low == high else f"{low} … {high}"
    return whole(value)
