"""``kompakt inspect``: every layer of a model, and what a scheme would do to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kompakt.cli import options
from kompakt.cli.quantities import parse_dynamic

if TYPE_CHECKING:
    from kompakt.schemes import Scheme
    from kompakt.sources import Source

BATCHES = 16
"""Batches of data that are looked at."""


def inspect(
    source: options.Source,
    scheme: options.Scheme = "w8a8",
    target: options.Target = "onnxruntime",
    isa: options.Isa = "auto",
    data: options.InspectData = None,
    keep_float: options.KeepFloat = None,
    dynamic: options.Dynamic = None,
    trust_source: options.TrustSource = False,
    as_json: options.AsJson = False,
) -> None:
    """List all layers and their formats, or why float."""
    from kompakt.cli.console import print_json, print_result
    from kompakt.cli.names import check_names
    from kompakt.cli.site_tables import site_tables, totals
    from kompakt.cli.work import working
    from kompakt.sources import open_source, with_example
    from kompakt.steps import inspect as inspect_model

    axes = parse_dynamic("--dynamic", dynamic)
    check_names({"scheme": scheme, "target": target, "isa": isa})
    with working([source, data]):
        found = with_example(
            open_source(source, trust=trust_source), {"validation": data} if data else {}
        )
        rows = inspect_model(
            found.model,
            example_inputs=found.example_inputs,
            scheme=_wanted(scheme, keep_float or ()),
            target=target,
            isa=isa,
            dynamic=found.dynamic if axes is None else axes,
            calibration=_some(data, found) if data else None,
        )
    if as_json:
        print_json({"sites": rows, "totals": totals(rows)})
    else:
        print_result(*site_tables(rows))


def _some(data: str, source: Source) -> list[Any]:
    from itertools import islice

    from kompakt.measuring.data import open_data
    from kompakt.sources import input_names

    names = input_names(source.model, source.example_inputs)
    return list(islice(open_data(data, names, "calibration"), BATCHES))


def _wanted(name: str | None, keep_float: Sequence[str]) -> Scheme:
    from kompakt.schemes import FLOAT, get_scheme

    scheme = get_scheme(name or "w8a8")
    for select in keep_float:
        scheme = scheme.with_override(select, FLOAT)
    return scheme
