"""Tables of what runtimes do: seen (``benchmarks/results/support.json``) and by their rules (``kompakt.targets``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "support.json"
NETWORKS = ("CNN", "MLP", "transformer")
MARKS = {"exact": "=", "within tolerance": "≈", "failed": "✗"}
WORDS = {
    "runtime": {"en": "runtime", "zh": "运行时"},
    "none": {"en": "*Not measured in this checkout.*", "zh": "*此版本尚无测量结果。*"},
    "legend": {
        "en": "Certified on a CNN / an MLP / a transformer block: **=** every code equal to the "
        "integer referee, or every output where the runtime shows no codes, **≈** within the stated tolerance, "
        "**–** refused with a reason.",
        "zh": "分别在 CNN / MLP / transformer 块上认证：**=** 每个码都与整数参考实现相同"
        "（运行时不显示码时，则每个输出相同），"
        "**≈** 在声明的容差内，**–** 附理由拒绝。",
    },
    "static": {"en": "static integer layers", "zh": "静态整数层"},
    "dynamic": {"en": "dynamic", "zh": "动态"},
    "weights": {"en": "compressed weights", "zh": "压缩权重"},
    "groups": {"en": "weight groups", "zh": "权重分组"},
    "operators": {"en": "integer operators without weights", "zh": "无权重的整数算子"},
    "formats": {"en": "activation formats", "zh": "激活格式"},
}


def seen(language: str) -> str:
    """Runtime × scheme, from what was seen."""
    if not FILE.is_file():
        return WORDS["none"][language]
    data = json.loads(FILE.read_text(encoding="utf-8"))
    found: Mapping[str, Mapping[str, Mapping[str, str]]] = (data.get("details") or data)["seen"]
    schemes = list(next(iter(found.values())))
    lines = [
        f"| {WORDS['runtime'][language]} | {' | '.join(f'`{s}`' for s in schemes)} |",
        "|" + "---|" * (len(schemes) + 1),
    ]
    for runtime, by_scheme in found.items():
        cells = [_cell(by_scheme[scheme]) for scheme in schemes]
        lines.append(f"| `{runtime}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", WORDS["legend"][language]])


def _cell(verdicts: Mapping[str, str]) -> str:
    marks = [MARKS.get(verdicts.get(net, ""), "–") for net in NETWORKS]
    return "–" if set(marks) == {"–"} else " ".join(marks)


def kernels(language: str) -> str:
    """Runtime × operator family, from the rules every target states."""
    from kompakt.targets import TARGETS

    keys = ("static", "dynamic", "weights", "groups", "operators", "formats")
    lines = [
        f"| {WORDS['runtime'][language]} | {' | '.join(WORDS[k][language] for k in keys)} |",
        "|" + "---|" * (len(keys) + 1),
    ]
    for name, target in TARGETS.items():
        rules = target.rules("x86-vnni")
        cells = (
            rules.static_layers,
            rules.dynamic_layers,
            rules.weight_only_layers,
            [str(n) for n in sorted(rules.group_sizes)] if rules.grouped_layers else [],
            rules.integer_operators | rules.pass_through,
            rules.activation_formats,
        )
        told = [", ".join(c if isinstance(c, list) else sorted(c)) or "–" for c in cells]
        lines.append(f"| `{name}` | {' | '.join(told)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[str], str]] = {"support": seen, "kernels": kernels}
