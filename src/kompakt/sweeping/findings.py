"""What a sweep found, as one plain document, and the files it is kept in."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kompakt.artifact.output import writing_errors
from kompakt.report.sweep import render_sweep
from kompakt.search.frontier import point_of, standings

PAGE, DATA, JOURNAL = "sweep.html", "sweep.json", "journal.jsonl"


def with_standings(rows: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows in order, each with its number, its standing, and the number of one that is better.

    Trials that were not finished, or whose file does not compute what was simulated, have no standing.
    """
    numbers = [n for n in sorted(rows) if rows[n].get("outcome") == "done"]
    found = standings([point_of(rows[n]) for n in numbers])
    placed = {
        n: (standing, None if better is None else numbers[better])
        for n, (standing, better) in zip(numbers, found, strict=True)
    }
    return [
        {"number": n, **rows[n], "standing": placed.get(n, (None, None))[0],
         "better": placed.get(n, (None, None))[1]}
        for n in sorted(rows)
    ]  # fmt: skip


def front_of(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the trials on the front, the most accurate first."""
    front = [row for row in rows if row["standing"] == "front"]

    def rank(row: Mapping[str, Any]) -> tuple[float, int, int]:
        drop = row["drop"] if row["drop"] is not None else row["output_error"]
        return (drop if drop is not None else 0.0, row["size_bytes"] or 0, row["number"])

    return [row["number"] for row in sorted(front, key=rank)]


def publish(document: Mapping[str, Any], folder: Path) -> None:
    """Write the page and the JSON, each whole or not at all.

    Raises:
        OutputError: K500–K502 when they cannot be written.
    """
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    with writing_errors(folder):
        _replace(folder / DATA, text + "\n")
        _replace(folder / PAGE, render_sweep(document))


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".sweep-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
