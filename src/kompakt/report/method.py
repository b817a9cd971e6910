"""How it was measured: model, recipe, machine, commands, time spent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kompakt.report.draft import Draft
from kompakt.report.tables import Column, Table
from kompakt.report.wording import real, seconds, size, whole


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A titled list of names and values."""

    title: str
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """The section."""

    facts: Sequence[Facts]
    commands: Sequence[str]
    timings: Table | None
    scheme: str


def section(draft: Draft) -> Method:
    """Write the section."""
    groups = (
        ("model", _model(draft)),
        ("recipe", _recipe(draft)),
        ("machine", _machine(draft)),
        ("versions", _versions(draft)),
    )
    listed = [
        (name, [(k, v) for k, v in entries if v not in ("", "–")]) for name, entries in groups
    ]
    scheme = draft.part("scheme")
    return Method(
        facts=[Facts(title=draft.say(f"method.{n}"), entries=e) for n, e in listed if e],
        commands=[str(command) for command in draft.items("commands")],
        timings=_timings(draft),
        scheme=json.dumps(scheme, indent=2, ensure_ascii=False) if scheme else "",
    )


def _model(draft: Draft) -> Iterator[tuple[str, str]]:
    say, model = draft.say, draft.part("model")
    yield say("field.name"), str(model.get("name") or "")
    yield say("field.parameters"), whole(model.get("parameters"))
    for key in ("input", "output"):
        for spec in model.get(f"{key}s") or ():
            if isinstance(spec, Mapping):
                yield say(f"field.{key}"), _tensor(spec)
    yield say("field.source_sha256"), str(model.get("source_sha256") or "")


def _tensor(spec: Mapping[str, object]) -> str:
    shape = spec.get("shape")
    sides = " × ".join(map(str, shape)) if isinstance(shape, list | tuple) else ""
    return " ".join(str(part) for part in (spec.get("name"), sides, spec.get("dtype")) if part)


def _recipe(draft: Draft) -> Iterator[tuple[str, str]]:
    say, record, metric = draft.say, draft.record, draft.part("metric")
    isa = draft.part("target").get("isa")
    yield say("field.scheme"), str(record.get("scheme_name") or "")
    yield say("field.level"), whole(record.get("level"))
    yield say("field.calibrator"), str(record.get("calibrator") or "")
    yield say("field.methods"), ", ".join(map(str, record.get("methods") or ()))
    yield say("field.target"), draft.runtime() + (f" ({isa})" if isa else "")
    yield say("field.session"), _listed(draft.part("target").get("session_options"))
    if metric.get("name"):
        name, n = draft.metric_name(), whole(metric.get("n"))
        yield say("field.metric"), say("field.metric_value", metric=name, n=n)
        yield say("field.method"), str(metric.get("method") or "")
        yield say("field.margin"), draft.words.drop(metric.get("margin"))
    yield say("field.confidence"), draft.words.level()
    yield say("field.pairs"), whole(draft.part("latency").get("pairs"))
    yield say("field.seed"), "" if record.get("seed") is None else str(record["seed"])


def _machine(draft: Draft) -> Iterator[tuple[str, str]]:
    for key, value in draft.part("environment").items():
        if key != "versions":
            yield draft.term("environment", key), _value(draft, key, value)


def _versions(draft: Draft) -> Iterator[tuple[str, str]]:
    versions = draft.part("environment").get("versions")
    yield "kompakt", str(draft.record.get("kompakt") or "")
    if isinstance(versions, Mapping):
        for name, version in versions.items():
            if name != "kompakt":
                yield str(name), str(version or "")


def _value(draft: Draft, key: str, value: object) -> str:
    if isinstance(value, bool):
        return draft.say("yes" if value else "no")
    if isinstance(value, Mapping):
        return _listed(value)
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if key.endswith("_bytes"):
        return size(value)
    if real(value) is not None:
        return whole(value) if isinstance(value, int) else f"{value:g}"
    return str(value) if value is not None else ""


def _listed(value: object) -> str:
    if not isinstance(value, Mapping):
        return ""
    return ", ".join(f"{key} {item}" for key, item in value.items())


def _timings(draft: Draft) -> Table | None:
    wall, processor = _seconds_by_stage(draft)
    if not wall:
        return None
    say = draft.say
    columns = [Column(label=say("column.stage")), Column(label=say("column.time"), kind="number")]
    rows = [[draft.term("stage", stage), seconds(value)] for stage, value in wall.items()]
    rows.append([say("method.total"), seconds(sum(wall.values()))])
    if processor:
        columns.append(Column(label=say("column.cpu_time"), kind="number"))
        times = [*(processor.get(stage) for stage in wall), sum(processor.values())]
        for row, value in zip(rows, times, strict=True):
            row.append(seconds(value))
    return Table(
        ident="timings-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("method.timings"),
        columns=columns,
        rows=rows,
    )


def _seconds_by_stage(draft: Draft) -> tuple[dict[str, float], dict[str, float]]:
    """Wall-clock and processor seconds by stage, from ``write_s`` and ``write_cpu_s``."""
    wall: dict[str, float] = {}
    processor: dict[str, float] = {}
    for name, value in draft.part("timings").items():
        x = real(value)
        if x is not None and name != "total":
            stage = name.removesuffix("_s")
            if stage.endswith("_cpu"):
                processor[stage.removesuffix("_cpu")] = x
            else:
                wall[stage] = x
    return wall, processor
