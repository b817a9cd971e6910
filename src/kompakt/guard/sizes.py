"""Sizes of the values of a graph, as far as they follow from the file: a few bytes must not unfold into gigabytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from kompakt.guard.limits import Limits
from kompakt.guard.refusals import TOO_LARGE, named, refusal
from kompakt.guard.tensors import BITS

INVENTING = frozenset(
    {
        *("ConstantOfShape", "Expand", "Range", "Tile", "OneHot", "EyeLike", "RandomNormal"),
        *("RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"),
        *("HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"),
    }
)
"""Operators whose result can be much larger than all they read."""


def check_sizes(model: Any, file: str, limits: Limits) -> None:
    """Check the size of every value whose shape was inferred.

    Args:
        model: A ``ModelProto`` with inferred shapes.
        file: Its name, for messages.
        limits: What is too large.

    Raises:
        CaptureError: K141 with the value.
    """
    constant = 0
    for graph in graphs_of(model.graph):
        shapes = {v.name: v.type for v in (*graph.value_info, *graph.output, *graph.input)}
        for value in graph.input:
            _check(value.name, _bytes(value.type, 2), limits.input_bytes, "input", file)
        stored = {tensor.name for tensor in graph.initializer}
        known = set(stored)
        for node in graph.node:
            fixed = all(name in known for name in node.input if name) and not _holds_graphs(node)
            fixed = fixed or node.op_type in ("Shape", "Size")
            most = limits.invented_bytes if node.op_type in INVENTING else limits.value_bytes
            for name in (n for n in node.output if n):
                size = _bytes(shapes[name]) if name in shapes else 0
                _check(name, size, most, f"result of {node.op_type}", file)
                if fixed:
                    known.add(name)
                    constant += size
        if constant > limits.constant_bytes:
            why = f"its constants unfold into {constant} bytes; {limits.constant_bytes} are allowed"
            raise refusal(TOO_LARGE, file, why)


def _check(name: str, size: int, most: int, kind: str, file: str) -> None:
    if size > most:
        why = f"it would take {size} bytes; {most} are allowed"
        raise refusal(TOO_LARGE, file, why, f"{named('value', name)}, the {kind[:60]}")


def _bytes(kind: Any, unknown: int = 0) -> int:
    """Bytes of a value of this type, with this number for each unknown size."""
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return 0
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
    sizes = [unknown if size < 0 else size for size in sizes]
    return math.prod(sizes) * BITS.get(tensor.elem_type, 64) // 8


def graphs_of(graph: Any) -> Iterator[Any]:
    """A graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_of(inner)


def _holds_graphs(node: Any) -> bool:
    return any(len(a.g.node) or len(a.graphs) for a in node.attribute)
