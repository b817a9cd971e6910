"""The distributions at the sites that cost most, with the ranges chosen for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kompakt.report.draft import Draft
from kompakt.report.plots.histogram import Distribution, histogram
from kompakt.report.tables import Column, Table
from kompakt.report.wording import number, percent, real, whole

MOST = 12
NOTABLE_OUTLIERS = 4.0
"""From here on a largest value so many times the 99.9th percentile is worth a word: two bits."""


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One site: a histogram, what stands under it, and its numbers."""

    name: str
    role: str
    facts: Sequence[str]
    picture: Markup
    table: Table


@dataclass(frozen=True, kw_only=True)
class Costliest:
    """The section; without specimens nothing was recorded."""

    label: str
    specimens: Sequence[Specimen]


def section(draft: Draft) -> Costliest:
    """Write the section."""
    specimens = list(_specimens(draft))
    label = draft.say("figure", number=draft.numbering.figure()) if specimens else ""
    return Costliest(label=label, specimens=specimens)


def _specimens(draft: Draft) -> Iterator[Specimen]:
    sites = {(site.get("name"), site.get("role")): site for site in draft.items("sites")}
    for index, item in enumerate(draft.items("distributions")[:MOST]):
        site = sites.get((item.get("site"), item.get("role")), {})
        edges = [e for e in map(real, item.get("edges") or ()) if e is not None]
        counts = [c for c in map(real, item.get("counts") or ()) if c is not None]
        if counts and len(edges) == len(counts) + 1:
            yield _specimen(draft, index, item, site, edges, counts)


def _specimen(
    draft: Draft,
    index: int,
    item: Mapping[str, Any],
    site: Mapping[str, Any],
    edges: Sequence[float],
    counts: Sequence[float],
) -> Specimen:
    say = draft.say
    name, role = str(item.get("site")), draft.term("role", item.get("role"))
    low, high = real(item.get("low")), real(item.get("high"))
    seen = tuple(
        end
        for end in (real(site.get("observed_low")), real(site.get("observed_high")))
        if end is not None and abs(end) != float("inf")
    )
    picture = histogram(
        Distribution(edges=edges, counts=counts, low=low, high=high, seen=seen),
        ident=f"histogram-{index}",
        title=say("costliest.title.one", role=role, site=name),
        desc=say(
            "costliest.desc",
            count=len(counts),
            first=number(edges[0]),
            last=number(edges[-1]),
            low=number(low),
            high=number(high),
        ),
    )
    return Specimen(
        name=name,
        role=role,
        facts=list(_facts(draft, site, low, high)),
        picture=picture,
        table=_table(draft, index, name, role, edges, counts),
    )


def _facts(
    draft: Draft, site: Mapping[str, Any], low: float | None, high: float | None
) -> Iterator[str]:
    say = draft.say
    if site.get("format"):
        yield str(site["format"])
    if low is not None and high is not None:
        yield say("costliest.range", low=number(low), high=number(high))
    if real(site.get("clipped_share")) is not None:
        yield say("costliest.clipped", share=percent(site["clipped_share"]))
    ratio, dead = real(site.get("outlier_ratio")), real(site.get("dead_channels"))
    if ratio is not None and ratio > NOTABLE_OUTLIERS:
        yield say("costliest.outliers", ratio=draft.words.ratio(ratio))
    if dead:
        yield say("costliest.dead", count=whole(dead))
    if real(site.get("sqnr_db")) is not None:
        yield say("costliest.sqnr", value=number(site["sqnr_db"]))


def _table(
    draft: Draft,
    index: int,
    name: str,
    role: str,
    edges: Sequence[float],
    counts: Sequence[float],
) -> Table:
    say = draft.say
    rows = [(number(edge, 4), whole(count)) for edge, count in zip(edges, counts, strict=False)]
    return Table(
        ident=f"histogram-table-{index}",
        label="",
        caption=say("costliest.table", role=role, site=name, last=number(edges[-1], 4)),
        columns=(
            Column(label=say("column.bin_from"), kind="number"),
            Column(label=say("column.count"), kind="number"),
        ),
        rows=rows,
    )
