"""How ATen calls are written in TFLite: one function for each operator, found by its name.

A form gets the graph, the node and the call's arguments by schema name, appends TFLite operators and returns the
value(s) they make. Where its inputs hold codes and a quantizer follows, it computes on codes; else in float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, fx

from kompakt.network.kinds import kind_of
from kompakt.network.operators import value
from kompakt.targets.litert_emitter import (
    Emitter,
    Form,
    Grid,
    NoForm,
    Value,
    dtype_name,
    plain,
)

FORMS: dict[str, Form] = {}

NONE, RELU, RELU6 = 0, 1, 3
FIXED: dict[str, dict[str, Grid]] = {
    "LOGISTIC": {"int8": Grid(1 / 256, -128, "int8"), "int16": Grid(1 / 32768, 0, "int16")},
    "SOFTMAX": {"int8": Grid(1 / 256, -128, "int8"), "int16": Grid(1 / 32768, 0, "int16")},
    "TANH": {"int8": Grid(1 / 128, 0, "int8"), "int16": Grid(1 / 32768, 0, "int16")},
}
"""The grids the specification fixes for the outputs of some operators."""


def form(*names: str) -> Callable[[Form], Form]:
    """Register a form for these operators."""

    def register(function: Form) -> Form:
        FORMS.update(dict.fromkeys(names, function))
        return function

    return register


def epilogue(e: Emitter, node: fx.Node) -> tuple[fx.Node, int]:
    """The last call of the operator that starts at ``node``, and the activation it ends with."""
    users = list(node.users)
    kind = kind_of(users[0]) if len(users) == 1 else ""
    if kind not in ("relu", "relu6"):
        return node, NONE
    e.fused[node] = users[0]
    return users[0], RELU if kind == "relu" else RELU6


# Element by element


def unary(op_type: str, options: str = "", *, integer: bool = False, **settings: Any) -> Form:
    """An operator on one tensor, in any order.

    Args:
        op_type: Its name.
        options: The table its settings are in.
        integer: Whether it has a kernel for codes.
        settings: Its settings.
    """

    def write(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
        x = e.get(a["self"])
        grid = e.grid_behind(node) if integer and x.grid is not None else None
        if grid is not None and op_type in FIXED:
            grid = FIXED[op_type][grid.dtype]
        x = x if grid is not None else e.as_float(x)
        made = e.result(node, x.order, grid)
        e.op(op_type, (x.tensor,), (made.tensor,), options, **settings)
        return made

    return write


for _name, _op_type, _options in (
    ("neg", "NEG", "NegOptions"), ("exp", "EXP", "ExpOptions"), ("log", "LOG", ""),
    ("sqrt", "SQRT", ""), ("rsqrt", "RSQRT", ""), ("sin", "SIN", ""), ("cos", "COS", "CosOptions"),
    ("abs", "ABS", "AbsOptions"), ("sign", "SIGN", "SignOptions"), ("ceil", "CEIL", ""),
    ("floor", "FLOOR", ""), ("round", "ROUND", ""), ("square", "SQUARE", "SquareOptions"),
    ("elu", "ELU", ""),
):  # fmt: skip
    FORMS[f"aten.{_name}"] = unary(_op_type, _options)
for _name, _op_type, _options in (
    ("relu", "RELU", ""), ("relu6", "RELU6", ""), ("sigmoid", "LOGISTIC", ""), ("tanh", "TANH", ""),
    ("hardswish", "HARD_SWISH", "HardSwishOptions"),
):  # fmt: skip
    FORMS[f"aten.{_name}"] = unary(_op_type, _options, integer=True)


@form("aten.leaky_relu")
def _leaky_relu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    alpha = float(a["negative_slope"])
    return unary("LEAKY_RELU", "LeakyReluOptions", integer=True, alpha=alpha)(e, node, a)  # type: ignore[no-any-return]


@form("aten.gelu")
def _gelu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    approximate = a["approximate"] == "tanh"
    return unary("GELU", "GeluOptions", approximate=approximate)(e, node, a)  # type: ignore[no-any-return]


@form("aten.silu")
def _silu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    x = e.as_float(e.get(a["self"]))
    gate, made = e.result(node, x.order), e.result(node, x.order)
    e.op("LOGISTIC", (x.tensor,), (gate.tensor,))
    e.op("MUL", (x.tensor, gate.tensor), (made.tensor,), "MulOptions")
    return made


@form("aten.hardsigmoid")
def _hardsigmoid(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    x = e.as_float(e.get(a["self"]))
    shifted, made = e.result(node, x.order), e.result(node, x.order)
    three, sixth = e.constant([3.0], "float32"), e.constant([1 / 6], "float32")
    e.op("ADD", (x.tensor, three), (shifted.tensor,), "AddOptions", fusedActivationFunction=RELU6)
    e.op("MUL", (shifted.tensor, sixth), (made.tensor,), "MulOptions")
    return made


@form("aten.clamp", "aten.hardtanh", "aten.clip", "aten.clamp_min", "aten.clamp_max")
def _clamp(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    low, high = a.get("min_val", a.get("min")), a.get("max_val", a.get("max"))
    if any(isinstance(limit, fx.Node) for limit in (low, high)):
        raise NoForm("limits that are tensors")
    limits: dict[Any, str] = {(0, None): "RELU", (0, 6): "RELU6", (-1, 1): "RELU_N1_TO_1"}
    known = limits.get((low, high))
    if known is not None:
        return unary(known, integer=known != "RELU_N1_TO_1")(e, node, a)  # type: ignore[no-any-return]
    x = e.as_float(e.get(a["self"]))
    for limit, name in ((low, "MAXIMUM"), (high, "MINIMUM")):
        if limit is not None:
            made = e.result(node, x.order, dtype=x.dtype)
            inputs = (x.tensor, e.constant([limit], x.dtype))
            e.op(name, inputs, (made.tensor,), "MaximumMinimumOptions")
            x = made
    return x


def aligned(e: Emitter, arguments: Sequence[Any], dtype: str) -> list[Value]:
    """Operands that are computed with element by element, in one order; numbers become constants."""
    nodes = [a for a in arguments if isinstance(a, fx.Node) and isinstance(value(a), Tensor)]
    ranks = {value(n).dim() for n in nodes if value(n).numel() != 1 or len(nodes) == 1}
    order = None
    if len(ranks) == 1:
        moving = [n for n in nodes if e.tensors[e.get(n).tensor].content is None] or nodes
        orders = [e.get(n).order for n in moving if value(n).dim() in ranks]
        order = next((o for o in orders if o != plain(len(o))), orders[0] if orders else None)
    found = []
    for argument in arguments:
        if argument not in nodes:
            if isinstance(argument, fx.Node):
                raise NoForm("arithmetic with a symbolic size")
            constant = e.constant([argument], dtype)
            found.append(Value(constant, (0,), None, dtype))
        elif order is not None and value(argument).dim() == len(order):
            found.append(e.get(argument, order))
        else:
            found.append(e.plain(argument))
    return found


def _binary(op_type: str, options: str, *, integer: bool) -> Form:
    def write(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
        if a.get("alpha", 1) != 1 or a.get("rounding_mode") is not None:
            raise NoForm(f"{op_type} with a factor or with rounding")
        return binary(e, node, op_type, options, (a["self"], a["other"]), integer=integer)

    return write


def binary(
    e: Emitter,
    node: fx.Node,
    op_type: str,
    options: str,
    operands: Sequence[Any],
    *,
    integer: bool = False,
) -> Value:
    """An operator on two tensors or numbers, with the activation behind it."""
    kind = dtype_name(value(node).dtype)
    found = aligned(e, operands, kind)
    end, activation = epilogue(e, node)
    on_codes = integer and all(v.grid is not None for v in found)
    grid = e.grid_behind(end) if on_codes else None
    if grid is None:
        found = [e.as_float(v) for v in found]
    if any(v.dtype != found[0].dtype for v in found):
        raise NoForm(f"{op_type} of different types")
    order = max((v.order for v in found), key=len)
    if len(order) != value(node).dim():
        order = plain(value(node).dim())
    made = e.result(end, order, grid)
    settings = {"fusedActivationFunction": activation}
    e.op(op_type, [v.tensor for v in found], (made.tensor,), options, **settings)
    return made


for _name, _op_type, _options, _integer in (
    ("add", "ADD", "AddOptions", True), ("sub", "SUB", "SubOptions", True),
    ("mul", "MUL", "MulOptions", True), ("div", "DIV", "DivOptions", False),
):  # fmt: skip
    FORMS[f"aten.{_name}"] = _binary(_op_type, _options, integer=_integer)


@form("aten.rsub")
def _rsub(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    return binary(e, node, "SUB", "SubOptions", (a["other"], a["self"]))


@form("aten.reciprocal")
def _reciprocal(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    return binary(e, node, "DIV", "DivOptions", (1.0, a["self"]))


@form("aten.pow")
def _pow(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    if isinstance(a["exponent"], fx.Node) or isinstance(a["self"], int | float):
        raise NoForm("a power of two tensors")
    if a["exponent"] == 2:
        return unary("SQUARE", "SquareOptions")(e, node, a)  # type: ignore[no-any-return]
    x = e.as_float(e.get(a["self"]))
    made = e.result(node, x.order)
    inputs = (x.tensor, e.constant([a["exponent"]], "float32"))
    e.op("POW", inputs, (made.tensor,), "PowOptions")
    return made


@form("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax")
def _softmax(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    rank = value(node).dim()
    dim = int(a["dim"]) % rank
    found = e.get(a["self"])
    last = (*(d for d in found.order if d != dim), dim)
    x = e.get(a["self"], last)
    if "log" in str(node.target):
        x = e.as_float(x)
        made = e.result(node, last)
        e.op("LOG_SOFTMAX", (x.tensor,), (made.tensor,), "LogSoftmaxOptions")
        return made
    grid = e.grid_behind(node) if x.grid is not None else None
    grid = FIXED["SOFTMAX"][grid.dtype] if grid is not None else None
    x = x if grid is not None else e.as_float(x)
    made = e.result(node, last, grid)
    e.op("SOFTMAX", (x.tensor,), (made.tensor,), "SoftmaxOptions", beta=1.0)
    return made


@form("aten.to", "aten._to_copy", "aten.type_as")
def _to(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    x = e.as_float(e.get(a["self"]))
    kind = dtype_name(value(node).dtype)
    if x.dtype == kind:
        return x
    made = e.result(node, x.order)
    e.op("CAST", (x.tensor,), (made.tensor,), "CastOptions")
    return made


@form(
    "aten.contiguous", "aten.alias", "aten.detach", "aten.clone", "aten.lift_fresh_copy",
    "aten.lift_fresh", "aten.dropout",
)  # fmt: skip
def _same(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    if a.get("train"):
        raise NoForm("dropout in train mode")
    return e.get(a["self"] if "self" in a else a["input"])


__all__ = ["FIXED", "FORMS", "binary", "epilogue", "form"]
