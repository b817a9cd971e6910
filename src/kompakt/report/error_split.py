"""The error of the costliest sites by its parts, and the remedies that were tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kompakt.report.draft import Draft
from kompakt.report.plots.stacked import Stack, stacked
from kompakt.report.tables import Column, Figure, Table
from kompakt.report.wording import percent, real, whole

SHOWN = 12
_HALF = SHOWN // 2
LOOKS = {
    "clipping": "clip",
    "rounding": "new",
    "saturation": "part-saturation",
    "formula": "part-formula",
    "propagated": "old hatch",
}
"""How each part is drawn, in the order they are stacked."""
MOST_TRIED = 24


def split_figure(draft: Draft) -> Figure | None:
    """The figure of stacked parts; None where nothing was measured."""
    part = draft.part("error_split")
    rows = [r for r in part.get("sites") or () if real(r.get("alone")) is not None]
    rows = [r for r in rows if real(r.get("total")) is not None]
    worst = sorted(rows, key=lambda r: -float(r["alone"]))[:SHOWN]
    if not worst:
        return None
    chosen = {id(row) for row in worst}
    shown = [row for row in rows if id(row) in chosen]  # in network order
    say = draft.say
    looks = {name: look for name, look in LOOKS.items() if _is_seen(name, shown)}
    bars = [_bar(draft, row, looks) for row in shown]
    longest = max(sum(bar.parts.values()) for bar in bars)
    pictures = [
        stacked(
            bars[first : first + _HALF],
            longest,
            looks=looks,
            names={name: say(f"part.{name}") for name in looks},
            ident=f"split-{first}",
            title=say("split.title.sites", first=first + 1, last=min(first + _HALF, len(bars))),
            desc=say("split.desc"),
        )
        for first in range(0, len(bars), _HALF)
    ]
    return Figure(
        ident="split-figure",
        label=say("figure", number=draft.numbering.figure()),
        caption=say("split.caption", samples=whole(part.get("samples"))),
        pictures=pictures,
        table=_table(draft, shown, list(looks)),
        layout="pair",
    )


def _is_seen(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return name in ("clipping", "rounding", "propagated") or any(
        _value(r, name) > 0.02 * _value(r, "total") for r in rows
    )


def _value(row: Mapping[str, Any], name: str) -> float:
    return real(row.get(name)) or 0.0


def _name(draft: Draft, row: Mapping[str, Any]) -> str:
    name = str(row.get("site") or row.get("name") or "–")
    return draft.say("split.weights", site=name) if row.get("role") == "weight" else name


def _bar(draft: Draft, row: Mapping[str, Any], looks: Mapping[str, str]) -> Stack:
    """Parts as long as their share of the energy makes of the whole error."""
    total = _value(row, "total")
    energies = {name: _value(row, name) ** 2 for name in looks}
    everything = sum(energies.values())
    parts = {
        name: total * energy / everything if everything > 0 else 0.0
        for name, energy in energies.items()
    }
    return Stack(name=_name(draft, row), label=percent(total), parts=parts)


def _table(draft: Draft, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    say = draft.say
    return Table(
        ident="split-table",
        label="",
        caption=say("split.table"),
        columns=(
            Column(label=say("column.site"), kind="name"),
            *(Column(label=say(f"column.part.{name}"), kind="number") for name in names),
            Column(label=say("column.alone"), kind="number"),
        ),
        rows=[
            (
                _name(draft, row),
                *(percent(_value(row, name)) for name in names),
                percent(row.get("alone")),
            )
            for row in rows
        ],
    )


def tried_table(draft: Draft) -> Table | None:
    """Every remedy that was tried, best first; None where none was."""
    say, part = draft.say, draft.part("error_split")
    rows = []
    for cause in part.get("causes") or ():
        site = str(cause.get("site") or say("split.all_data"))
        for tried in cause.get("tried") or ():
            if isinstance(tried, Sequence) and len(tried) == 2 and real(tried[1]) is not None:
                rows.append((float(tried[1]), site, str(tried[0])))
    if not rows:
        return None
    rows.sort(key=lambda row: row[0])
    return Table(
        ident="tried-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("split.tried", before=percent(part.get("output_error"))),
        columns=(
            Column(label=say("column.site")),
            Column(label=say("column.change"), kind="long"),
            Column(label=say("column.output_error"), kind="number"),
        ),
        rows=[(site, change, percent(error)) for error, site, change in rows[:MOST_TRIED]],
        stacked=True,
    )
