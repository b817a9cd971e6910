"""Kinds of operators as placement needs them: finer than the network's where settings decide about codes."""

from __future__ import annotations

from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.operators import arguments, is_operator, operator_name

PAD_WITH_VALUE = "pad_value"
SCALED_ADD = "scaled_add"
NEAREST = "upsample_nearest"


def placing_kind(node: Node) -> str:
    """What ``node`` does, as :func:`~kompakt.network.kinds.kind_of` says it, with three finer words.

    * ``pad_value``: padding with another number than 0 makes new numbers, where other padding only moves some;
    * ``scaled_add``: ``torch.add(a, b, alpha=2)``, which no integer kernel computes in one step;
    * ``upsample_nearest``: repeats numbers, where other upsampling computes between them.
    """
    kind = kind_of(node)
    if kind == "pad" and padding_mode(node) == "constant" and _padding_value(node) != 0:
        return PAD_WITH_VALUE
    if kind == "add" and is_operator(node) and arguments(node).get("alpha", 1) != 1:
        return SCALED_ADD
    if kind == "upsample" and operator_name(node).startswith("aten.upsample_nearest"):
        return NEAREST
    return kind


def padding_mode(node: Node) -> str:
    """How a padding operator fills: ``constant``, ``reflect``, ``replicate`` or ``circular``."""
    return str(arguments(node).get("mode", "constant"))


def _padding_value(node: Node) -> float:
    value = arguments(node).get("value")
    return 0.0 if value is None else float(value)
