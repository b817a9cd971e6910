"""The parity certificate: whether the file computes what was simulated, code by code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kompakt.report.draft import Draft
from kompakt.report.reading import ROW_LIMIT
from kompakt.report.tables import Column, Table
from kompakt.report.wording import number, percent, real, whole

_VERDICTS = ("exact", "within tolerance", "failed")


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The section."""

    text: str
    failed: bool
    kernels: Table | None
    table: Table | None
    tolerances: str


def section(draft: Draft) -> Parity:
    """Write the section."""
    found = draft.part("parity")
    verdict = found.get("verdict")
    if verdict not in _VERDICTS:
        none = draft.say("parity.none")
        return Parity(text=none, failed=False, kernels=None, table=None, tolerances="")
    tolerances = found.get("tolerances")
    entries = dict(tolerances) if isinstance(tolerances, Mapping) else {}
    if real(entries.get("integer_share")) == 0:
        entries.pop("integer_step", None)
    listed = draft.say("separator").join(_tolerance(draft, *entry) for entry in entries.items())
    return Parity(
        text=draft.say("space").join(_sentences(draft, found)),
        failed=verdict == "failed",
        kernels=_kernels(draft, found.get("fused_operators")),
        table=_table(draft, found.get("rows")),
        tolerances=draft.say("parity.tolerances", list=listed) if listed else "",
    )


def _tolerance(draft: Draft, name: object, value: object) -> str:
    """One tolerance in words."""
    if str(name).endswith("_share"):
        shown = draft.say("tolerance.none") if real(value) == 0 else percent(value)
    else:
        shown = _shown(value)
    try:
        return draft.say(f"tolerance.{name}", value=shown)
    except KeyError:
        return f"{str(name).replace('_', ' ')} {_shown(value)}"


def _shown(value: object) -> str:
    x = real(value)
    return str(value) if x is None else number(x) if 0 < abs(x) < 1e-4 else f"{x:g}"


def compares_outputs_only(found: Mapping[str, Any]) -> bool:
    """Whether nothing but outputs was compared: no activation is quantized, before or while it runs."""
    return found.get("quantizers") == 0 and not real(found.get("dynamic_layers"))


def _sentences(draft: Draft, found: Mapping[str, Any]) -> Iterator[str]:
    if compares_outputs_only(found) and found["verdict"] != "failed":
        error = found.get("forced_output_error", found.get("output_relative_error"))
        samples = whole(found.get("samples"))
        yield draft.say("parity.outputs_only", samples=samples, error=number(error))
        return
    codes, differing = real(found.get("codes")), real(found.get("differing_codes"))
    share = differing / codes if codes and differing is not None else None
    layers = real(found.get("dynamic_layers"))
    # A file whose layers find their ranges while they run has no codes to speak of.
    yield draft.say(
        f"parity.no_codes.{found['verdict']}"
        if codes == 0
        else f"parity.verdict.{found['verdict']}",
        quantizers=whole(found.get("quantizers")),
        samples=whole(found.get("samples")),
        codes=whole(codes),
        differing=whole(differing),
        share=percent(share),
        largest=whole(found.get("largest_code_difference")),
        runtime=draft.runtime(),
    )
    if found.get("first_difference"):
        yield draft.say("parity.first", site=found["first_difference"])
    unfused = found.get("unfused")
    if isinstance(unfused, list | tuple) and unfused:
        names = draft.say("list").join(str(site) for site in unfused)
        yield draft.say("parity.unfused", number=whole(len(unfused)), sites=names)
    yield from _processors(draft, found)
    if layers:
        yield draft.say(
            "parity.layers",
            count=whole(layers),
            differing=whole(found.get("differing_dynamic_layers")),
            error=number(found.get("largest_layer_error")),
            input=number(found.get("largest_layer_input_error")),
        )
    if real(found.get("forced_output_error")) is not None:
        yield draft.say("parity.forced", error=number(found["forced_output_error"]))
    if real(found.get("free_running_output_error")) is not None:
        yield draft.say(
            "parity.free",
            error=number(found["free_running_output_error"]),
            largest=number(found.get("free_running_output_largest")),
            differing=whole(found.get("free_running_differing")),
            codes=whole(codes),
        )


def _processors(draft: Draft, found: Mapping[str, Any]) -> Iterator[str]:
    """On which processors no integer sum saturates, and in which layers some do elsewhere."""
    families, rows = found.get("exact_on"), found.get("pair_sums")
    if not isinstance(families, list) or not families or not isinstance(rows, list):
        return
    say = draft.say
    yield say("parity.exact_on", list=say("list").join(str(name) for name in families))
    by_verdict: dict[str, list[str]] = {}
    for row in rows:
        by_verdict.setdefault(str(row.get("verdict")), []).append(str(row.get("layer")))
    changed = [str(site["name"]) for site in draft.items("sites") if site.get("why_format")]
    samples = max((real(row.get("samples")) or 0 for row in rows), default=0)
    told = {
        "parity.saturating": [*by_verdict.get("seen", ()), *by_verdict.get("possible", ())],
        "parity.not_seen": by_verdict.get("not seen", ()),
        "parity.other_weights": changed,
    }
    for key, names in told.items():
        if names:
            yield say(
                key,
                number=whole(len(names)),
                sites=say("list").join(names),
                samples=whole(samples),
            )


def _kernels(draft: Draft, operators: object) -> Table | None:
    if not isinstance(operators, Mapping) or not operators:
        return None
    say = draft.say
    ordered = sorted(operators.items(), key=lambda item: -(real(item[1]) or 0))
    return Table(
        ident="kernels-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("parity.fused", runtime=draft.runtime()),
        columns=(
            Column(label=say("column.kernel"), kind="name"),
            Column(label=say("column.number"), kind="number"),
        ),
        rows=[(str(name), whole(count)) for name, count in ordered],
    )


def _table(draft: Draft, rows: object) -> Table | None:
    if not isinstance(rows, list) or not rows:
        return None
    say = draft.say
    return Table(
        ident="parity-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("parity.table"),
        columns=(
            Column(label=say("column.site"), kind="name"),
            Column(label=say("column.codes"), kind="number"),
            Column(label=say("column.differing"), kind="number"),
            Column(label=say("column.largest"), kind="number"),
            Column(label=say("column.fed_by")),
        ),
        rows=[
            (
                str(row.get("site")),
                whole(row.get("codes")),
                whole(row.get("differing")),
                whole(row.get("largest")),
                draft.term("fed_by", row.get("fed_by")),
            )
            for row in rows[:ROW_LIMIT]
        ],
    )
