"""ATen calls that move numbers without computing any, or only gather them in windows: they keep codes as codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

from kompakt.network.operators import fixed_size, value
from kompakt.targets.litert_emitter import Emitter, NoForm, Order, Value, plain
from kompakt.targets.litert_images import Image, as_image
from kompakt.targets.litert_operator_forms import form
from kompakt.targets.litert_padding import pad_spatial, spread, window
from kompakt.targets.litert_sum_forms import reduce

SAME, VALID = 0, 1


@form(
    "aten.view", "aten.reshape", "aten.flatten", "aten.unflatten", "aten._unsafe_view",
    "aten.view_as", "aten.squeeze", "aten.unsqueeze",
)  # fmt: skip
def _reshape(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    before, after = value(a["self"]).shape, value(node).shape
    if [str(s) for s in before] == [str(s) for s in after]:
        return e.get(a["self"])
    x = e.get(a["self"])
    order = kept_order(before, after, x.order)
    if order is None:
        x, order = e.flat(a["self"]), plain(len(after))
    made = e.result(node, order, x.grid, x.dtype)
    e.reshape(x, made, [fixed_size(after[d]) for d in order])
    return made


def kept_order(before: Sequence[Any], after: Sequence[Any], order: Order) -> Order | None:
    """The order in which what is stored can be reshaped without moving, or None when it has to be moved.

    Args:
        before: Sizes of the network's tensor.
        after: Its sizes after the reshape.
        order: The order it is stored in.
    """
    known = [[_key(size) for size in sizes] for sizes in (before, after)]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        olds: list[int] = []
        news: list[int] = []
        left = right = 1
        while left != right or not (olds and news):
            behind = not olds or (bool(news) and left < right)
            if i < len(before) and (behind or j == len(after)):
                left, i = left * known[0][i], i + 1
                olds.append(i - 1)
            elif j < len(after):
                right, j = right * known[1][j], j + 1
                news.append(j - 1)
            else:
                break
        if left != right:
            return None
        groups.append((olds, news))
    result: list[int] = []
    for olds, news in sorted(
        groups, key=lambda group: order.index(group[0][0]) if group[0] else 99
    ):
        start = order.index(olds[0]) if olds else len(order)
        if list(order[start : start + len(olds)]) != olds:
            return None
        result += news
    return tuple(result)


def _key(size: Any) -> int:
    """A size to multiply with; a dynamic one is a prime that nothing else is likely to be."""
    known = fixed_size(size)
    return known if known is not None else 1_000_003 + sum(map(ord, str(size)))


@form("aten.transpose", "aten.permute", "aten.t", "aten.numpy_T", "aten.swapaxes")
def _transpose(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    """Nothing is moved: the dimensions of what is stored get other names."""
    rank = value(node).dim()
    dims = list(range(rank))
    if "dims" in a:
        dims = [int(d) % rank for d in a["dims"]]
    elif "dim0" in a:
        one, other = int(a["dim0"]) % rank, int(a["dim1"]) % rank
        dims[one], dims[other] = dims[other], dims[one]
    else:
        dims.reverse()
    x = e.get(a["self"])
    return Value(x.tensor, tuple(dims.index(d) for d in x.order), x.grid, x.dtype)


@form("aten.cat", "aten.concat", "aten.concatenate")
def _cat(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    parts, rank = list(a["tensors"]), value(node).dim()
    order = e.get(parts[0]).order
    found = [e.get(part, order) for part in parts]
    grid = found[0].grid
    if any(v.grid != grid for v in found):
        found, grid = [e.as_float(v) for v in found], None
    made = e.result(node, order, grid)
    axis = order.index(int(a["dim"]) % rank)
    e.op(
        "CONCATENATION", [v.tensor for v in found], (made.tensor,), "ConcatenationOptions",
        axis=axis,
    )  # fmt: skip
    return made


@form("aten.slice")
def _slice(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    start, step = a["start"] or 0, int(a["step"])
    end = (1 << 31) - 1 if a["end"] is None else a["end"]
    if not isinstance(start, int) or not isinstance(end, int):
        raise NoForm("a slice with symbolic limits")
    return _strided(e, node, a["self"], int(a["dim"]), start, min(end, (1 << 31) - 1), step)


@form("aten.narrow")
def _narrow(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    start, length = a["start"], a["length"]
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        raise NoForm("narrow with dynamic limits")
    return _strided(e, node, a["self"], int(a["dim"]), start, start + length, 1)


@form("aten.select")
def _select(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    index = a["index"]
    if not isinstance(index, int):
        raise NoForm("a selection by a symbolic index")
    return _strided(e, node, a["self"], int(a["dim"]), index, index + 1, 1, drop=True)


def _strided(
    e: Emitter,
    node: fx.Node,
    source: fx.Node,
    dim: int,
    start: int,
    end: int,
    step: int,
    *,
    drop: bool = False,
) -> Value:
    """Part of a tensor along one dimension, which may be dropped."""
    x, rank = e.get(source), value(source).dim()
    dim %= rank
    place = x.order.index(dim)
    size = fixed_size(value(source).shape[dim])
    if start < 0 and size is not None:
        start, end = start + size, end + size if end <= 0 else end
    if end < 0 and size is not None:
        end += size
    begins, ends, strides = [0] * rank, [0] * rank, [1] * rank
    begins[place], ends[place], strides[place] = start, end, step
    others = sum(1 << p for p in range(rank) if p != place)
    order = x.order
    if drop:
        order = tuple(d - (d > dim) for d in x.order if d != dim)
    made = e.result(node, order, x.grid, x.dtype)
    tables = [e.constant(numbers, "int32") for numbers in (begins, ends, strides)]
    e.op(
        "STRIDED_SLICE", (x.tensor, *tables), (made.tensor,), "StridedSliceOptions",
        beginMask=others, endMask=others, shrinkAxisMask=(1 << place) if drop else 0,
    )  # fmt: skip
    return made


@form("aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split")
def _split(e: Emitter, node: fx.Node, a: dict[str, Any]) -> list[Value]:
    x, parts = e.get(a["self"]), value(node)
    dim = int(a["dim"]) % parts[0].dim()
    sizes = [fixed_size(part.shape[dim]) for part in parts]
    if None in sizes:
        raise NoForm("a split of a dynamic size")
    made = [e.new(p.shape, x.order, grid=x.grid, dtype=x.dtype) for p in parts]
    if len(parts) == 1:
        return [x]
    axis = e.constant(x.order.index(dim), "int32")
    outputs = [v.tensor for v in made]
    if len(set(sizes)) == 1:
        e.op("SPLIT", (axis, x.tensor), outputs, "SplitOptions", numSplits=len(parts))
    else:
        inputs = (x.tensor, e.constant(sizes, "int32"), axis)
        e.op("SPLIT_V", inputs, outputs, "SplitVOptions", numSplits=len(parts))
    return made


@form("aten.unbind")
def _unbind(e: Emitter, node: fx.Node, a: dict[str, Any]) -> list[Value]:
    x, parts = e.get(a["self"]), value(node)
    rank = value(a["self"]).dim()
    dim = int(a["dim"]) % rank
    order = tuple(d - (d > dim) for d in x.order if d != dim)
    made = [e.new(p.shape, order, grid=x.grid, dtype=x.dtype) for p in parts]
    axis = x.order.index(dim)
    e.op(
        "UNPACK", (x.tensor,), [v.tensor for v in made], "UnpackOptions", num=len(parts), axis=axis
    )
    return made


@form("aten.pad", "aten.constant_pad_nd")
def _pad(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    mode, given, rank = str(a.get("mode", "constant")), list(a["pad"]), value(node).dim()
    if not all(isinstance(n, int) for n in given) or mode not in ("constant", "reflect"):
        raise NoForm(f"dynamic padding, or with mode {mode}")
    x = e.get(a["self"])
    amounts = [[0, 0] for _ in range(rank)]
    for place in range(len(given) // 2):
        amounts[rank - 1 - place] = [given[2 * place], given[2 * place + 1]]
    table = e.constant([amounts[d] for d in x.order], "int32")
    if mode == "reflect":
        made = e.result(node, x.order, x.grid, x.dtype)
        e.op("MIRROR_PAD", (x.tensor, table), (made.tensor,), "MirrorPadOptions", mode=0)
        return made
    if not a.get("value"):
        made = e.result(node, x.order, x.grid, x.dtype)
        e.op("PAD", (x.tensor, table), (made.tensor,), "PadOptions")
        return made
    x = e.as_float(x)
    made = e.result(node, x.order, None, x.dtype)
    filler = e.constant([a["value"]], x.dtype)
    e.op("PADV2", (x.tensor, table, filler), (made.tensor,), "PadV2Options")
    return made


# Windows


@form("aten.max_pool1d", "aten.max_pool2d")
def _max_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    if any(n != 1 for n in spread(a["dilation"], 1)) or a["ceil_mode"]:
        raise NoForm("a max pool with gaps or rounding up")
    return _pool(e, node, a, "MAX_POOL_2D", keep_codes=True)


@form("aten.avg_pool1d", "aten.avg_pool2d")
def _avg_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    if a.get("divisor_override") is not None or a["ceil_mode"]:
        raise NoForm("an average pool with another divisor or rounding up")
    return _pool(e, node, a, "AVERAGE_POOL_2D", keep_codes=True)


def _pool(e: Emitter, node: fx.Node, a: dict[str, Any], op_type: str, *, keep_codes: bool) -> Value:
    spatial = int(str(node.target).split("pool")[1][0])
    if value(node).dim() != spatial + 2:
        raise NoForm("a pool without a batch dimension")
    kernel = spread(a["kernel_size"], spatial)
    stride = spread(a["stride"], spatial) if a["stride"] else kernel
    pads = [(n, n) for n in spread(a["padding"], spatial)]
    x = as_image(e, a["self"], spatial)
    x = x if keep_codes else e.as_float(x)
    shape = window(
        value(a["self"]).shape[2:], value(node).shape[2:], kernel, stride, [1] * spatial, pads
    )
    if op_type == "AVERAGE_POOL_2D" and any(n != (0, 0) for n in pads):
        _check_average(a, shape.same)
    x = _pad_pool(e, node, a, x, op_type, shape, kernel, stride, pads)
    same = shape.same and not _counts_padding(a, op_type)
    made = Image.behind(e, node, x.grid)
    lifted = [1] * (2 - spatial)
    height, width = lifted + kernel
    steps = lifted + stride
    e.op(
        op_type, (x.tensor,), (made.value.tensor,), "Pool2DOptions",
        padding=SAME if same else VALID, strideH=steps[0], strideW=steps[1],
        filterHeight=height, filterWidth=width,
    )  # fmt: skip
    return made.close(e, node)


def _counts_padding(a: dict[str, Any], op_type: str) -> bool:
    return op_type == "AVERAGE_POOL_2D" and bool(a["count_include_pad"])


def _check_average(a: dict[str, Any], same: bool) -> None:
    if not a["count_include_pad"] and not same:
        raise NoForm("an average pool that leaves out padding TFLite does not know")


def _pad_pool(
    e: Emitter,
    node: fx.Node,
    a: dict[str, Any],
    x: Value,
    op_type: str,
    shape: Any,
    kernel: list[int],
    stride: list[int],
    pads: list[tuple[int, int]],
) -> Value:
    """The image with the padding the pool itself cannot add."""
    before = value(a["self"]).shape
    if _counts_padding(a, op_type) and shape.same:
        # TFLite leaves its own padding out of averages.
        whole = type(shape)(stride, [1] * len(stride), False, pads)
        return pad_spatial(e, x, before, whole)
    filler = None
    if op_type == "MAX_POOL_2D":
        filler = float(np.finfo(np.float32).min)
        if x.grid is not None:
            filler = float(np.iinfo(x.grid.dtype).min)
    return pad_spatial(e, x, before, shape, filler)


@form("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d")
def _adaptive_avg_pool(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    spatial = value(node).dim() - 2
    wanted = spread(a["output_size"], spatial)
    if all(size == 1 for size in wanted):
        dims = list(range(2, 2 + spatial))
        return reduce(e, node, a["self"], "MEAN", dims, True, integer=True)
    sizes = [fixed_size(size) for size in value(a["self"]).shape[2:]]
    if any(size is None or size % want for size, want in zip(sizes, wanted, strict=True)):
        raise NoForm("an adaptive pool over windows of unequal size")
    kernel = [int(size or 0) // want for size, want in zip(sizes, wanted, strict=True)]
    x = as_image(e, a["self"], spatial)
    made = Image.behind(e, node, x.grid)
    height, width = [1] * (2 - spatial) + kernel
    e.op(
        "AVERAGE_POOL_2D", (x.tensor,), (made.value.tensor,), "Pool2DOptions",
        padding=VALID, strideH=height, strideW=width, filterHeight=height, filterWidth=width,
    )  # fmt: skip
    return made.close(e, node)


@form("aten.upsample_nearest2d", "aten.upsample_bilinear2d")
def _resize(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    source = a["input"] if "input" in a else a["self"]
    x = as_image(e, source, 2)
    sizes = [fixed_size(size) for size in value(node).shape[2:]]
    if None in sizes:
        raise NoForm("resizing to a dynamic size")
    made = Image.behind(e, node, x.grid)
    inputs = (x.tensor, e.constant(sizes, "int32"))
    if "nearest" in str(node.target):
        e.op(
            "RESIZE_NEAREST_NEIGHBOR", inputs, (made.value.tensor,),
            "ResizeNearestNeighborOptions",
        )  # fmt: skip
    else:
        corners = bool(a["align_corners"])
        e.op(
            "RESIZE_BILINEAR", inputs, (made.value.tensor,), "ResizeBilinearOptions",
            alignCorners=corners, halfPixelCenters=not corners,
        )  # fmt: skip
    return made.close(e, node)


@form("aten.expand", "aten.expand_as", "aten.broadcast_to")
def _expand(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    before, after = value(a["self"]).shape, value(node).shape
    if [str(s) for s in before] == [str(s) for s in after]:
        return e.get(a["self"])
    sizes: Sequence[int | None] = [fixed_size(size) for size in after]
    if None in sizes:
        raise NoForm("an expansion to a dynamic size")
    x = e.as_float(e.plain(a["self"]))
    made = e.result(node, plain(len(after)), None, x.dtype)
    inputs = (x.tensor, e.constant(sizes, "int32"))
    e.op("BROADCAST_TO", inputs, (made.tensor,), "BroadcastToOptions")
    return made
