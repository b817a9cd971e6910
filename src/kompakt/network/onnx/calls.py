"""ONNX operators as ATen calls: one function each, found by the operator's name.

A function gets a ``NodeReader`` and returns the target of the call and its arguments, or None when this use of
the operator has no ATen form; the node is then kept opaque.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from kompakt.network import ops
from kompakt.network.onnx.facts import DTYPES
from kompakt.network.onnx.reader import Call, NodeReader, window

aten = torch.ops.aten
_REGISTERED = ops.global_average_pool
_END = 1 << 62


Form = Callable[[NodeReader], Call | None]


def _call(target: Any, *args: Any, **kwargs: Any) -> Call | None:
    """The call, or None when an argument is missing."""
    return None if any(a is None for a in args[:1]) else Call(target, args, kwargs)


def _unary(target: Any) -> Form:
    return lambda n: _call(target, n.x())


def _binary(target: Any) -> Form:
    def form(n: NodeReader) -> Call | None:
        left, right = n.x(0), n.x(1)
        if left is None or right is None:
            return None
        kinds = {n.facts.dtype(v) for v in n.node.inputs if v is not None}
        integers = kinds & {torch.int64, torch.int32} and target is aten.div.Tensor
        return None if integers or len(kinds) != 1 else Call(target, (left, right), {})

    return form


def _clip(n: NodeReader) -> Call | None:
    if n.opset < 11:
        low, high = n.number("min", -3.4028234e38), n.number("max", 3.4028234e38)
        limits: list[float | None] = [low if low > -3e38 else None, high if high < 3e38 else None]
    else:
        limits = []
        for place in (1, 2):
            content = n.constant(place)
            if n.given(place) is not None and content is None:
                return None
            limits.append(None if content is None else float(content.reshape(())))
    low, high = (limit if limit is not None else None for limit in limits)  # type: ignore[assignment]
    if low is not None and high is not None:
        return _call(aten.hardtanh.default, n.x(), low, high)
    return _call(aten.clamp.default, n.x(), low, high)


def _softmax(n: NodeReader) -> Call | None:
    rank = n.rank()
    axis = n.integer("axis", -1 if n.opset >= 13 else 1)
    if rank is None or (n.opset < 13 and axis % rank != rank - 1):
        return None
    return _call(aten.softmax.int, n.x(), axis)


def _reshape(n: NodeReader) -> Call | None:
    before, after = n.shape(), n.result()
    if after is None or before is None:
        return None
    wanted = [size if isinstance(size, int) else None for size in after]
    if wanted.count(None) > 1:
        return None
    sizes = [-1 if size is None else size for size in wanted]
    return _call(aten.reshape.default, n.x(), sizes) if 0 not in sizes else None


def _flatten(n: NodeReader) -> Call | None:
    rank, axis = n.rank(), n.integer("axis", 1)
    if rank is None or rank < 2 or axis % rank != 1:
        return None
    return _call(aten.flatten.using_ints, n.x(), 1)


def _transpose(n: NodeReader) -> Call | None:
    rank = n.rank()
    order = n.integers("perm") or (None if rank is None else list(range(rank))[::-1])
    return None if order is None else _call(aten.permute.default, n.x(), order)


def _squeeze(n: NodeReader) -> Call | None:
    axes = n.listed("axes", 1)
    return None if axes is None else _call(aten.squeeze.dims, n.x(), axes)


def _unsqueeze(n: NodeReader) -> Call | None:
    axes = n.listed("axes", 1)
    return _call(aten.unsqueeze.default, n.x(), axes[0]) if axes and len(axes) == 1 else None


def _concat(n: NodeReader) -> Call | None:
    parts = [n.x(place) for place in range(len(n.node.inputs))]
    if any(part is None for part in parts):
        return None
    return Call(aten.cat.default, (parts, n.integer("axis", 0)), {})


def _slice(n: NodeReader) -> Call | None:
    starts, ends = n.listed("starts", 1), n.listed("ends", 2)
    axes, steps = n.listed("axes", 3), n.listed("steps", 4)
    if starts is None or ends is None or len(starts) != 1:
        return None
    if any(v is not None and n.facts.constant(v) is None for v in n.node.inputs[1:]):
        return None
    step = steps[0] if steps else 1
    if step < 1:
        return None
    end = ends[0] if abs(ends[0]) < _END else _END
    return _call(aten.slice.Tensor, n.x(), axes[0] if axes else 0, starts[0], end, step)


def _split(n: NodeReader) -> Call | None:
    axis = n.integer("axis", 0)
    shapes = [n.result(place) for place in range(len(n.node.outputs))]
    sizes = [shape[axis] for shape in shapes if shape is not None]
    if len(sizes) != len(shapes) or not all(isinstance(size, int) for size in sizes):
        return None
    return _call(aten.split_with_sizes.default, n.x(), sizes, axis)


def _pad(n: NodeReader) -> Call | None:
    rank, mode = n.rank(), n.word("mode", "constant")
    amounts = n.listed("pads", 1)
    filler = n.constant(2) if n.given(2) is not None else None
    if n.opset < 11:
        number = n.number("value", 0.0)
    else:
        number = 0.0 if filler is None else float(filler.reshape(()))
        if n.given(2) is not None and filler is None:
            return None
    if rank is None or amounts is None or mode != "constant" or n.given(3) is not None:
        return None
    pairs = [(amounts[axis], amounts[rank + axis]) for axis in reversed(range(rank))]
    while pairs and pairs[-1] == (0, 0):
        pairs.pop()
    flat = [amount for pair in pairs for amount in pair]
    return _call(aten.pad.default, n.x(), flat, "constant", number) if flat else None


def _max_pool(n: NodeReader) -> Call | None:
    kernel = n.integers("kernel_shape")
    found = window(n, len(kernel)) if kernel else None
    if kernel is None or found is None or len(n.node.outputs) > 1 or len(kernel) > 3:
        return None
    strides, pads, dilations = found
    spatial = len(kernel)
    if pads[:spatial] != pads[spatial:] or n.integer("storage_order", 0):
        return None
    if any(2 * p > k for p, k in zip(pads, kernel, strict=False)):
        return None
    target = (aten.max_pool1d, aten.max_pool2d, aten.max_pool3d)[spatial - 1].default
    ceil = bool(n.integer("ceil_mode", 0))
    return _call(target, n.x(), kernel, strides, pads[:spatial], dilations, ceil)


def _average_pool(n: NodeReader) -> Call | None:
    kernel = n.integers("kernel_shape")
    found = window(n, len(kernel)) if kernel else None
    if kernel is None or found is None or len(kernel) > 3 or n.integer("ceil_mode", 0):
        return None
    strides, pads, dilations = found
    spatial = len(kernel)
    if pads[:spatial] != pads[spatial:] or set(dilations) != {1}:
        return None
    if any(2 * p > k for p, k in zip(pads, kernel, strict=False)):
        return None
    target = (aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d)[spatial - 1].default
    counted = bool(n.integer("count_include_pad", 0))
    return _call(target, n.x(), kernel, strides, pads[:spatial], False, counted)


def _reduce_mean(n: NodeReader) -> Call | None:
    axes, rank = n.listed("axes", 1), n.rank()
    if axes is None or rank is None or not axes:
        return None
    return _call(aten.mean.dim, n.x(), axes, bool(n.integer("keepdims", 1)))


def _resize(n: NodeReader) -> Call | None:
    scales = n.constant(2 if n.opset >= 11 else 1)
    if (
        scales is None
        or scales.size != 4
        or n.given(3) is not None
        or n.integers("axes") is not None
    ):
        return None
    factors = [float(s) for s in scales.reshape(-1)]
    if factors[:2] != [1.0, 1.0] or any(f != int(f) for f in factors[2:]):
        return None
    mode = n.word("mode", "nearest")
    corners = n.word("coordinate_transformation_mode", "half_pixel")
    if mode == "linear" and n.opset >= 11 and corners in ("half_pixel", "pytorch_half_pixel"):
        return _call(aten.upsample_bilinear2d.vec, n.x(), None, False, factors[2:])
    floor = n.word("nearest_mode", "round_prefer_floor") == "floor" and corners == "asymmetric"
    if mode != "nearest" or not (floor or n.opset < 11):
        return None
    return _call(aten.upsample_nearest2d.vec, n.x(), None, factors[2:])


def _cast(n: NodeReader) -> Call | None:
    wanted = DTYPES.get(ir.DataType(n.integer("to", 1)))
    given = n.given(0)
    before = n.facts.dtype(given) if given is not None else None
    if (
        wanted is None
        or before is None
        or (before.is_floating_point and not wanted.is_floating_point)
    ):
        return None
    return _call(aten.to.dtype, n.x(), wanted)


def _matmul(n: NodeReader) -> Call | None:
    left, right = n.x(0), n.x(1)
    return None if left is None or right is None else Call(aten.matmul.default, (left, right), {})


def _gelu(n: NodeReader) -> Call | None:
    return _call(aten.gelu.default, n.x(), approximate=n.word("approximate", "none"))


def _leaky_relu(n: NodeReader) -> Call | None:
    return _call(aten.leaky_relu.default, n.x(), n.number("alpha", 0.01))


def _hard_sigmoid(n: NodeReader) -> Call | None:
    usual = abs(n.number("alpha", 0.2) - 1 / 6) < 1e-6 and n.number("beta", 0.5) == 0.5
    return _call(aten.hardsigmoid.default, n.x()) if usual else None


def _expand(n: NodeReader) -> Call | None:
    after = n.result()
    if after is None or not all(isinstance(size, int) for size in after):
        return None
    return _call(aten.expand.default, n.x(), list(after))


def _same(n: NodeReader) -> Call | None:
    return _call(aten.alias.default, n.x())


FORMS: dict[str, Form] = {
    "Relu": _unary(aten.relu.default),
    "Sigmoid": _unary(aten.sigmoid.default),
    "Tanh": _unary(aten.tanh.default),
    "Exp": _unary(aten.exp.default),
    "Log": _unary(aten.log.default),
    "Sqrt": _unary(aten.sqrt.default),
    "Abs": _unary(aten.abs.default),
    "Neg": _unary(aten.neg.default),
    "Erf": _unary(aten.erf.default),
    "Sin": _unary(aten.sin.default),
    "Cos": _unary(aten.cos.default),
    "Reciprocal": _unary(aten.reciprocal.default),
    "Softplus": _unary(aten.softplus.default),
    "HardSwish": _unary(aten.hardswish.default),
    "Mish": _unary(aten.mish.default),
    "GlobalAveragePool": _unary(torch.ops.kompakt.global_average_pool.default),
    "Add": _binary(aten.add.Tensor),
    "Sub": _binary(aten.sub.Tensor),
    "Mul": _binary(aten.mul.Tensor),
    "Div": _binary(aten.div.Tensor),
    "Pow": _binary(aten.pow.Tensor_Tensor),
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Softmax": _softmax,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "ReduceMean": _reduce_mean,
    "Resize": _resize,
    "Upsample": _resize,
    "Cast": _cast,
    "Expand": _expand,
    "Identity": _same,
    "Dropout": _same,
}

SEVERAL = frozenset({"Split"})
"""Operators whose call returns a list."""
