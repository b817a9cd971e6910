"""What was done to the model, in plain words: bits, and the arithmetic they are computed in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kompakt.report.draft import Draft


def chosen(draft: Draft) -> str:
    """The scheme by name with what it means: ``w4-g32 (4-bit weights, float arithmetic)``."""
    name = str(draft.record.get("scheme_name") or "")
    meant = recipe(draft)
    if not name or not meant:
        return name or meant
    return draft.say("recipe.named", name=name, recipe=meant)


def recipe(draft: Draft) -> str:
    """What most layers hold and how they compute; empty where the record does not say."""
    treatment = draft.part("scheme").get("default")
    if not isinstance(treatment, Mapping):
        return ""
    mode, weight = treatment.get("mode"), _bits(treatment.get("weight"))
    activation = _bits(treatment.get("activation"))
    if mode == "static" and str(treatment.get("weight")).startswith("fp8"):
        return draft.say("recipe.static.float", weight=weight)
    if mode == "static" and weight != activation and activation:
        return draft.say("recipe.static.two", weight=weight, activation=activation)
    if mode in ("static", "dynamic", "weight_only") and weight:
        return draft.say(f"recipe.{mode}", weight=weight)
    return draft.say("recipe.float") if mode == "float" else ""


def _bits(name: object) -> str:
    """The bits in a format's name: 8 of ``int8_narrow``, 16 of ``bf16``."""
    found = re.search(r"\d+", str(name or ""))
    return found.group() if found else ""
