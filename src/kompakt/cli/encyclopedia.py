"""What ``kompakt explain`` can explain: every registry's names, and where each one's text stands.

The texts are the docstrings of the code that does the work, so they cannot go stale on their own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kompakt.schemes import Scheme, Treatment

Article = Callable[[], str]


def articles() -> dict[str, dict[str, Article]]:
    """For each kind of thing, its names and what gives the text about each."""
    from kompakt.measuring.metrics import METRICS
    from kompakt.numerics.formats import FORMATS
    from kompakt.observe import OBSERVERS
    from kompakt.schemes import PRESETS
    from kompakt.targets import TARGETS

    return {
        "observer": {name: partial(_module_text, type(o)) for name, o in OBSERVERS.items()},
        "scheme": {name: partial(_scheme_text, make) for name, make in PRESETS.items()},
        "target": {name: partial(_target_text, target) for name, target in TARGETS.items()},
        "metric": {name: partial(_metric_text, metric) for name, metric in METRICS.items()},
        "method": {name: partial(_module_text, m) for name, m in _methods().items()},
        "format": {name: partial(_format_text, fmt) for name, fmt in FORMATS.items()},
    }


def _methods() -> Mapping[str, Any]:
    methods: Mapping[str, Any] = getattr(importlib.import_module("kompakt.quantize"), "METHODS", {})
    return methods


def _module_text(thing: Any) -> str:
    return inspect.getdoc(importlib.import_module(thing.__module__)) or ""


def _scheme_text(make: Callable[..., Scheme]) -> str:
    scheme = make()
    return "\n".join(
        [
            inspect.getdoc(make) or "",
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
    return f"{mode}: weights {treatment.weight} ({treatment.granularity}){activations}"


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
            inspect.getdoc(metric.per_sample) or "",
            "",
            f"better  {'higher' if metric.higher_is_better else 'lower'}",
            f"needs   {', '.join(needs) or 'nothing but the outputs'}",
            f"kind    {metric.kind}",
            "",
            _module_text(metric.per_sample),
        ]
    ).strip()


def _needs(metric: Any) -> dict[str, bool]:
    return {"labels": metric.needs_labels, "the float model's outputs": metric.needs_reference}


def _format_text(fmt: Any) -> str:
    return f"{fmt.bits} bits, {fmt.kind}; from {fmt.qmin:,} to {fmt.qmax:,}\n\n{_module_text(fmt)}"
