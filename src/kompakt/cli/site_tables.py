"""The sites of a model on the terminal: its layers, its edges, and why some stay float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kompakt.escaping import rich_markup

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Row = Mapping[str, Any]
TOTALS = ("parameters", "bytes", "macs")
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def site_tables(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Everything ``inspect`` prints, for 80 columns and more; names are escaped.

    Args:
        rows: One for each site: ``name``, ``kind``, ``role``, ``format``, ``why_float`` and, for
            layers, ``shape``, ``parameters``, ``bytes``, ``macs``.
    """
    layers = [row for row in rows if row.get("role") == "weight"]
    if layers:
        yield _layers(layers)
        yield ""
    yield _edges([row for row in rows if row.get("role") != "weight"])
    yield from _reasons(rows)
    yield from _saturation(rows)
    yield _total_line(rows)


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """Parameters, bytes and MACs of all rows together."""
    return {key: sum(int(row.get(key) or 0) for row in rows) for key in TOTALS}


def short(value: object) -> str:
    """A count in at most five characters: ``590 k``, ``1.18 M``."""
    from kompakt.report.wording import number, real, whole

    x = real(value)
    for scale, name in _SCALES:
        if x is not None and x >= scale:
            return f"{number(x / scale)} {name}"
    return whole(value)


def _layers(rows: Sequence[Row]) -> Table:
    from kompakt.report.wording import size

    texts, numbers = ("layer", "kind", "weights", "output"), ("params", "in float", "MACs")
    table = _empty(texts, numbers)
    for row in rows:
        shape = "×".join(str(length) for length in row.get("shape") or ())
        cells = (*_names(row), shape)
        counts = (short(row.get("parameters")), size(row.get("bytes")), short(row.get("macs")))
        table.add_row(*(rich_markup(cell) for cell in (*cells, *counts)))
    return table


def _edges(rows: Sequence[Row]) -> Table:
    table = _empty(("edge", "kind", "codes"), ())
    for row in rows:
        table.add_row(*(rich_markup(cell) for cell in _names(row)))
    return table


def _names(row: Row) -> tuple[str, str, str]:
    return str(row["name"]), str(row["kind"]), str(row.get("format") or "float")


def _empty(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _reasons(rows: Sequence[Row]) -> Iterator[RenderableType]:
    from rich.padding import Padding

    sites: dict[str, list[str]] = {}
    for row in rows:
        if row.get("format") is None:
            reason = str(row.get("why_float") or "the scheme does not ask for it")
            sites.setdefault(reason, []).append(str(row["name"]))
    if sites:
        yield "\n[bold]stays float[/]"
    for reason, names in sites.items():
        yield f"  {rich_markup(reason, 300)}:"
        yield Padding(", ".join(rich_markup(name) for name in names), (0, 0, 0, 4), expand=False)


def _saturation(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Layers whose 16-bit sums saturate on processors without VNNI, and what was done about it."""
    from rich.padding import Padding

    told: dict[str, list[str]] = {}
    for row in rows:
        if row.get("why_format"):
            told.setdefault(f"{row['format']} so that none saturates", []).append(str(row["name"]))
        found = row.get("pair_sums") or {}
        if found.get("verdict") == "seen":
            text = "saturates on this data"
        elif found.get("verdict") == "possible":
            text = "may saturate; --data tells whether it does"
        elif found.get("verdict") == "not seen":
            text = "might saturate, but does not on this data"
        else:
            continue
        told.setdefault(text, []).append(str(row["name"]))
    if told:
        yield "\n[bold]16-bit sums on x86 without VNNI[/]"
    for text, names in told.items():
        yield f"  {rich_markup(text, 300)}:"
        yield Padding(", ".join(rich_markup(name) for name in names), (0, 0, 0, 4), expand=False)


def _total_line(rows: Sequence[Row]) -> str:
    from kompakt.report.wording import size, whole

    found = totals(rows)
    quantized = sum(row.get("format") is not None for row in rows)
    return (
        f"\n{len(rows):,} sites, {quantized:,} quantized · {whole(found['parameters'])} parameters "
        f"· {size(found['bytes'])} in float · {short(found['macs'])} MACs"
    )
