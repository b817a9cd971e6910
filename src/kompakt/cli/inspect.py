"""``kompakt inspect``: every layer of a model, and what a scheme would do to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kompakt.cli import options
from kompakt.cli.quantities import parse_dynamic

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
TOTALS = ("parameters", "bytes", "macs")


def inspect(
    source: options.Source,
    scheme: options.Scheme = "w8a8",
    target: options.Target = "onnxruntime",
    isa: options.Isa = "auto",
    data: options.ExampleData = None,
    keep_float: options.KeepFloat = None,
    dynamic: options.Dynamic = None,
    trust_source: options.TrustSource = False,
    as_json: options.AsJson = False,
) -> None:
    """List all layers and their formats, or why float."""
    from kompakt.cli.console import print_json, print_result
    from kompakt.cli.names import check_names
    from kompakt.cli.work import working

    axes = parse_dynamic("--dynamic", dynamic)
    check_names({"scheme": scheme, "target": target, "isa": isa})
    with working([source, data]):
        rows = _rows(source, data, axes, scheme, target, isa, keep_float or (), trust=trust_source)
    if as_json:
        print_json({"sites": rows, "totals": totals(rows)})
    else:
        print_result(table(rows), *reasons(rows), _total_line(rows))


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """Parameters, bytes and MACs of all rows together."""
    return {key: sum(int(row.get(key) or 0) for row in rows) for key in TOTALS}


def table(rows: Sequence[Row]) -> Table:
    """One line for each site, names escaped."""
    from rich import box
    from rich.table import Table

    from kompakt.escaping import rich_markup
    from kompakt.report.wording import whole

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("site", "kind", "role", "format", "shape"):
        table.add_column(name, overflow="fold")
    for name in ("params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shape = "×".join(str(size) for size in row.get("shape") or ())
        cells = (row["name"], row["kind"], row.get("role"), row.get("format") or "float", shape)
        numbers = (whole(row.get("parameters")), whole(row.get("macs")))
        table.add_row(*(rich_markup(str(cell or "")) for cell in (*cells, *numbers)))
    return table


def reasons(rows: Sequence[Row]) -> Iterator[str]:
    """Why sites stay float: each reason once, with all its sites."""
    from kompakt.escaping import rich_markup

    sites: dict[str, list[str]] = {}
    for row in rows:
        if row.get("format") is None:
            reason = str(row.get("why_float") or "the scheme does not ask for it")
            sites.setdefault(reason, []).append(str(row["name"]))
    if sites:
        yield "\n[bold]stays float[/]"
    for reason, names in sites.items():
        listed = ", ".join(rich_markup(name) for name in names)
        yield f"  {rich_markup(reason, 300)}: {listed}"


def _total_line(rows: Sequence[Row]) -> str:
    from kompakt.report.wording import size, whole

    found = totals(rows)
    quantized = sum(row.get("format") is not None for row in rows)
    return (
        f"\n{len(rows)} sites, {quantized} of them quantized · {whole(found['parameters'])} "
        f"parameters · {size(found['bytes'])} in float · {whole(found['macs'])} MACs"
    )
