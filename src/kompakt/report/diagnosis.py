"""Where the error arises: the record's own findings, and the sites that lose most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kompakt.report.draft import Draft
from kompakt.report.error_split import split_figure, tried_table
from kompakt.report.plots.bars import Bar, ranked
from kompakt.report.plots.profile import Point, profile
from kompakt.report.tables import Column, Figure, Table
from kompakt.report.wording import number, percent, real

WORST = 10
_HALF = WORST // 2


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The section: its title, the findings in words, up to three figures, and what was tried."""

    title: str
    findings: Sequence[str]
    remark: str
    figures: Sequence[Figure]
    tried: Table | None = None


def section(draft: Draft) -> Diagnosis:
    """Write the section."""
    say = draft.say
    measured = real(draft.record.get("drop")) is not None
    findings = [str(text) for text in draft.items("diagnosis")]
    noisy = [site for site in draft.items("sites") if real(site.get("sqnr_db")) is not None]
    finite = [site for site in noisy if math.isfinite(site["sqnr_db"])]
    remark = say("diagnosis.no_sqnr") if not noisy else "" if findings else say("diagnosis.none")
    worst = sorted(finite, key=lambda site: float(site["sqnr_db"]))[:WORST]
    split = split_figure(draft)
    return Diagnosis(
        title=say("diagnosis.title" if measured else "diagnosis.title.unmeasured"),
        findings=findings,
        remark=remark,
        figures=[
            *([split] if split else []),
            *([_profile(draft, noisy, worst), _bars(draft, worst)] if worst else []),
        ],
        tried=tried_table(draft),
    )


def _profile(
    draft: Draft, sites: Sequence[Mapping[str, Any]], worst: Sequence[Mapping[str, Any]]
) -> Figure:
    say = draft.say
    figure = draft.numbering.figure()
    ranks = {id(site): str(rank) for rank, site in enumerate(worst, 1)}
    points = []
    for weights in (True, False):  # each kind has its own way from the input to the output
        kind = [site for site in sites if (site.get("role") == "weight") == weights]
        points += [
            Point(
                at=(place + 0.5) / len(kind),
                value=float(site["sqnr_db"]),
                square=weights,
                mark=ranks.get(id(site), ""),
            )
            for place, site in enumerate(kind)
        ]
    picture = profile(
        points,
        x_label=say("profile.axis"),
        y_label=say("profile.y"),
        ident="profile",
        title=say("profile.title", count=len(sites)),
        desc=say("profile.desc", site=worst[0].get("name"), value=_decibels(worst[0])),
    )
    return Figure(
        ident="profile-figure",
        label=say("figure", number=figure),
        caption=say("profile.caption", bars=say("figure", number=figure + 1)),
        pictures=[picture],
        table=None,
        layout="wide",
        key=[
            (str(rank), str(site.get("name")), _decibels(site))
            for rank, site in enumerate(worst, 1)
        ],
    )


def _bars(draft: Draft, worst: Sequence[Mapping[str, Any]]) -> Figure:
    say = draft.say
    drawn = [
        Bar(
            mark=str(rank),
            name=str(site.get("name")),
            value=_noise(site),
            label=f"{_decibels(site)} · {percent(_noise(site))}",
            hatched=site.get("role") == "weight",
        )
        for rank, site in enumerate(worst, 1)
    ]
    longest = max(bar.value for bar in drawn)
    pictures = [
        ranked(
            drawn[first : first + _HALF],
            longest,
            ident=f"bars-{first}",
            title=say("bars.title", first=first + 1, last=min(first + _HALF, len(drawn))),
            desc=say("bars.desc"),
        )
        for first in range(0, len(drawn), _HALF)
    ]
    return Figure(
        ident="bars-figure",
        label=say("figure", number=draft.numbering.figure()),
        caption=say("bars.caption"),
        pictures=pictures,
        table=_table(draft, worst),
        layout="pair",
    )


def _table(draft: Draft, worst: Sequence[Mapping[str, Any]]) -> Table:
    say = draft.say
    rows = [
        (
            str(site.get("name")),
            draft.term("role", site.get("role")),
            number(site.get("sqnr_db")),
            percent(_noise(site)),
        )
        for site in worst
    ]
    return Table(
        ident="bars-table",
        label="",
        caption=say("bars.table"),
        columns=(
            Column(label=say("column.site"), kind="name"),
            Column(label=say("column.role")),
            Column(label=say("column.sqnr"), kind="number"),
            Column(label=say("column.noise"), kind="number"),
        ),
        rows=rows,
    )


def _noise(site: Mapping[str, Any]) -> float:
    """Energy of the rounding error as a share of the signal's."""
    return float(10 ** (-float(site["sqnr_db"]) / 10))


def _decibels(site: Mapping[str, Any]) -> str:
    return f"{number(site['sqnr_db'])} dB"
