"""Attention in OpenVINO's own operator, which its CPU plugin runs as one kernel.

ONNX has attention as two matrix products around a softmax; OpenVINO's plugin recognises few spellings of that. Its
operator ``ScaledDotProductAttention`` computes the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Attention:
    """The values one attention reads, and the node that ends it."""

    query: Any
    key: Any
    value: Any
    factor: float
    mask: Any | None
    shielded: bool
    end: Any


def fuse_attention(model: Any) -> int:
    """Replace every attention that is spelled out by OpenVINO's operator, in place.

    A row whose every key is hidden attends to nothing (zeros), as before.

    Returns:
        How many were replaced.
    """
    found = [
        attention
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Softmax" and (attention := _attention(node)) is not None
    ]
    for attention in found:
        _replace(attention)
    return len(found)


def _attention(softmax: Any) -> _Attention | None:
    """The attention around a softmax, or None when it is no such thing."""
    scores, mask = _source(softmax, 0), None
    if scores.get_type_name() == "Add":
        mask, scores = scores.input_value(1), _source(scores, 0)
    if scores.get_type_name() != "MatMul" or _transposes(scores):
        return None
    query, key = _source(scores, 0), _source(scores, 1)
    factor = _number(_source(query, 1)) if query.get_type_name() == "Multiply" else None
    if factor is None or not _swaps_last_two(key):
        return None
    end, shielded = _single_reader(softmax), False
    if end is None:
        end, shielded = _behind_shield(softmax), True
    if end is None or end.get_type_name() != "MatMul" or _transposes(end):
        return None
    return _Attention(
        query.input_value(0), key.input_value(0), end.input_value(1), factor, mask, shielded, end
    )


def _replace(found: _Attention) -> None:
    import numpy as np
    from openvino import opset13 as operators

    zero = operators.constant(np.float32(0))
    factor = operators.constant(np.float32(found.factor))
    result = operators.scaled_dot_product_attention(
        found.query,
        found.key,
        found.value,
        attention_mask=found.mask if found.mask is not None else zero,
        scale=factor,
    )
    result.set_friendly_name(found.end.get_friendly_name())
    if found.shielded:
        result = operators.select(operators.is_nan(result), zero, result)
    names = found.end.output(0).get_names()
    for reader in list(found.end.output(0).get_target_inputs()):
        reader.replace_source_output(result.output(0))
    result.output(0).add_names(names)


def _source(node: Any, place: int) -> Any:
    return node.input_value(place).get_node()


def _transposes(product: Any) -> bool:
    settings = product.get_attributes()
    return bool(settings.get("transpose_a") or settings.get("transpose_b"))


def _swaps_last_two(node: Any) -> bool:
    if node.get_type_name() != "Transpose" or _source(node, 1).get_type_name() != "Constant":
        return False
    order = [int(axis) for axis in _source(node, 1).data]
    rank = len(order)
    return order == [*range(rank - 2), rank - 1, rank - 2]


def _number(node: Any) -> float | None:
    """The value of a constant of one element."""
    if node.get_type_name() != "Constant" or node.data.size != 1:
        return None
    return float(node.data.reshape(-1)[0])


def _readers(node: Any) -> list[Any]:
    return [reader.get_node() for reader in node.output(0).get_target_inputs()]


def _single_reader(node: Any) -> Any | None:
    readers = _readers(node)
    return readers[0] if len(readers) == 1 else None


def _behind_shield(softmax: Any) -> Any | None:
    """The reader of ``Select(IsNaN(x), 0, x)``, where nothing else reads the softmax."""
    readers = {reader.get_type_name(): reader for reader in _readers(softmax)}
    if set(readers) != {"IsNaN", "Select"} or len(_readers(softmax)) != 2:
        return None
    select = readers["Select"]
    if _source(select, 0) != readers["IsNaN"] or _number(_source(select, 1)) != 0.0:
        return None
    return _single_reader(select)
