"""ATen calls that pool, reduce or resize, as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from kompakt.network.operators import fixed_size, value
from kompakt.targets.onnx_emitter import Emitter, Form, NoForm
from kompakt.targets.onnx_forms import FORMS, element_type, form, rank_of, spread

_FULL = 1 << 62


# Pools and reductions


@form("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d")
def _max_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    spatial = _spatial(node, a)
    kernel = spread(a["kernel_size"], spatial)
    return e.op(
        "MaxPool",
        e.get(a["self"]),
        kernel_shape=kernel,
        strides=spread(a["stride"], spatial) if a["stride"] else kernel,
        pads=spread(a["padding"], spatial) * 2,
        dilations=spread(a["dilation"], spatial),
        ceil_mode=int(a["ceil_mode"]),
    )


def _spatial(node: fx.Node, a: dict[str, Any]) -> int:
    """The number of spatial dimensions of a pool over batches."""
    spatial = int(str(node.target).split("pool")[1][0])
    if rank_of(a["self"]) != spatial + 2:
        raise NoForm("a pool without a batch dimension")
    return spatial


@form("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def _avg_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    spatial = _spatial(node, a)
    kernel = spread(a["kernel_size"], spatial)
    if a.get("divisor_override") is not None or a["ceil_mode"]:
        raise NoForm("an average pool with another divisor or rounding up")
    return e.op(
        "AveragePool",
        e.get(a["self"]),
        kernel_shape=kernel,
        strides=spread(a["stride"], spatial) if a["stride"] else kernel,
        pads=spread(a["padding"], spatial) * 2,
        count_include_pad=int(a["count_include_pad"]),
    )


@form("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_avg_pool3d")
def _adaptive_avg_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    spatial = _spatial(node, a)
    wanted = spread(a["output_size"], spatial)
    if all(size == 1 for size in wanted):
        return e.op("GlobalAveragePool", e.get(a["self"]))
    sizes = [fixed_size(size) for size in value(a["self"]).shape[2:]]
    if any(size is None or size % want for size, want in zip(sizes, wanted, strict=True)):
        raise NoForm("an adaptive pool over windows of unequal size")
    kernel = [int(size or 0) // want for size, want in zip(sizes, wanted, strict=True)]
    return e.op("AveragePool", e.get(a["self"]), kernel_shape=kernel, strides=kernel)


@form("kompakt.global_average_pool")
def _global_average_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("GlobalAveragePool", e.get(next(iter(a.values()))))


def _reduction(op_type: str) -> Form:
    def written(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        dims = a.get("dim")
        axes = [] if dims is None else [dims] if isinstance(dims, int) else list(dims)
        return e.op(
            op_type,
            e.get(a["self"], element_type(node)),
            *([e.constant(axes)] if axes else []),
            keepdims=int(bool(a.get("keepdim", False))),
        )

    return written


for _name, _op_type in {
    "mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin",
}.items():  # fmt: skip
    FORMS[f"aten.{_name}"] = _reduction(_op_type)


@form("aten.linalg_vector_norm")
def _vector_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a["ord"] != 2:
        raise NoForm("a norm of another order than 2")
    return _reduction("ReduceL2")(e, node, a)


@form("aten.cumsum")
def _cumsum(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("CumSum", e.get(a["self"], element_type(node)), e.constant(int(a["dim"])))


@form("aten.roll")
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


# Resizing


@form("aten.upsample_nearest2d", "aten.upsample_nearest1d", "aten.upsample_nearest3d")
def _nearest(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return _resized(
        e,
        node,
        a,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


@form("aten.upsample_bilinear2d")
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
