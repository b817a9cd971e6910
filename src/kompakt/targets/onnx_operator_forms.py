"""ATen calls that compute, as ONNX: arithmetic, activations, products, attention."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from kompakt.network.operators import fixed_size, value
from kompakt.targets.onnx_emitter import Emitter, Form, NoForm, dtype_of
from kompakt.targets.onnx_forms import FORMS, common_type, element_type, form, rank_of, spread

# Arithmetic, element by element


def _unary(op_type: str) -> Form:
    def written(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        return e.op(op_type, e.get(a["self"], element_type(node)))

    return written


for _name, _op_type in {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "neg": "Neg", "exp": "Exp", "log": "Log",
    "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos", "abs": "Abs", "sign": "Sign", "ceil": "Ceil",
    "floor": "Floor", "round": "Round", "erf": "Erf", "hardswish": "HardSwish", "softplus": "Softplus",
    "reciprocal": "Reciprocal", "mish": "Mish",
}.items():  # fmt: skip
    FORMS[f"aten.{_name}"] = _unary(_op_type)


def _plain_softplus(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a["beta"] != 1:
        raise NoForm("softplus with another beta than 1")
    return e.op("Softplus", e.get(a["self"]))


FORMS["aten.softplus"] = _plain_softplus


def _binary(op_type: str) -> Form:
    def written(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        kind = element_type(node)
        if kind == torch.bool:
            raise NoForm(f"{op_type} of booleans")
        right = e.get(a["other"], kind)
        if a.get("alpha", 1) != 1:
            right = e.op("Mul", right, e.constant(a["alpha"], kind))
        if a.get("rounding_mode") is not None:
            raise NoForm("division that rounds")
        return e.op(op_type, e.get(a["self"], kind), right)

    return written


for _name, _op_type in {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}.items():
    FORMS[f"aten.{_name}"] = _binary(_op_type)


@form("aten.rsub")
def _rsub(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a.get("alpha", 1) != 1:
        raise NoForm("rsub with alpha")
    return e.op("Sub", e.get(a["other"], element_type(node)), e.get(a["self"], element_type(node)))


@form("aten.square")
def _square(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    x = e.get(a["self"])
    return e.op("Mul", x, x)


@form("aten.rsqrt")
def _rsqrt(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Reciprocal", e.op("Sqrt", e.get(a["self"], element_type(node))))


@form("aten.pow")
def _pow(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = element_type(node)
    if a["exponent"] == 2 and isinstance(a["self"], fx.Node):
        x = e.get(a["self"], kind)
        return e.op("Mul", x, x)
    return e.op("Pow", e.get(a["self"], kind), e.get(a["exponent"], kind))


@form("aten.minimum", "aten.maximum", "aten.min", "aten.max")
def _extreme(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if "other" not in a:
        raise NoForm("a minimum or maximum over dimensions")
    op_type = "Min" if "min" in str(node.target) else "Max"
    return e.op(
        op_type, e.get(a["self"], element_type(node)), e.get(a["other"], element_type(node))
    )


def _comparison(op_type: str, *, negated: bool = False) -> Form:
    def written(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        kind = common_type(a["self"], a["other"])
        if kind == torch.bool and op_type != "Equal":
            kind = torch.int32
        result = e.op(op_type, e.get(a["self"], kind), e.get(a["other"], kind))
        return e.op("Not", result) if negated else result

    return written


for _name, _op_type in {
    "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less", "eq": "Equal",
}.items():  # fmt: skip
    FORMS[f"aten.{_name}"] = _comparison(_op_type)
FORMS["aten.ne"] = _comparison("Equal", negated=True)


def _logical(op_type: str) -> Form:
    def written(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        operands = [a["self"], *([a["other"]] if "other" in a else [])]
        if any(not isinstance(o, fx.Node) or dtype_of(o) != torch.bool for o in operands):
            raise NoForm(f"{op_type} of integers")
        return e.op(op_type, *(e.get(o) for o in operands))

    return written


for _name, _op_type in {
    "__and__": "And", "logical_and": "And", "bitwise_and": "And", "__or__": "Or",
    "logical_or": "Or", "bitwise_or": "Or", "bitwise_not": "Not", "logical_not": "Not",
}.items():  # fmt: skip
    FORMS[f"aten.{_name}"] = _logical(_op_type)


@form("aten.isnan")
def _isnan(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("IsNaN", e.get(a["self"]))


@form("aten.where")
def _where(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if "self" not in a:
        raise NoForm("where with one argument")
    kind = element_type(node)
    return e.op("Where", e.get(a["condition"]), e.get(a["self"], kind), e.get(a["other"], kind))


@form("aten.masked_fill")
def _masked_fill(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = element_type(node)
    return e.op("Where", e.get(a["mask"]), e.get(a["value"], kind), e.get(a["self"], kind))


# Activations


@form("aten.clamp", "aten.hardtanh", "aten.clip", "aten.clamp_min", "aten.clamp_max", "aten.relu6")
def _clamp(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = element_type(node)
    low = a.get("min_val", a.get("min"))
    high = a.get("max_val", a.get("max"))
    if "relu6" in str(node.target):
        low, high = 0.0, 6.0
    if any(isinstance(limit, fx.Node) for limit in (low, high)):
        raise NoForm("limits that are tensors")
    limits = [None if limit is None else e.constant(limit, kind) for limit in (low, high)]
    while limits and limits[-1] is None:
        limits.pop()
    return e.op("Clip", e.get(a["self"], kind), *limits)


@form("aten.leaky_relu")
def _leaky_relu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("LeakyRelu", e.get(a["self"]), alpha=float(a["negative_slope"]))


@form("aten.elu")
def _elu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a["scale"] != 1 or a["input_scale"] != 1:
        raise NoForm("a scaled ELU")
    return e.op("Elu", e.get(a["self"]), alpha=float(a["alpha"]))


@form("aten.prelu")
def _prelu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    slope, rank = e.get(a["weight"]), rank_of(a["self"])
    count = value(a["weight"]).numel()
    if count > 1 and rank > 2:
        slope = e.op("Reshape", slope, e.constant([count] + [1] * (rank - 2)))
    return e.op("PRelu", e.get(a["self"]), slope)


@form("aten.hardsigmoid")
def _hardsigmoid(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("HardSigmoid", e.get(a["self"]), alpha=1 / 6, beta=0.5)


@form("aten.silu")
def _silu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    x = e.get(a["self"])
    return e.op("Mul", x, e.op("Sigmoid", x))


@form("aten.gelu")
def _gelu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Gelu", e.get(a["self"]), approximate=str(a["approximate"]))


@form("aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax")
def _softmax(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    op_type = "LogSoftmax" if "log" in str(node.target) else "Softmax"
    return e.op(op_type, e.get(a["self"], element_type(node)), axis=int(a["dim"]))


# Products and layers called as functions


@form("aten.matmul", "aten.bmm", "aten.mm")
def _matmul(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("MatMul", e.get(a["self"]), e.get(a.get("other", a.get("mat2"))))


@form("aten.baddbmm", "aten.addmm")
def _add_product(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = element_type(node)
    names = ("batch1", "batch2") if "batch1" in a else ("mat1", "mat2")
    product = e.op("MatMul", *(e.get(a[name]) for name in names))
    if a["alpha"] != 1:
        product = e.op("Mul", product, e.constant(a["alpha"], kind))
    start = e.get(a["self"])
    if a["beta"] != 1:
        start = e.op("Mul", start, e.constant(a["beta"], kind))
    return e.op("Add", start, product)


@form("aten.linear")
def _linear(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    bias = None if a["bias"] is None else e.get(a["bias"])
    return linear(e, e.get(a["input"]), e.get(a["weight"]), bias, rank_of(a["input"]))


def linear(e: Emitter, x: ir.Value, weight: ir.Value, bias: ir.Value | None, rank: int) -> ir.Value:
    """``x`` times the transposed weight (O, I), plus the bias."""
    if rank == 2:
        return e.op("Gemm", x, weight, *([] if bias is None else [bias]), transB=1)  # type: ignore[no-any-return]
    product = e.op("MatMul", x, e.op("Transpose", weight, perm=[1, 0]))
    return product if bias is None else e.op("Add", product, bias)  # type: ignore[no-any-return]


@form("aten.conv1d", "aten.conv2d", "aten.conv3d")
def _conv(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if isinstance(a["padding"], str):
        raise NoForm("a functional convolution with named padding")
    bias = None if a["bias"] is None else e.get(a["bias"])
    spatial = rank_of(a["input"]) - 2
    if spatial != int(str(node.target).split("conv")[1][0]):
        raise NoForm("a convolution without a batch dimension")
    pads = spread(a["padding"], spatial)
    return e.op(
        "Conv",
        e.get(a["input"]),
        e.get(a["weight"]),
        *([] if bias is None else [bias]),
        strides=spread(a["stride"], spatial),
        pads=pads * 2,
        dilations=spread(a["dilation"], spatial),
        group=int(a["groups"]),
    )


@form("aten.embedding")
def _embedding(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Gather", e.get(a["weight"]), e.get(a["indices"]), axis=0)


@form("aten.layer_norm")
def _layer_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a["weight"] is None:
        raise NoForm("layer norm without a weight")
    bias = [] if a["bias"] is None else [e.get(a["bias"])]
    return e.op(
        "LayerNormalization",
        e.get(a["input"]),
        e.get(a["weight"]),
        *bias,
        axis=-len(a["normalized_shape"]),
        epsilon=float(a["eps"]),
    )


@form("aten.scaled_dot_product_attention")
def _attention(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    """Two matrix products and a softmax; a row whose every key is hidden attends to nothing, as in PyTorch."""
    if a["is_causal"] or a["enable_gqa"] or a["dropout_p"]:
        raise NoForm("causal or grouped attention")
    kind, rank = element_type(node), rank_of(a["key"])
    width = fixed_size(value(a["query"]).shape[-1])
    if width is None:
        raise NoForm("attention of dynamic width")
    factor = 1.0 / math.sqrt(width) if a["scale"] is None else float(a["scale"])
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    scaled = e.op("Mul", e.get(a["query"]), e.constant(factor, kind))
    scores = e.op("MatMul", scaled, e.op("Transpose", e.get(a["key"]), perm=swapped))
    mask = a["attn_mask"]
    if mask is None:
        return e.op("MatMul", e.op("Softmax", scores, axis=-1), e.get(a["value"]))
    shown = e.get(mask)
    if dtype_of(mask) == torch.bool:
        zero, hidden = e.constant(0.0, kind), e.constant(float("-inf"), kind)
        shown = e.op("Where", shown, zero, hidden)
    weights = e.op("Softmax", e.op("Add", scores, shown), axis=-1)
    weights = e.op("Where", e.op("IsNaN", weights), e.constant(0.0, kind), weights)
    return e.op("MatMul", weights, e.get(a["value"]))
