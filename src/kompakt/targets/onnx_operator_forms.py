"""How ATen calls are written in ONNX: one function for each operator, found by its name.

A form gets the emitter, the node and the call's arguments by schema name, writes ONNX operators and returns the
value(s) they make. A call whose settings it cannot express raises :class:`NoForm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx

from kompakt.network.operators import fixed_size, value
from kompakt.targets.onnx_emitter import Emitter, Form, NoForm, dtype_of

_FULL = 1 << 62

FORMS: dict[str, Form] = {}


def _form(*names: str) -> Callable[[Form], Form]:
    def register(function: Form) -> Form:
        FORMS.update(dict.fromkeys(names, function))
        return function

    return register


def _rank(node: fx.Node) -> int:
    return int(value(node).dim())


def _dtype(node: fx.Node) -> torch.dtype:
    found = dtype_of(node)
    assert found is not None
    return found


def _common(*arguments: Any) -> torch.dtype:
    """The element type PyTorch computes these operands in."""
    fakes = [value(a) for a in arguments]
    tensors = [f for f in fakes if isinstance(f, Tensor)]
    result = tensors[0].dtype
    for a in fakes:
        for b in fakes:
            if isinstance(a, Tensor):
                number = b if isinstance(b, Tensor | int | float | bool) else 1
                result = torch.promote_types(result, torch.result_type(a, number))
    return result


# Arithmetic, element by element


def _unary(op_type: str) -> Form:
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        return e.op(op_type, e.get(a["self"], _dtype(node)))

    return form


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
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        kind = _dtype(node)
        if kind == torch.bool:
            raise NoForm(f"{op_type} of booleans")
        right = e.get(a["other"], kind)
        if a.get("alpha", 1) != 1:
            right = e.op("Mul", right, e.constant(a["alpha"], kind))
        if a.get("rounding_mode") is not None:
            raise NoForm("division that rounds")
        return e.op(op_type, e.get(a["self"], kind), right)

    return form


for _name, _op_type in {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}.items():
    FORMS[f"aten.{_name}"] = _binary(_op_type)


@_form("aten.rsub")
def _rsub(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a.get("alpha", 1) != 1:
        raise NoForm("rsub with alpha")
    return e.op("Sub", e.get(a["other"], _dtype(node)), e.get(a["self"], _dtype(node)))


@_form("aten.square")
def _square(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    x = e.get(a["self"])
    return e.op("Mul", x, x)


@_form("aten.rsqrt")
def _rsqrt(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Reciprocal", e.op("Sqrt", e.get(a["self"], _dtype(node))))


@_form("aten.pow")
def _pow(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = _dtype(node)
    if a["exponent"] == 2 and isinstance(a["self"], fx.Node):
        x = e.get(a["self"], kind)
        return e.op("Mul", x, x)
    return e.op("Pow", e.get(a["self"], kind), e.get(a["exponent"], kind))


@_form("aten.minimum", "aten.maximum", "aten.min", "aten.max")
def _extreme(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if "other" not in a:
        raise NoForm("a minimum or maximum over dimensions")
    op_type = "Min" if "min" in str(node.target) else "Max"
    return e.op(op_type, e.get(a["self"], _dtype(node)), e.get(a["other"], _dtype(node)))


def _comparison(op_type: str, *, negated: bool = False) -> Form:
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        kind = _common(a["self"], a["other"])
        if kind == torch.bool and op_type != "Equal":
            kind = torch.int32
        result = e.op(op_type, e.get(a["self"], kind), e.get(a["other"], kind))
        return e.op("Not", result) if negated else result

    return form


for _name, _op_type in {
    "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less", "eq": "Equal",
}.items():  # fmt: skip
    FORMS[f"aten.{_name}"] = _comparison(_op_type)
FORMS["aten.ne"] = _comparison("Equal", negated=True)


def _logical(op_type: str) -> Form:
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        operands = [a["self"], *([a["other"]] if "other" in a else [])]
        if any(not isinstance(o, fx.Node) or dtype_of(o) != torch.bool for o in operands):
            raise NoForm(f"{op_type} of integers")
        return e.op(op_type, *(e.get(o) for o in operands))

    return form


for _name, _op_type in {
    "__and__": "And", "logical_and": "And", "bitwise_and": "And", "__or__": "Or",
    "logical_or": "Or", "bitwise_or": "Or", "bitwise_not": "Not", "logical_not": "Not",
}.items():  # fmt: skip
    FORMS[f"aten.{_name}"] = _logical(_op_type)


@_form("aten.isnan")
def _isnan(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("IsNaN", e.get(a["self"]))


@_form("aten.where")
def _where(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if "self" not in a:
        raise NoForm("where with one argument")
    kind = _dtype(node)
    return e.op("Where", e.get(a["condition"]), e.get(a["self"], kind), e.get(a["other"], kind))


@_form("aten.masked_fill")
def _masked_fill(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = _dtype(node)
    return e.op("Where", e.get(a["mask"]), e.get(a["value"], kind), e.get(a["self"], kind))


# Activations


@_form("aten.clamp", "aten.hardtanh", "aten.clip", "aten.clamp_min", "aten.clamp_max", "aten.relu6")
def _clamp(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = _dtype(node)
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


@_form("aten.leaky_relu")
def _leaky_relu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("LeakyRelu", e.get(a["self"]), alpha=float(a["negative_slope"]))


@_form("aten.elu")
def _elu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a["scale"] != 1 or a["input_scale"] != 1:
        raise NoForm("a scaled ELU")
    return e.op("Elu", e.get(a["self"]), alpha=float(a["alpha"]))


@_form("aten.prelu")
def _prelu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    slope, rank = e.get(a["weight"]), _rank(a["self"])
    count = value(a["weight"]).numel()
    if count > 1 and rank > 2:
        slope = e.op("Reshape", slope, e.constant([count] + [1] * (rank - 2)))
    return e.op("PRelu", e.get(a["self"]), slope)


@_form("aten.hardsigmoid")
def _hardsigmoid(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("HardSigmoid", e.get(a["self"]), alpha=1 / 6, beta=0.5)


@_form("aten.silu")
def _silu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    x = e.get(a["self"])
    return e.op("Mul", x, e.op("Sigmoid", x))


@_form("aten.gelu")
def _gelu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Gelu", e.get(a["self"]), approximate=str(a["approximate"]))


@_form("aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax")
def _softmax(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    op_type = "LogSoftmax" if "log" in str(node.target) else "Softmax"
    return e.op(op_type, e.get(a["self"], _dtype(node)), axis=int(a["dim"]))


# Products and layers called as functions


@_form("aten.matmul", "aten.bmm", "aten.mm")
def _matmul(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("MatMul", e.get(a["self"]), e.get(a.get("other", a.get("mat2"))))


@_form("aten.baddbmm", "aten.addmm")
def _add_product(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = _dtype(node)
    names = ("batch1", "batch2") if "batch1" in a else ("mat1", "mat2")
    product = e.op("MatMul", *(e.get(a[name]) for name in names))
    if a["alpha"] != 1:
        product = e.op("Mul", product, e.constant(a["alpha"], kind))
    start = e.get(a["self"])
    if a["beta"] != 1:
        start = e.op("Mul", start, e.constant(a["beta"], kind))
    return e.op("Add", start, product)


@_form("aten.linear")
def _linear(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    bias = None if a["bias"] is None else e.get(a["bias"])
    return linear(e, e.get(a["input"]), e.get(a["weight"]), bias, _rank(a["input"]))


def linear(
    e: Emitter, x: ir.Value, weight: ir.Value, bias: ir.Value | None, rank: int
) -> ir.Value:
    """``x`` times the transposed weight (O, I), plus the bias."""
    if rank == 2:
        return e.op("Gemm", x, weight, *([] if bias is None else [bias]), transB=1)  # type: ignore[no-any-return]
    product = e.op("MatMul", x, e.op("Transpose", weight, perm=[1, 0]))
    return product if bias is None else e.op("Add", product, bias)  # type: ignore[no-any-return]


@_form("aten.conv1d", "aten.conv2d", "aten.conv3d")
def _conv(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if isinstance(a["padding"], str):
        raise NoForm("a functional convolution with named padding")
    bias = None if a["bias"] is None else e.get(a["bias"])
    spatial = _rank(a["input"]) - 2
    if spatial != int(str(node.target).split("conv")[1][0]):
        raise NoForm("a convolution without a batch dimension")
    pads = _spread(a["padding"], spatial)
    return e.op(
        "Conv",
        e.get(a["input"]),
        e.get(a["weight"]),
        *([] if bias is None else [bias]),
        strides=_spread(a["stride"], spatial),
        pads=pads * 2,
        dilations=_spread(a["dilation"], spatial),
        group=int(a["groups"]),
    )


def _spread(setting: Any, count: int) -> list[int]:
    numbers = [setting] * count if isinstance(setting, int) else [int(n) for n in setting]
    return numbers * count if len(numbers) == 1 and count > 1 else numbers


@_form("aten.embedding")
def _embedding(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Gather", e.get(a["weight"]), e.get(a["indices"]), axis=0)


@_form("aten.layer_norm")
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


@_form("aten.scaled_dot_product_attention")
def _attention(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    """Two matrix products and a softmax; a row whose every key is hidden attends to nothing, as in PyTorch."""
    if a["is_causal"] or a["enable_gqa"] or a["dropout_p"]:
        raise NoForm("causal or grouped attention")
    kind, rank = _dtype(node), _rank(a["key"])
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


# Shapes


@_form(
    "aten.view", "aten.reshape", "aten.flatten", "aten.unflatten", "aten._unsafe_view",
    "aten.view_as",
)  # fmt: skip
def _reshape(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    source = a["self"]
    wanted = a.get("shape", a.get("size"))
    before = [str(size) for size in value(source).shape]
    if before == [str(size) for size in value(node).shape]:
        return e.get(source)
    dynamic = sum(fixed_size(size) is None for size in value(node).shape)
    if dynamic > 1 and isinstance(wanted, list | tuple):
        return e.op("Reshape", e.get(source), e.sizes(wanted))
    return e.op("Reshape", e.get(source), e.shape_of(node, source))


@_form("aten.squeeze", "aten.unsqueeze")
def _squeeze(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    rank, after = _rank(a["self"]), _rank(node)
    dims = a.get("dim")
    if "unsqueeze" in str(node.target):
        return e.op("Unsqueeze", e.get(a["self"]), e.constant([int(dims) % after]))
    given = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    sizes = value(a["self"]).shape
    axes = [d % rank for d in given if fixed_size(sizes[d]) == 1]
    if rank - len(axes) != after:
        raise NoForm("a squeeze of dynamic sizes")
    return e.op("Squeeze", e.get(a["self"]), e.constant(axes)) if axes else e.get(a["self"])


@_form("aten.transpose", "aten.permute", "aten.t", "aten.numpy_T", "aten.swapaxes")
def _transpose(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    rank = _rank(node)
    order = list(range(rank))
    if "dims" in a:
        order = [int(d) % rank for d in a["dims"]]
    elif "dim0" in a:
        one, other = int(a["dim0"]) % rank, int(a["dim1"]) % rank
        order[one], order[other] = order[other], order[one]
    else:
        order.reverse()
    if order == list(range(rank)):
        return e.get(a["self"])
    return e.op("Transpose", e.get(a["self"]), perm=order)


@_form("aten.expand", "aten.expand_as", "aten.broadcast_to")
def _expand(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    sizes = a.get("size")
    if sizes is None:
        return e.op("Expand", e.get(a["self"]), e.op("Shape", e.get(a["other"])))
    return e.op("Expand", e.get(a["self"]), e.sizes([1 if size == -1 else size for size in sizes]))


@_form("aten.slice")
def _slice(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    start = 0 if a["start"] is None else a["start"]
    end = _FULL if a["end"] is None else a["end"]
    axis = int(a["dim"])
    bounds = [e.sizes([start]), e.sizes([end])]
    return e.op("Slice", e.get(a["self"]), *bounds, e.constant([axis]), e.constant([a["step"]]))


@_form("aten.narrow")
def _narrow(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if not isinstance(a["start"], int) or not isinstance(a["length"], int) or a["start"] < 0:
        raise NoForm("narrow with dynamic limits")
    bounds = [e.constant([a["start"]]), e.constant([a["start"] + a["length"]])]
    return e.op("Slice", e.get(a["self"]), *bounds, e.constant([int(a["dim"])]))


@_form("aten.select")
def _select(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if not isinstance(a["index"], int):
        raise NoForm("a selection by a symbolic index")
    return e.op("Gather", e.get(a["self"]), e.constant(a["index"]), axis=int(a["dim"]))


@_form("aten.cat", "aten.concat", "aten.concatenate")
def _cat(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    parts = e.get(a["tensors"], _dtype(node))
    return e.op("Concat", *parts, axis=int(a["dim"]))


@_form("aten.stack")
def _stack(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    axis = int(a["dim"]) % _rank(node)
    parts = e.get(a["tensors"], _dtype(node))
    lifted = [e.op("Unsqueeze", part, e.constant([axis])) for part in parts]
    return e.op("Concat", *lifted, axis=axis)


@_form("aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split")
def _split(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    axis = int(a["dim"])
    sizes = [fixed_size(part.shape[axis]) for part in value(node)]
    if None in sizes:
        raise NoForm("a split of a dynamic size")
    parts = e.op(
        "Split", e.get(a["self"]), e.constant(sizes), axis=axis, outputs=len(sizes)
    )
    return [parts] if len(sizes) == 1 else parts


@_form("aten.unbind")
def _unbind(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    axis, count = int(a["dim"]), len(value(node))
    return [e.op("Gather", e.get(a["self"]), e.constant(i), axis=axis) for i in range(count)]


@_form("aten.repeat")
def _repeat(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    repeats = list(a["repeats"])
    x, missing = e.get(a["self"]), len(repeats) - _rank(a["self"])
    if missing:
        x = e.op("Unsqueeze", x, e.constant(list(range(missing))))
    return e.op("Tile", x, e.sizes(repeats))


@_form("aten.pad", "aten.constant_pad_nd")
def _pad(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    rank, given = _rank(node), list(a["pad"])
    if not all(isinstance(n, int) for n in given):
        raise NoForm("dynamic padding")
    starts, ends = [0] * rank, [0] * rank
    for place in range(len(given) // 2):
        starts[rank - 1 - place], ends[rank - 1 - place] = given[2 * place], given[2 * place + 1]
    filler = []
    if a.get("mode", "constant") == "constant" and a.get("value"):
        filler = [e.constant(a["value"], _dtype(node))]
    mode = modes[str(a.get("mode", "constant"))]
    return e.op("Pad", e.get(a["self"]), e.constant(starts + ends), *filler, mode=mode)


# Pools and reductions


@_form("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d")
def _max_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    spatial = _spatial(node, a)
    kernel = _spread(a["kernel_size"], spatial)
    return e.op(
        "MaxPool",
        e.get(a["self"]),
        kernel_shape=kernel,
        strides=_spread(a["stride"], spatial) if a["stride"] else kernel,
        pads=_spread(a["padding"], spatial) * 2,
        dilations=_spread(a["dilation"], spatial),
        ceil_mode=int(a["ceil_mode"]),
    )


def _spatial(node: fx.Node, a: dict[str, Any]) -> int:
    """The number of spatial dimensions of a pool over batches."""
    spatial = int(str(node.target).split("pool")[1][0])
    if _rank(a["self"]) != spatial + 2:
        raise NoForm("a pool without a batch dimension")
    return spatial


@_form("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def _avg_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    spatial = _spatial(node, a)
    kernel = _spread(a["kernel_size"], spatial)
    if a.get("divisor_override") is not None or a["ceil_mode"]:
        raise NoForm("an average pool with another divisor or rounding up")
    return e.op(
        "AveragePool",
        e.get(a["self"]),
        kernel_shape=kernel,
        strides=_spread(a["stride"], spatial) if a["stride"] else kernel,
        pads=_spread(a["padding"], spatial) * 2,
        count_include_pad=int(a["count_include_pad"]),
    )


@_form("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_avg_pool3d")
def _adaptive_avg_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    spatial = _spatial(node, a)
    wanted = _spread(a["output_size"], spatial)
    if all(size == 1 for size in wanted):
        return e.op("GlobalAveragePool", e.get(a["self"]))
    sizes = [fixed_size(size) for size in value(a["self"]).shape[2:]]
    if any(size is None or size % want for size, want in zip(sizes, wanted, strict=True)):
        raise NoForm("an adaptive pool over windows of unequal size")
    kernel = [int(size or 0) // want for size, want in zip(sizes, wanted, strict=True)]
    return e.op("AveragePool", e.get(a["self"]), kernel_shape=kernel, strides=kernel)


@_form("kompakt.global_average_pool")
def _global_average_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("GlobalAveragePool", e.get(next(iter(a.values()))))


def _reduction(op_type: str) -> Form:
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        dims = a.get("dim")
        axes = [] if dims is None else [dims] if isinstance(dims, int) else list(dims)
        return e.op(
            op_type,
            e.get(a["self"], _dtype(node)),
            *([e.constant(axes)] if axes else []),
            keepdims=int(bool(a.get("keepdim", False))),
        )

    return form


for _name, _op_type in {
    "mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin",
}.items():  # fmt: skip
    FORMS[f"aten.{_name}"] = _reduction(_op_type)


@_form("aten.linalg_vector_norm")
def _vector_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a["ord"] != 2:
        raise NoForm("a norm of another order than 2")
    return _reduction("ReduceL2")(e, node, a)


@_form("aten.cumsum")
def _cumsum(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("CumSum", e.get(a["self"], _dtype(node)), e.constant(int(a["dim"])))


@_form("aten.roll")
def _roll(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    """The last entries along a dimension, then the first ones."""
    if not a["dims"] or not all(isinstance(shift, int) for shift in a["shifts"]):
        raise NoForm("a roll of everything, or by symbolic amounts")
    result = e.get(a["self"])
    for shift, dim in zip(a["shifts"], a["dims"], strict=True):
        size = fixed_size(value(a["self"]).shape[dim])
        if size is None:
            raise NoForm("a roll along a dynamic dimension")
        cut, axis = e.constant([(size - shift % size) % size]), e.constant([int(dim)])
        tail = e.op("Slice", result, cut, e.constant([_FULL]), axis)
        result = e.op(
            "Concat", tail, e.op("Slice", result, e.constant([0]), cut, axis), axis=int(dim)
        )
    return result


# Looking up


@_form("aten.gather")
def _gather(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("GatherElements", e.get(a["self"]), e.get(a["index"], torch.int64), axis=int(a["dim"]))


@_form("aten.index_select")
def _index_select(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Gather", e.get(a["self"]), e.get(a["index"], torch.int64), axis=int(a["dim"]))


@_form("aten.index")
def _index(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    """Integer indices into the leading dimensions, broadcast against each other."""
    indices = list(a["indices"])
    if any(not isinstance(i, fx.Node) or dtype_of(i) == torch.bool for i in indices):
        raise NoForm("indexing by masks, or with skipped dimensions")
    given = [e.get(i, torch.int64) for i in indices]
    if len(given) == 1:
        return e.op("Gather", e.get(a["self"]), given[0], axis=0)
    zeros = e.constant(0)
    nothing = e.op("Mul", given[0], zeros)
    for other in given[1:]:
        nothing = e.op("Add", nothing, e.op("Mul", other, zeros))
    whole = [e.op("Unsqueeze", e.op("Add", i, nothing), e.constant([-1])) for i in given]
    return e.op("GatherND", e.get(a["self"]), e.op("Concat", *whole, axis=-1))


# Making tensors


@_form("aten.arange")
def _arange(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = _dtype(node)
    limits = [a.get("start", 0), a["end"], a.get("step", 1)]
    scalars = [
        e.get(limit) if isinstance(limit, fx.Node) else e.constant(limit, kind) for limit in limits
    ]
    if kind != torch.int64 and any(isinstance(limit, fx.Node) for limit in limits):
        raise NoForm("a range of other numbers than int64")
    return e.op("Range", *scalars)


def _filled(number: Callable[[dict[str, Any]], Any]) -> Form:
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        filler = e.constant(number(a), _dtype(node))
        sizes = a.get("size")
        if sizes is None:
            return e.op("Expand", filler, e.op("Shape", e.get(a["self"])))
        return e.op("Expand", filler, e.sizes(sizes)) if sizes else filler

    return form


for _name in ("zeros", "new_zeros", "zeros_like"):
    FORMS[f"aten.{_name}"] = _filled(lambda a: 0)
for _name in ("ones", "new_ones", "ones_like"):
    FORMS[f"aten.{_name}"] = _filled(lambda a: 1)
for _name in ("full", "full_like", "new_full"):
    FORMS[f"aten.{_name}"] = _filled(lambda a: a["fill_value"])


@_form("aten.scalar_tensor")
def _scalar(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.constant(a["s"], _dtype(node))


@_form("aten.to", "aten._to_copy", "aten.type_as")
def _to(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    before, after = _dtype(a["self"]), _dtype(node)
    if before.is_floating_point and after in (torch.uint8, torch.int8):
        raise NoForm("a cast of floats to 8-bit integers")
    return e.get(a["self"], after)


@_form(
    "aten.contiguous", "aten.alias", "aten.detach", "aten.clone", "aten.lift_fresh_copy",
    "aten.lift_fresh", "aten.dropout",
)  # fmt: skip
def _same(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a.get("train"):
        raise NoForm("dropout in train mode")
    return e.get(a.get("self", a.get("input")))


# Resizing


@_form("aten.upsample_nearest2d", "aten.upsample_nearest1d", "aten.upsample_nearest3d")
def _nearest(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return _resized(
        e, node, a, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


@_form("aten.upsample_bilinear2d")
def _bilinear(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    corners = "align_corners" if a["align_corners"] else "half_pixel"
    return _resized(e, node, a, mode="linear", coordinate_transformation_mode=corners)


def _resized(e: Emitter, node: fx.Node, a: dict[str, Any], **settings: Any) -> Any:
    source = a.get("input", a.get("self"))
    assert isinstance(source, fx.Node)
    factors: Sequence[float] | None = a.get("scale_factors")
    if factors is not None:
        scales = e.constant([1.0, 1.0, *factors], torch.float32)
        return e.op("Resize", e.get(source), None, scales, **settings)
    sizes = [fixed_size(size) for size in value(node).shape[2:]]
    if None in sizes:
        raise NoForm("resizing to a dynamic size")
    leading = [e.size(source, 0), e.size(source, 1)]
    target = e.op("Concat", *leading, e.constant(sizes), axis=0)
    return e.op("Resize", e.get(source), None, None, target, **settings)


# Sizes


@_form("aten.sym_size")
def _sym_size(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.size(a["self"], int(a["dim"]))


def size_arithmetic(op_type: str) -> Form:
    """Arithmetic of sizes, which are int64 vectors of one."""

    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        left, right = (
            e.values[item] if isinstance(item, fx.Node) else e.constant([item])
            for item in node.args
        )
        return e.op(op_type, left, right)

    return form


