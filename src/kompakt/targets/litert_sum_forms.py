"""How sums are written in TFLite: reductions, normalisations, matrix products, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

from kompakt.network.operators import fixed_size, value
from kompakt.targets.litert_emitter import Emitter, Form, NoForm, Value, plain
from kompakt.targets.litert_operator_forms import FORMS, epilogue, form

# Reductions


def _reduction(op_type: str, *, integer: bool = False) -> Form:
    def write(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
        given = a.get("dim")
        rank = value(a["self"]).dim()
        dims = range(rank) if given in (None, []) else [given] if isinstance(given, int) else given
        return reduce(
            e, node, a["self"], op_type, list(dims), bool(a.get("keepdim")), integer=integer
        )

    return write


def reduce(
    e: Emitter,
    node: fx.Node,
    source: fx.Node,
    op_type: str,
    dims: Sequence[int],
    keep: bool,
    *,
    integer: bool = False,
) -> Value:
    """A reduction over dimensions of the network's tensor, in any order it is stored."""
    x, rank = e.get(source), value(source).dim()
    gone = {int(d) % rank for d in dims}
    grid = e.grid_behind(node) if integer and x.grid is not None else None
    x = x if grid is not None else e.as_float(x)
    places = [place for place, d in enumerate(x.order) if d in gone]
    order = x.order
    if not keep:
        left = [d for d in x.order if d not in gone]
        order = tuple(sorted(left).index(d) for d in left)
    made = e.result(node, order, grid)
    inputs = (x.tensor, e.constant(places, "int32"))
    e.op(op_type, inputs, (made.tensor,), "ReducerOptions", keepDims=keep)
    return made


for _name, _op_type in (("sum", "SUM"), ("amax", "REDUCE_MAX"), ("amin", "REDUCE_MIN")):
    FORMS[f"aten.{_name}"] = _reduction(_op_type)
FORMS["aten.mean"] = _reduction("MEAN", integer=True)


@form("kompakt.global_average_pool")
def _global_average_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    source = next(iter(a.values()))
    dims = range(2, value(source).dim())
    return reduce(e, node, source, "MEAN", list(dims), True, integer=True)


@form("aten.layer_norm")
def _layer_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    weight, bias = (None if a[n] is None else e.get(a[n]).tensor for n in ("weight", "bias"))
    dims = len(a["normalized_shape"])
    return normalise(e, node, a["input"], dims, float(a["eps"]), weight, bias)


def normalise(
    e: Emitter,
    node: fx.Node,
    source: fx.Node,
    dims: int,
    eps: float,
    weight: int | None,
    bias: int | None,
) -> Value:
    """(x − mean) / √(variance + eps) over the last ``dims`` dimensions, scaled and shifted by constants."""
    x, shape = e.as_float(e.plain(source)), list(value(source).shape)
    rank = len(shape)
    narrow = [*shape[:-dims], *([1] * dims)]
    axes = e.constant(list(range(rank - dims, rank)), "int32")

    def step(
        op_type: str, inputs: Sequence[int], sizes: list[Any], table: str, **given: Any
    ) -> int:
        made = e.new(sizes, plain(rank)).tensor
        e.op(op_type, inputs, (made,), table, **given)
        return made

    mean = step("MEAN", (x.tensor, axes), narrow, "ReducerOptions", keepDims=True)
    centred = step("SUB", (x.tensor, mean), shape, "SubOptions")
    squares = step("MUL", (centred, centred), shape, "MulOptions")
    variance = step("MEAN", (squares, axes), narrow, "ReducerOptions", keepDims=True)
    raised = step("ADD", (variance, e.constant([eps], "float32")), narrow, "AddOptions")
    last = step("MUL", (centred, step("RSQRT", (raised,), narrow, "")), shape, "MulOptions")
    if weight is not None:
        last = step("MUL", (last, weight), shape, "MulOptions")
    if bias is not None:
        last = step("ADD", (last, bias), shape, "AddOptions")
    return Value(last, plain(rank), None, "float32")


@form("aten.linalg_vector_norm")
def _vector_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    if a["ord"] != 2 or a["dim"] is None:
        raise NoForm("a norm of another order than 2, or of everything")
    x = e.as_float(e.get(a["self"]))
    squares = e.new(value(a["self"]).shape, x.order)
    e.op("MUL", (x.tensor, x.tensor), (squares.tensor,), "MulOptions")
    rank = value(a["self"]).dim()
    gone = {int(d) % rank for d in a["dim"]}
    places = [place for place, d in enumerate(x.order) if d in gone]
    left = [d for d in x.order if d not in gone]
    order = x.order if a["keepdim"] else tuple(sorted(left).index(d) for d in left)
    total, made = e.result(node, order), e.result(node, order)
    inputs = (squares.tensor, e.constant(places, "int32"))
    e.op("SUM", inputs, (total.tensor,), "ReducerOptions", keepDims=bool(a["keepdim"]))
    e.op("SQRT", (total.tensor,), (made.tensor,))
    return made


# Products


@form("aten.matmul", "aten.bmm", "aten.mm")
def _matmul(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    left, right = a["self"], a["other"] if "other" in a else a["mat2"]
    if min(value(left).dim(), value(right).dim()) < 2:
        raise NoForm("a product with a vector")
    x, y = (e.as_float(e.plain(n)) for n in (left, right))
    return product(e, node, x, y)


def product(e: Emitter, node: fx.Node, x: Value, y: Value, *, transposed: bool = False) -> Value:
    """A batched matrix product of floats; the second matrix may be given transposed."""
    made = e.result(node, plain(value(node).dim()))
    e.op(
        "BATCH_MATMUL", (x.tensor, y.tensor), (made.tensor,), "BatchMatMulOptions", adjY=transposed
    )
    return made


@form("aten.linear")
def _linear(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    x, weight = e.as_float(e.plain(a["input"])), e.plain(a["weight"])
    outputs = fixed_size(value(a["weight"]).shape[0])
    zeros = np.zeros(outputs or 0)
    bias = e.constant(zeros, "float32") if a["bias"] is None else e.plain(a["bias"]).tensor
    end, activation = epilogue(e, node)
    made = e.result(end, plain(value(node).dim()))
    e.op(
        "FULLY_CONNECTED", (x.tensor, weight.tensor, bias), (made.tensor,), "FullyConnectedOptions",
        fusedActivationFunction=activation, keepNumDims=value(node).dim() != 2,
    )  # fmt: skip
    return made


@form("aten.scaled_dot_product_attention")
def _attention(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    """Two matrix products and a softmax."""
    if a["is_causal"] or a["enable_gqa"] or a["dropout_p"] or a["attn_mask"] is not None:
        raise NoForm("causal, grouped or masked attention")
    width = fixed_size(value(a["query"]).shape[-1])
    if width is None:
        raise NoForm("attention of dynamic width")
    factor = 1.0 / math.sqrt(width) if a["scale"] is None else float(a["scale"])
    query, key, values = (e.as_float(e.plain(a[n])) for n in ("query", "key", "value"))
    rank = value(a["query"]).dim()
    shape = [*value(a["query"]).shape[:-1], value(a["key"]).shape[-2]]
    scaled = e.new(value(a["query"]).shape, plain(rank))
    scores, weights = e.new(shape, plain(rank)), e.new(shape, plain(rank))
    inputs = (query.tensor, e.constant([factor], "float32"))
    e.op("MUL", inputs, (scaled.tensor,), "MulOptions")
    e.op(
        "BATCH_MATMUL", (scaled.tensor, key.tensor), (scores.tensor,), "BatchMatMulOptions",
        adjY=True,
    )  # fmt: skip
    e.op("SOFTMAX", (scores.tensor,), (weights.tensor,), "SoftmaxOptions", beta=1.0)
    return product(e, node, weights, values)


__all__ = ["normalise", "product", "reduce"]
