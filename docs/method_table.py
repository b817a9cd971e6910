"""The table of what each method does to each benchmark model (``benchmarks/results/methods.json``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "methods.json"
WORDS = {
    "none": {"en": "*Not measured in this checkout.*", "zh": "*此版本尚无测量结果。*"},
    "methods": {"en": "methods", "zh": "方法"},
    "plain": {"en": "none", "zh": "无"},
    "legend": {
        "en": "Written for ONNX Runtime and compared with the float file on test data: share of equal answers in %, "
        "for MiniLM the mean cosine of the outputs; below it the CPU seconds that building took. **–**: the method "
        "changes nothing there, or does not apply.",
        "zh": "写成 ONNX Runtime 文件，并在测试数据上与浮点文件比较：相同答案的百分比（MiniLM 为输出的平均余弦）；"
        "其后为构建所用的 CPU 秒数。**–**：该方法在此不适用。",
    },
}


def methods(language: str) -> str:
    """Methods × models."""
    if not FILE.is_file():
        return WORDS["none"][language]
    table = json.loads(FILE.read_text(encoding="utf-8"))["details"]["table"]
    subjects = list(dict.fromkeys(row["subject"] for row in table))
    found = {(row["subject"], tuple(row["methods"])): row for row in table}
    lines = [
        f"| {WORDS['methods'][language]} | {' | '.join(subjects)} |",
        "|" + "---|" * (len(subjects) + 1),
    ]
    for combination in dict.fromkeys(tuple(row["methods"]) for row in table):
        name = " + ".join(f"`{m}`" for m in combination) or WORDS["plain"][language]
        cells = [_cell(found.get((subject, combination))) for subject in subjects]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", WORDS["legend"][language]])


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["figure"] is None:
        return "–"
    figure = f"{row['figure']:.1f}" if row["unit"] == "%" else f"{row['figure']:.4f}"
    return f"{figure} ({row['cpu_s']:.0f} s)"


TABLES: dict[str, Callable[[str], str]] = {"methods": methods}
