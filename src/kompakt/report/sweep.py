"""The page about a sweep: the front first, then every trial, then how it was found."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kompakt.report.draft import Draft
from kompakt.report.plots.frontier import Spot, frontier
from kompakt.report.reading import embedded, visible
from kompakt.report.tables import Cell, Column, Figure, Kind, Table, Wide
from kompakt.report.wording import fixed, milliseconds, pair, real, size, whole

_ORDER = {"front": 0, "not told apart": 1, "dominated": 2}
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One end of the front: what it is best at, and its figures."""

    what: str
    number: str
    name: str
    figures: Sequence[str]


def render_sweep(document: Mapping[str, Any], *, lang: str = "en") -> str:
    """Write the page about a sweep.

    Args:
        document: What the sweep found, as plain JSON values.
        lang: Language of the fixed sentences, ``"en"`` or ``"zh-CN"``.

    Returns:
        A complete HTML document without any external reference and without scripts.

    Raises:
        UsageError: K001, for a language the report is not written in.
    """
    from kompakt.report.render import style_sheet, template

    draft = Draft.of(visible(document), lang)
    style = style_sheet()
    data, _ = embedded(document)
    page: str = template("sweep.html.j2").render(
        say=draft.say,
        lang=lang,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        data=data,
        **_sections(draft),
    )
    return page


def _sections(draft: Draft) -> dict[str, Any]:
    say, record = draft.say, draft.record
    rows = _sorted(draft)
    model = str(draft.part("model").get("name") or "")
    front = [row for row in rows if row.get("standing") == "front"]
    table_label = say("table", number=1)
    key = "sweep.headline" if front else "sweep.headline.none"
    return {
        "version": str(record.get("kompakt") or ""),
        "model": model,
        "headline": say(key, front=len(front), count=len(rows), model=model),
        "lede": say("space").join(_lede(draft, rows)),
        "unfinished": _unfinished(draft, rows),
        "choices": list(_choices(draft, front)),
        "intro": say("sweep.plane.intro", confidence=draft.words.level()),
        "figure": _figure(draft, rows, table_label),
        "front": _table(draft, front, "front", say("sweep.front.table")) if front else None,
        "trials": _table(draft, rows, "trials", say("sweep.table")),
        "how": list(_how(draft, rows)),
        "limits": [
            say("sweep.limits.chosen"),
            say("sweep.limits.joint", confidence=draft.words.level()),
        ],
        "commands": [str(command) for command in draft.items("commands")],
        "certify": list(_certify(draft, front)),
    }


def _sorted(draft: Draft) -> list[Row]:
    """The front first, from the most accurate to the least; then the others in their order."""

    def rank(row: Row) -> tuple[int, float, int]:
        standing = _ORDER.get(str(row.get("standing")), 3)
        return standing, _loss(row) if standing == 0 else 0.0, int(row["number"])

    return sorted(draft.items("rows"), key=rank)


def _loss(row: Row) -> float:
    drop = real(row.get("drop"))
    return drop if drop is not None else real(row.get("output_error")) or 0.0


def _lede(draft: Draft, rows: Sequence[Row]) -> Iterator[str]:
    if not any(row.get("standing") for row in rows):
        return
    count = {name: sum(row.get("standing") == name for row in rows) for name in _ORDER}
    yield draft.say("sweep.lede")
    if count["not told apart"]:
        yield draft.say("sweep.lede.open", number=count["not told apart"])
    if count["dominated"]:
        confidence = draft.words.level()
        yield draft.say("sweep.lede.dominated", number=count["dominated"], confidence=confidence)
    refused = len(rows) - sum(count.values())
    if refused:
        yield draft.say("sweep.lede.refused", number=refused)


def _unfinished(draft: Draft, rows: Sequence[Row]) -> str:
    planned = draft.record.get("planned") or 0
    if len(rows) >= planned:
        return ""
    return draft.say("sweep.unfinished", done=len(rows), planned=planned)


def _choices(draft: Draft, front: Sequence[Row]) -> Iterator[Choice]:
    """The ends of the front; the float files, which compress nothing, are not offered."""
    offered = [row for row in front if not row.get("is_float")]
    if not offered:
        return
    timed = [row for row in offered if _speed(row) is not None]
    ends = [("accurate", min(offered, key=_loss))]
    if timed:
        ends.append(("fast", max(timed, key=lambda row: _speed(row) or 0.0)))
    ends.append(("small", min(offered, key=lambda row: row.get("size_bytes") or 0)))
    for what, row in ends:
        yield Choice(
            what=draft.say(f"sweep.choice.{what}"),
            number=f"{draft.say('sweep.column.number')} {whole(row['number'] + 1)}",
            name=_title(draft, row),
            figures=[text for text in _brief(draft, row) if text != "–"],
        )


def _title(draft: Draft, row: Row) -> str:
    targets = draft.part("space").get("targets") or ()
    name = str(row.get("name") or "")
    return f"{name} · {_runtime(draft, row)}" if len(targets) > 1 else name


def _runtime(draft: Draft, row: Row) -> str:
    return draft.term("runtime", row.get("target"))


def _brief(draft: Draft, row: Row) -> tuple[str, ...]:
    drop = draft.words.drop(row.get("drop"))
    return (
        f"{draft.say('sweep.column.loss')} {drop}" if drop != "–" else "–",
        draft.words.ratio(_speed(row)),
        size(row.get("size_bytes")),
    )


def _speed(row: Row) -> float | None:
    return real((row.get("timing") or {}).get("speedup"))


def _figure(draft: Draft, rows: Sequence[Row], table: str) -> Figure | None:
    measured = [row for row in rows if row.get("standing")]
    if len(measured) < 2:
        return None
    say = draft.say
    pictures, off, is_cut = [], set[str](), False
    for what in ("speed", "size"):
        spots = list(_spots(draft, measured, what))
        if len(spots) < 2:
            continue
        drawn = frontier(
            spots,
            x_label=_axis(draft, measured),
            y_label=say(f"sweep.axis.{what}", runtime=_reference(draft)),
            ident=f"sweep-{what}",
            title=say(f"sweep.plot.{what}"),
            desc=say(
                "sweep.plot.desc",
                count=len(spots),
                front=sum(spot.standing == "front" for spot in spots),
            ),
        )
        pictures.append(drawn.picture)
        off |= {spot.mark for spot in drawn.off}
        is_cut |= drawn.is_cut
    if not pictures:
        return None
    key = "sweep.plot.speed" if len(pictures) == 2 else "sweep.plot.size"
    caption = say("sweep.caption", what=say(key), table=table)
    if off:
        numbers = ", ".join(sorted(off, key=int))
        caption = say("space").join([caption, say("sweep.caption.off", numbers=numbers)])
    if is_cut:
        caption = say("space").join([caption, say("sweep.caption.cut")])
    return Figure(
        ident="front-figure",
        label=say("figure", number=1),
        caption=caption,
        pictures=pictures,
        table=None,
        layout="pair",
    )


def _axis(draft: Draft, rows: Sequence[Row]) -> str:
    if any(real(row.get("drop")) is None for row in rows):
        return draft.say("sweep.axis.error")
    points = "_points" if draft.words.as_percent else ""
    return draft.say(f"sweep.axis.drop{points}", metric=draft.metric_name())


def _reference(draft: Draft) -> str:
    return draft.term("runtime", draft.part("settings").get("reference"))


def _spots(draft: Draft, rows: Sequence[Row], what: str) -> Iterator[Spot]:
    judged = all(real(row.get("drop")) is not None for row in rows)
    unit = 100.0 if draft.words.as_percent or not judged else 1.0
    baseline = next(
        (real(row.get("float_bytes")) for row in draft.items("rows") if row.get("float_bytes")),
        None,
    )
    for row in rows:
        y, y_bar = _height(row, what, baseline)
        x = real(row.get("drop") if judged else row.get("output_error"))
        if x is None or y is None:
            continue
        bar = pair(row.get("drop_interval")) if judged else None
        yield Spot(
            x=x * unit,
            y=y,
            x_bar=None if bar is None else (bar[0] * unit, bar[1] * unit),
            y_bar=y_bar,
            standing=str(row.get("standing")),
            mark=str(row["number"] + 1),
            is_float=bool(row.get("is_float")),
        )


def _height(
    row: Row, what: str, baseline: float | None
) -> tuple[float | None, tuple[float, float] | None]:
    if what == "speed":
        return _speed(row), pair((row.get("timing") or {}).get("speedup_interval"))
    found = real(row.get("size_bytes"))
    return (baseline / found if found and baseline else None), None


def _table(draft: Draft, rows: Sequence[Row], ident: str, caption: str) -> Table:
    say = draft.say
    whole_table = ident == "trials"
    loss = "loss_points" if draft.words.as_percent else "loss"
    keys = ["number", "trial"] if whole_table else ["trial", "number"]
    keys += ["runtime", *(["standing"] if whole_table else []), loss, "loss_interval"]
    keys += ["speed", "latency", "size"]
    kinds: dict[str, Kind] = {"trial": "name", "runtime": "text", "standing": "text"}
    return Table(
        ident=f"sweep-{ident}",
        label=say("table", number=2 if whole_table else 1),
        caption=caption,
        columns=[
            Column(
                label=say(f"sweep.column.{key}", confidence=draft.words.level()),
                kind=kinds.get(key, "number"),
            )
            for key in keys
        ],
        rows=[_cells(draft, row, keys) for row in rows],
        stacked=not whole_table,
    )


def _cells(draft: Draft, row: Row, keys: Sequence[str]) -> tuple[Cell, ...]:
    words, timing = draft.words, row.get("timing") or {}
    loss = words.drop_number(row.get("drop"))
    speed = fixed(timing.get("speedup"), 2)
    ends = words.interval(timing.get("speedup_interval"), _hundredths)
    cells = {
        "number": whole(row["number"] + 1),
        "trial": str(row.get("name") or "–"),
        "runtime": _runtime(draft, row),
        "standing": _standing(draft, row),
        "loss": loss,
        "loss_points": loss,
        "loss_interval": words.interval(row.get("drop_interval"), words.drop_number),
        "speed": speed if ends == "–" else f"{speed} ({ends})",
        "latency": milliseconds(timing.get("latency_ms")),
        "size": size(row.get("size_bytes")),
    }
    if not row.get("standing") and "standing" in keys:  # the reason takes the place of figures
        first = keys.index("standing")
        told = Wide(text=cells["standing"], span=len(keys) - first)
        return (*(cells[key] for key in keys[:first]), told)
    return tuple(cells[key] for key in keys)


def _hundredths(value: object) -> str:
    return fixed(value, 2)


def _standing(draft: Draft, row: Row) -> str:
    standing, better = row.get("standing"), row.get("better")
    if standing:
        other = "" if better is None else whole(int(better) + 1)
        return draft.say(f"sweep.standing.{standing}", better=other)
    outcome, why = draft.term("outcome", row.get("outcome")), row.get("why")
    return draft.say("trials.outcome", outcome=outcome, why=why) if why else outcome


def _how(draft: Draft, rows: Sequence[Row]) -> Iterator[str]:
    say, record = draft.say, draft.record
    settings = draft.part("settings")
    sampler = record.get("searched")
    yield say(
        "sweep.how.searched" if sampler else "sweep.how.all",
        count=whole(record.get("planned")),
        sampler={"nsga2": "NSGA-II", "tpe": "TPE"}.get(str(sampler), ""),
        seed=settings.get("seed"),
    )
    n = next((row["samples"] for row in rows if row.get("samples")), None)
    yield say("sweep.how.data", n=whole(n)) if n else say("sweep.how.no_data")
    yield say("sweep.how.parity")
    machines = {(row.get("timing") or {}).get("machine") for row in rows} - {None}
    if machines:
        yield say("sweep.how.time", runtime=_reference(draft))
    if len(machines) > 1:
        yield say("sweep.how.machines", number=len(machines))
    environment = draft.part("environment")
    facts = [
        str(environment.get("cpu") or ""),
        str(settings.get("isa") or ""),
        draft.setting(settings.get("threads"), settings.get("batch")),
        f"kompakt {record.get('kompakt') or ''}",
        *sorted({f"{_runtime(draft, row)} {row.get('runtime') or ''}" for row in rows}),
    ]
    yield " · ".join(fact for fact in facts if fact) + "."


def _certify(draft: Draft, front: Sequence[Row]) -> Iterator[str]:
    """What to type for the trials of the front that a command line can name."""
    typed = draft.part("space").get("typed") or {}
    for row in front:
        scheme = typed.get(row.get("scheme"))
        if row.get("is_float") or row.get("layers") or scheme is None:
            continue
        parts = [
            "kompakt",
            "compress",
            "SOURCE",
            "--target",
            row["target"],
            "--scheme",
            scheme,
        ]
        parts += ["--calibrator", row["calibrator"]] if row.get("calibrator") else []
        parts += [part for name in row.get("methods") or () for part in ("--method", name)]
        parts += ["--calibration", "DATA", "--test", "DATA", "-o", "DIR"]
        yield shlex.join(map(str, parts))
