"""What ``kompakt explain`` can explain: every registry's names, and where each one's text stands.

The texts are the docstrings of the code that does the work, so they cannot go stale on their own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kompakt.numerics.granularity import Granularity, PerGroup, PerTensor, PerToken
from kompakt.schemes import Scheme, Treatment

Article = Callable[[], str]

AUTOMATIC_ISAS = ("x86", "x86-vnni", "arm", "any")
KINDS = {
    "binary": "each sample is right or wrong, or partly so",
    "bounded": "each sample has a score within bounds",
    "unbounded": "each sample has a score",
    "corpus": "one figure for all samples together",
}


def articles() -> dict[str, dict[str, Article]]:
    """For each kind of thing, its names and what gives the text about each."""
    from kompakt.measuring.metrics import METRICS
    from kompakt.numerics.formats import FORMATS
    from kompakt.observe import OBSERVERS
    from kompakt.schemes import PRESETS
    from kompakt.targets import TARGETS

    executed = _executed_formats()
    return {
        "observer": {name: partial(_module_text, type(o)) for name, o in OBSERVERS.items()},
        "scheme": {name: partial(_scheme_text, make) for name, make in PRESETS.items()},
        "target": {name: partial(_target_text, target) for name, target in TARGETS.items()},
        "metric": {name: partial(_metric_text, metric) for name, metric in METRICS.items()},
        "method": {name: partial(_module_text, m) for name, m in _methods().items()},
        "format": {
            **{name: partial(_format_text, FORMATS[name]) for name in FORMATS if name in executed},
            **{name: partial(_automatic_text, name) for name in ("auto8", "auto16")},
        },
    }


def other_formats() -> dict[str, Article]:
    """Number formats that can be simulated, but that no runtime here executes."""
    from kompakt.numerics.formats import FORMATS

    known = _executed_formats()
    return {name: partial(_format_text, fmt) for name, fmt in FORMATS.items() if name not in known}


def _executed_formats() -> set[str]:
    """Every format that a layer's weights or an activation can have in some runtime's file."""
    from kompakt.targets import TARGETS

    found = {"fp32"}
    for target in TARGETS.values():
        rules = target.rules("any")
        found |= rules.activation_formats
        found.update(*rules.weight_formats.values())
    return found


def _methods() -> Mapping[str, Any]:
    methods: Mapping[str, Any] = getattr(importlib.import_module("kompakt.quantize"), "METHODS", {})
    return {name: method.run for name, method in methods.items()}


def _module_text(thing: Any) -> str:
    return _plain(inspect.getdoc(importlib.import_module(thing.__module__)) or "")


def _plain(text: str) -> str:
    """A docstring for the terminal: without examples for Python and without its markup."""
    paragraphs = [part for part in text.split("\n\n") if not part.lstrip().startswith(">>>")]
    return "\n\n".join(paragraphs).replace("``", "")


def _scheme_text(make: Callable[..., Scheme]) -> str:
    scheme = make()
    return "\n".join(
        [
            _plain(inspect.getdoc(make) or ""),
            "",
            f"layers      {_treatment(scheme.default)}",
            f"embeddings  {_treatment(scheme.embedding)}",
            f"calibration {'needed' if scheme.needs_calibration else 'not needed'}",
        ]
    )


def _treatment(treatment: Treatment) -> str:
    if treatment.mode == "float":
        return "float"
    activations = f", activations {treatment.activation}" if treatment.activation else ""
    mode = treatment.mode.replace("_", "-")
    scales = f", {_scales(treatment.granularity)}" if _is_integer(treatment.weight) else ""
    return f"{mode}: weights {treatment.weight}{scales}{activations}"


def _is_integer(name: str | None) -> bool:
    from kompakt.numerics.formats import get_format

    return name is not None and get_format(name).kind == "int"


def _scales(granularity: Granularity) -> str:
    """How many scales there are, in words."""
    if isinstance(granularity, PerGroup):
        return f"a scale for each {granularity.size} in a row"
    return {PerTensor: "one scale", PerToken: "a scale for each token"}.get(
        type(granularity), "a scale for each output channel or row"
    )


def _target_text(target: Any) -> str:
    rules = target.rules("any")
    version = target.version()
    floats = [f"  {kind}: {why}" for kind, why in sorted(rules.reasons.items())]
    return "\n".join(
        [
            _module_text(target.write),
            "",
            f"installed       {version or 'no'}",
            f"static layers   {', '.join(sorted(rules.static_layers))}",
            f"dynamic layers  {', '.join(sorted(rules.dynamic_layers))}",
            f"weights only    {', '.join(sorted(rules.weight_only_layers))}",
            f"other integer   {', '.join(sorted(rules.integer_operators))}",
            f"rounding        {rules.rounding}",
            "",
            "stays float:",
            *floats,
        ]
    )


def _metric_text(metric: Any) -> str:
    needs = [word for word, is_needed in _needs(metric).items() if is_needed]
    return "\n".join(
        [
            metric.about,
            "",
            f"better  {'higher' if metric.higher_is_better else 'lower'}",
            f"needs   {', '.join(needs) or 'nothing but the outputs'}",
            f"kind    {metric.kind}: {KINDS[metric.kind]}",
        ]
    )


def _needs(metric: Any) -> dict[str, bool]:
    return {"labels": metric.needs_labels, "the float model's outputs": metric.needs_reference}


def _format_text(fmt: Any) -> str:
    if fmt.kind == "float":
        return f"floating point of {fmt.bits} bits; up to ±{float(fmt.qmax):.6g}"
    sign = "signed" if fmt.signed else "unsigned"
    text = f"{sign} integer codes of {fmt.bits} bits; from {fmt.qmin:,} to {fmt.qmax:,}"
    if fmt.is_narrow:
        text += "\n\nThe lowest code is left out, so that the range is symmetric."
    if fmt.name not in _executed_formats():
        text += "\n\nIt can be simulated; no runtime here executes it."
    return text


def _automatic_text(name: str) -> str:
    from kompakt.targets import TARGETS

    bits = name.removeprefix("auto")
    lines = [
        f"  {target.name} on {isa}: {target.rules(isa).activation_format(name)}"
        for target in TARGETS.values()
        for isa in AUTOMATIC_ISAS
    ]
    return "\n".join(
        [
            f"{bits}-bit activations, signed or unsigned: whichever the target's processor executes",
            "fastest.",
            "",
            *lines,
        ]
    )
