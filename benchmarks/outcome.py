"""What a benchmark found: rows of figures with their targets, and the file they are kept in.

One JSON file a benchmark, ``benchmarks/results/NAME.json``; the tables of the documentation are
made from its ``rows``.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rich.table import Table

from kompakt.measuring.environment import environment

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


@cache
def _published() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((HERE / "published.json").read_text(encoding="utf-8"))
    return data


def published(name: str) -> list[dict[str, Any]]:
    """What other tools reach, as ``[{"tool", "figure"}]``; see ``published.json`` for its source."""
    return [dict(entry) for entry in _published()["figures"][name]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        what: What was measured, in a few words.
        figure: The measured value; text where there is no number.
        unit: ``%``, ``×``, ``MB`` …; empty for a plain number.
        at_least: The least value aimed at.
        at_most: The largest value aimed at.
        met: Whether the target is met, where it cannot be read off ``at_least`` and ``at_most``.
        target: The target in words, in that case.
        others: Name in ``published.json`` of what others reach, or the figures themselves.
        interval: Confidence interval of the figure.
        note: What else one must know to read it.
    """

    what: str
    figure: float | str
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    met: bool | None = None
    target: str | None = None
    others: str | Sequence[Mapping[str, Any]] = ()
    interval: Sequence[float] | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.at_least is None and self.at_most is None:
            return self.met
        if isinstance(self.figure, str):
            return False
        high_enough = self.at_least is None or self.figure >= self.at_least
        return high_enough and (self.at_most is None or self.figure <= self.at_most)

    @property
    def target_text(self) -> str | None:
        """The target in words."""
        if self.at_least is not None:
            return f"≥ {with_unit(self.at_least, self.unit)}"
        if self.at_most is not None:
            return f"≤ {with_unit(self.at_most, self.unit)}"
        return self.target

    def to_json(self) -> dict[str, Any]:
        """The row as it is stored."""
        others = published(self.others) if isinstance(self.others, str) else list(self.others)
        return {
            "what": self.what,
            "figure": self.figure,
            "unit": self.unit,
            "target": self.target_text,
            "met": self.is_met,
            "others": others,
            "interval": None if self.interval is None else [float(v) for v in self.interval],
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one benchmark found.

    Attributes:
        rows: The figures.
        details: Everything else worth keeping; JSON.
    """

    rows: Sequence[Row]
    details: Mapping[str, Any] = field(default_factory=dict)


def commit() -> str:
    """The commit of the code, with ``-dirty`` where files differ from it."""

    def git(*arguments: str) -> str:
        found = subprocess.run(
            ["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False
        )
        return found.stdout.strip()

    changed = git("status", "--porcelain", "--", "..", ":!results")
    return (git("rev-parse", "HEAD") or "unknown") + ("-dirty" if changed else "")


def document(name: str, outcome: Outcome, *, command: str, seed: int) -> dict[str, Any]:
    """An outcome with all that makes it repeatable."""
    return {
        "name": name,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": command,
        "commit": commit(),
        "seed": seed,
        "environment": environment(),
        "rows": [row.to_json() for row in outcome.rows],
        "details": dict(outcome.details),
    }


def save(result: Mapping[str, Any], folder: Path) -> Path:
    """Write a result to ``folder/NAME.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    partial = path.with_suffix(".partial")
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def with_unit(value: float | str, unit: str) -> str:
    """A figure as people write it: ``91 %``, ``2.3×``, ``0.004``."""
    if isinstance(value, str):
        return value
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text}×" if unit == "×" else f"{text} {unit}".strip()


def table(result: Mapping[str, Any]) -> Table:
    """A result's rows for the terminal."""
    shown = Table(title=str(result["name"]), title_justify="left", show_lines=False)
    for heading in ("what", "target", "measured", "met", "others"):
        shown.add_column(heading, overflow="fold")
    for row in result["rows"]:
        measured = with_unit(row["figure"], row["unit"])
        if row["interval"]:
            low, high = row["interval"]
            measured += f" [{low:.4g}, {high:.4g}]"
        others = ", ".join(f"{o['tool']} {with_unit(o['figure'], '')}" for o in row["others"])
        met = {None: "", True: "yes", False: "NO"}[row["met"]]
        what = row["what"] + (f"\n  ({row['note']})" if row["note"] else "")
        shown.add_row(*map(_plain, (what, row["target"] or "", measured, met, others)))
    return shown


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
