"""What was tried on the way, how each trial ended and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kompakt.report.draft import Draft
from kompakt.report.plots.scatter import Spot, scatter
from kompakt.report.tables import Column, Figure, Kind, Table
from kompakt.report.wording import milliseconds, real, seconds, size, whole

_SHAPES = {"chosen": "diamond", "dropped early": "cross", "over budget": "triangle"}


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The section; ``figure`` is ``None`` when fewer than two trials can be placed in it, ``runtimes`` when one
    runtime was asked for.
    """

    text: str
    figure: Figure | None
    table: Table | None
    runtimes: Table | None = None


def section(draft: Draft) -> Trials:
    """Write the section."""
    trials = draft.items("trials")
    if not trials:
        return Trials(
            text=draft.say("trials.none"), figure=None, table=None, runtimes=_runtimes(draft)
        )
    label = draft.say("table", number=draft.numbering.table())
    return Trials(
        text=draft.say("space").join(
            [draft.say("trials.intro", count=tried(draft)), *_chosen(draft, trials)]
        ),
        figure=_figure(draft, trials, label),
        table=_table(draft, trials, label),
        runtimes=_runtimes(draft),
    )


def _runtimes(draft: Draft) -> Table | None:
    """Every runtime that was tried, with what it was written in, how fast it is and why it dropped out."""
    rows, say = draft.items("runtimes"), draft.say
    if not rows:
        return None
    chosen = [index for index, row in enumerate(rows) if row.get("outcome") == "chosen"]
    keys = ("runtime", "trial", "outcome", "float_ms", "compressed_ms", "drop", "size", "parity")
    words: dict[str, Kind] = {
        "runtime": "name",
        "trial": "text",
        "outcome": "long",
        "parity": "text",
    }
    return Table(
        ident="runtimes-table",
        label=say("table", number=draft.numbering.table()),
        caption=say("runtimes.table"),
        columns=[Column(label=say(f"column.{key}"), kind=words.get(key, "number")) for key in keys],
        rows=[_runtime(draft, row) for row in rows],
        highlight=chosen[0] if chosen else None,
        stacked=True,
    )


def _runtime(draft: Draft, row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row.get("target") or "–"),
        str(row.get("scheme") or "–"),
        _outcome(draft, row),
        milliseconds(row.get("float_ms")),
        milliseconds(row.get("latency_ms")),
        draft.words.drop_number(row.get("drop")),
        size(row.get("size_bytes")),
        str(row.get("parity") or "–"),
    )


def _chosen(draft: Draft, trials: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which one was chosen, and why."""
    for number, trial in enumerate(trials, 1):
        if trial.get("outcome") == "chosen":
            key = "trials.chosen.why" if trial.get("why") else "trials.chosen"
            yield draft.say(
                key, number=number, name=str(trial.get("name") or "–"), why=trial.get("why")
            )


def tried(draft: Draft) -> int:
    """How many configurations were really built and judged."""
    return sum(trial.get("outcome") != "not tried" for trial in draft.items("trials"))


def _figure(draft: Draft, trials: Sequence[Mapping[str, Any]], table: str) -> Figure | None:
    say, words = draft.say, draft.words
    by_speed = sum(real(trial.get("speedup")) is not None for trial in trials) >= 2
    spots = list(_spots(trials, by_speed=by_speed, unit=100.0 if words.as_percent else 1.0))
    if len(spots) < 2:
        return None
    quantity = "speed" if by_speed else "size"
    chosen = next((s.mark for s in spots if s.shape == "diamond"), None)
    picture = scatter(
        spots,
        x_label=say(
            "trials.axis.drop_points" if words.as_percent else "trials.axis.drop",
            metric=draft.metric_name(),
        ),
        y_label=say(f"trials.axis.{quantity}"),
        ident="trials-plot",
        title=say("trials.plot.title" if by_speed else "trials.plot.title_size"),
        desc=say(
            "trials.plot.desc" if chosen else "trials.plot.desc_none",
            count=len(spots),
            chosen=chosen,
        ),
        x_limit=_margin(draft),
        y_limit=real(draft.part("budget").get("min_speedup")) if by_speed else None,
    )
    return Figure(
        ident="trials-figure",
        label=say("figure", number=draft.numbering.figure()),
        caption=say("trials.caption", quantity=say(f"trials.caption.{quantity}"), table=table),
        pictures=[picture],
        table=None,
        layout="single",
    )


def _margin(draft: Draft) -> float | None:
    margin = real(draft.part("metric").get("margin"))
    return None if margin is None else margin * (100.0 if draft.words.as_percent else 1.0)


def _spots(trials: Sequence[Mapping[str, Any]], *, by_speed: bool, unit: float) -> list[Spot]:
    spots = []
    for index, trial in enumerate(trials, 1):
        x = real(trial.get("drop"))
        y = real(trial.get("speedup" if by_speed else "size_bytes"))
        if x is not None and y is not None:
            spots.append(
                Spot(
                    x=x * unit,
                    y=y if by_speed else y / 1e6,
                    mark=str(index),
                    shape=_SHAPES.get(str(trial.get("outcome")), "ring"),
                )
            )
    return spots


def _table(draft: Draft, trials: Sequence[Mapping[str, Any]], label: str) -> Table:
    say = draft.say
    numbers = ("metric", "drop", "interval", "speed", "size", "samples", "time", "bought")
    columns = [
        Column(label="#", kind="number"),
        Column(label=say("column.trial"), kind="name"),
        Column(label=say("column.outcome"), kind="long"),
        *(
            Column(label=say(f"column.{key}", confidence=draft.words.level()), kind="number")
            for key in numbers
        ),
    ]
    chosen = [index for index, trial in enumerate(trials) if trial.get("outcome") == "chosen"]
    return Table(
        ident="trials-table",
        label=label,
        caption=say("trials.table"),
        columns=columns,
        rows=[
            (*_row(draft, i, trial), _bought(draft, trials, trial))
            for i, trial in enumerate(trials, 1)
        ],
        highlight=chosen[0] if chosen else None,
    )


def _outcome(draft: Draft, trial: Mapping[str, Any]) -> str:
    outcome, why = draft.term("outcome", trial.get("outcome")), trial.get("why")
    return draft.say("trials.outcome", outcome=outcome, why=why) if why else outcome


def _bought(draft: Draft, trials: Sequence[Mapping[str, Any]], trial: Mapping[str, Any]) -> str:
    """What a step changed, against the trial it builds on: the drop, or the output error without one."""
    base = next((t for t in trials if t.get("name") == trial.get("improves")), None)
    if base is None:
        return "–"
    words = draft.words
    if real(base.get("drop")) is not None and real(trial.get("drop")) is not None:
        before, after = words.drop_number(base.get("drop")), words.drop_number(trial.get("drop"))
        return draft.say("trials.bought.drop", before=before, after=after)
    errors = [real(t.get("output_error")) for t in (base, trial)]
    if None in errors:
        return "–"
    return draft.say("trials.bought.error", before=f"{errors[0]:.3g}", after=f"{errors[1]:.3g}")


def _row(draft: Draft, index: int, trial: Mapping[str, Any]) -> tuple[str, ...]:
    words = draft.words
    return (
        str(index),
        str(trial.get("name") or "–"),
        _outcome(draft, trial),
        words.metric(trial.get("metric")),
        words.drop_number(trial.get("drop")),
        words.interval(trial.get("drop_interval"), words.drop_number),
        draft.words.ratio(trial.get("speedup")),
        size(trial.get("size_bytes")),
        whole(trial.get("samples")),
        seconds(trial.get("seconds")),
    )
