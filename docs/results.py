"""Tables of measurements, made from ``benchmarks/results/*.json`` (see ``benchmarks/outcome.py`` for their form)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import method_table
import support

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
Row = Mapping[str, Any]
Result = Mapping[str, Any]

DASH = "–"

PARITY = ("integer referee", "the choice: referee against")
VERDICT = re.compile(r"verdict: (exact|within tolerance|failed)")
BEST_KNOWN_FIRST = ("mobilenet", "resnet20", "resnet56", "minilm", "kws")
"""The README's rows, in this order."""
TITLES = {"kws": "DS-CNN, keyword spotting", "minilm": "MiniLM sentence embeddings, STS-B"}
"""Titles of results that hold none."""
NOTED_DROP = re.compile(r"drop (-?[\d.]+) points")

README_COLUMNS = (
    ("agreement with float", "与浮点模型一致", ("agreement",)),
    ("drop", "精度下降", ("drop",)),
    ("speed", "速度", ("speed",)),
    ("size", "体积", ("size of the model",)),
    ("codes equal to the referee", "与整数参照相同的码", PARITY),
)
"""Heading in English and Chinese, and how the row that goes there begins."""

WORDS = {
    "model": {"en": "model", "zh": "模型"},
    "others": {"en": "other tools", "zh": "其他工具"},
    "none": {
        "en": "*Not measured in this checkout: `make bench` writes `benchmarks/results/`.*",
        "zh": "*此版本尚无测量结果：`make bench` 会写入 `benchmarks/results/`。*",
    },
    "measured": {
        "en": "One thread, batch 1; in brackets the 95 % interval. Measured {date} on {machine}.",
        "zh": "单线程，批大小 1；括号内为 95 % 区间。测量于 {date}，{machine}。",
    },
}


def table(name: str, language: str) -> str:
    """A table, or all of them, as Markdown.

    Args:
        name: ``readme`` for one row a model, ``all`` for every figure of every benchmark, ``support`` and ``kernels``
            for what runtimes were seen to do and what they have kernels for, ``methods`` for what methods do.
        language: ``en`` or ``zh``.
    """
    made = support.TABLES | method_table.TABLES
    if name in made:
        return made[name](language)
    found = list(results())
    if not found:
        return WORDS["none"][language]
    if name == "readme":
        return "\n".join(_one_row_a_model(found, language))
    if name == "all":
        return "\n".join(line for result in found for line in _every_figure(result))
    raise ValueError(f"there is no table {name!r}")


def results() -> Iterator[Result]:
    """The results of this checkout, in the order of their names.

    Raises:
        ValueError: One of them is of a quick run, on too little data to be published.
    """
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "--quick" in str(result.get("command")).split():
            raise ValueError(f"{path.name} is of a run with --quick: measure it in full")
        yield result


def _one_row_a_model(found: list[Result], language: str) -> Iterator[str]:
    zh = language == "zh"
    ours = (r for r in found if r.get("rows") and str(r.get("name")) in BEST_KNOWN_FIRST)
    shown = [r for r in ours if _starting(r["rows"], ("speed",)) is not None]
    shown.sort(key=_place)
    headings = [WORDS["model"][language], *(column[zh] for column in README_COLUMNS)]
    yield _line(headings)
    yield "|---" * len(headings) + "|"
    for result in shown:
        cells = (_cell(result["rows"], column[2]) for column in README_COLUMNS)
        yield _line([_title(result), *cells])
    if shown:
        yield ""
        yield WORDS["measured"][language].format(**_when_and_where(shown[0]))


def _place(result: Result) -> float:
    """Best known models first, the smallest one last."""
    return BEST_KNOWN_FIRST.index(str(result.get("name")))


def _cell(rows: list[Row], beginnings: tuple[str, ...]) -> str:
    """One figure of a model, or a dash; for the referee its verdict where no share of codes was measured."""
    row = _starting(rows, beginnings)
    if row is None and beginnings == ("drop",):
        noted = (NOTED_DROP.search(str(r.get("note", ""))) for r in rows)
        return next((f"{float(found[1]):.4g} points" for found in noted if found), DASH)
    if row is None:
        return DASH
    verdict = VERDICT.search(str(row.get("note", "")))
    if beginnings == PARITY and verdict and row.get("unit") != "%":
        return verdict[1]
    return _measured(row)


def _starting(rows: list[Row], beginnings: tuple[str, ...]) -> Row | None:
    """The first row whose subject names one of the words (``top-1 drop`` and ``Spearman drop`` are drops)."""
    return next((r for r in rows if any(b in str(r.get("what", "")) for b in beginnings)), None)


def _title(result: Result) -> str:
    name = str(result.get("name"))
    named = (result.get("details") or {}).get("title") or TITLES.get(name) or result.get("name")
    return str(named or result.get("benchmark"))


def _every_figure(result: Result) -> Iterator[str]:
    yield f"### {_title(result)}"
    yield ""
    rows = result.get("rows") or []
    if rows and "what" in rows[0]:
        yield _line(["what", "measured", "aimed at", "other tools"])
        yield "|---|---|---|---|"
        for row in rows:
            note = f"<br>*{row['note']}*" if row.get("note") else ""
            aim = {None: "", True: ": met", False: ": **not met**"}[row.get("met")]
            target = f"{row['target']}{aim}" if row.get("target") else DASH
            yield _line([row["what"] + note, _measured(row), target, _others(row)])
    yield ""
    if architectures := (result.get("details") or {}).get("architectures"):
        yield from _captured(architectures)
        yield ""
    yield _measured_when(result)
    yield ""


def _measured_when(result: Result) -> str:
    facts = _when_and_where(result)
    when = f"Measured {facts['date']}" if result.get("date") else "Measured"
    commit = f", commit {facts['commit']}" if result.get("commit") else ""
    command = f": `{result['command']}`" if result.get("command") else ""
    return f"{when} on {facts['machine']}{commit}{command}."


def _captured(rows: list[Row]) -> Iterator[str]:
    """What capturing gave: equal output in every shape tried, in training mode, and captured once more."""
    good = sum(not row.get("failed") and all(row["equal"].values()) for row in rows)
    yield f"{good} of {len(rows)} architectures are captured with an output equal to the bit in every shape tried."
    yield ""
    yield _line(["architecture", "layers", "CPU s", "output", "in training mode", "captured again"])
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if row.get("failed"):
            reason = str(row["failed"]).splitlines()[0]
            yield _line([row["name"], DASH, DASH, f"not captured: {reason}", DASH, DASH])
            continue
        tried = len(row["equal"])
        output = f"equal in {tried} shapes" if all(row["equal"].values()) else "**differs**"
        modes = (
            "equal" if row.get(key) else "differs"
            for key in ("equal_in_train_mode", "captures_again")
        )
        yield _line([row["name"], str(row["layers"]), f"{row['cpu_seconds']:.1f}", output, *modes])


def _measured(row: Row) -> str:
    text = with_unit(row["figure"], row.get("unit") or "")
    interval = row.get("interval")
    return f"{text} ({interval[0]:.4g} … {interval[1]:.4g})" if interval else text


def _others(row: Row) -> str:
    unit = row.get("unit") or ""
    listed = (f"{o['tool']} {with_unit(o['figure'], unit)}" for o in row.get("others") or ())
    return ", ".join(listed) or DASH


def with_unit(value: float | str, unit: str) -> str:
    """A figure as people write it: ``91 %``, ``2.3×``, ``0.004``."""
    if isinstance(value, str):
        return value
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text}×" if unit == "×" else f"{text} {unit}".strip()


def _when_and_where(result: Result) -> dict[str, str]:
    environment = result.get("environment") or {}
    versions = environment.get("versions") or {}
    machine = [
        environment.get("cpu"),
        environment.get("isa"),
        *(f"{name} {versions[name]}" for name in ("onnxruntime", "torch") if name in versions),
    ]
    return {
        "date": str(result.get("date") or "at an unknown date"),
        "machine": ", ".join(str(part) for part in machine if part),
        "commit": str(result.get("commit") or "unknown")[:12],
    }


def _line(cells: list[str]) -> str:
    return (
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    )
