"""Scales of quantized values: runtimes load NaN, infinity, zero and negative ones and compute nonsense with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.numpy_helper

from kompakt.guard.refusals import SCALE, named, refusal

SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QLinearAdd": (1, 4, 6),
    "QLinearMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
    "QLinearSigmoid": (1, 3),
    "QLinearLeakyRelu": (1, 3),
    "QLinearSoftmax": (1, 3),
    "QLinearGlobalAveragePool": (1, 3),
    "QLinearAveragePool": (1, 3),
    "MatMulIntegerToFloat": (2, 3),
    "DynamicQuantizeMatMul": (2,),
}
"""Which inputs of an operator are scales."""
FINITE_ONLY: dict[str, tuple[int, ...]] = {"MatMulNBits": (2,), "GatherBlockQuantized": (2,)}
"""Scales of packed weights, where other programs write zeros and negative numbers on purpose."""
FACTORS: dict[str, tuple[int, ...]] = {"Resize": (2,), "Upsample": (1,)}
"""Factors by which something grows."""


def check_scales(model: Any, file: str, folder: Path) -> None:
    """Check all scales that are constants.

    Args:
        model: A ``ModelProto``.
        file: Its name, for messages.
        folder: Where its tensors in other files are.

    Raises:
        CaptureError: K145 with the tensor and the node.
    """
    for nodes, constants in _scopes(model):
        for node in nodes:
            for table in (SCALES, FINITE_ONLY, FACTORS):
                for place in table.get(node.op_type, ()):
                    name = node.input[place] if place < len(node.input) else ""
                    tensor = constants.get(name)
                    fault = None if tensor is None else _fault(tensor, folder, table)
                    if fault is not None:
                        where = f"{named('tensor', name)}, read by "
                        where += named("node", node.name or next(iter(node.output), ""))
                        raise refusal(SCALE, file, f"a scale is {fault}", where)


def _fault(tensor: Any, folder: Path, table: dict[str, tuple[int, ...]]) -> str | None:
    """What is wrong with a tensor of scales."""
    numbers = np.asarray(onnx.numpy_helper.to_array(tensor, str(folder)))
    if numbers.dtype.kind not in "fV" and numbers.dtype.name not in ("bfloat16",):
        return "no number with a fraction" if table is SCALES else None
    smallest = _smallest_normal(numbers.dtype)
    values = numbers.astype(np.float64)
    for name, found in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
        if found.any():
            return name
    if table is FINITE_ONLY:
        return None
    if (values <= 0).any():
        return "zero" if (values == 0).any() else f"negative ({values.min():.3g})"
    if table is SCALES and (values < smallest).any():
        return f"too small to be exact ({values.min():.3g})"
    return None


def _smallest_normal(dtype: Any) -> float:
    return float(np.finfo(dtype).smallest_normal) if dtype.kind == "f" else 0.0


def _scopes(model: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The nodes of every graph and function with the constants that they can read."""
    waiting: list[tuple[Any, Any, dict[str, Any]]] = [(model.graph, model.graph.initializer, {})]
    waiting.extend((function, (), {}) for function in model.functions)
    while waiting:
        graph, initializers, outer = waiting.pop()
        constants = {**outer, **{tensor.name: tensor for tensor in initializers}}
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        constants[node.output[0]] = attribute.t
                    elif attribute.name in ("value_float", "value_floats"):
                        constants[node.output[0]] = _listed(attribute)
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    if len(inner.node):
                        waiting.append((inner, inner.initializer, constants))
        yield graph.node, constants


def _listed(attribute: Any) -> Any:
    given = attribute.floats if len(attribute.floats) else [attribute.f]
    return onnx.numpy_helper.from_array(np.array(given, np.float32))
