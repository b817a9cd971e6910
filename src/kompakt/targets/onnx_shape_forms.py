"""ATen calls that move, look up or make tensors, as ONNX; and the arithmetic of sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from kompakt.network.operators import fixed_size, value
from kompakt.targets.onnx_emitter import Emitter, Form, NoForm, dtype_of
from kompakt.targets.onnx_forms import FORMS, element_type, form, rank_of

_FULL = 1 << 62


# Shapes


@form(
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


@form("aten.squeeze", "aten.unsqueeze")
def _squeeze(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    rank, after = rank_of(a["self"]), rank_of(node)
    dims: Any = a.get("dim")
    if "unsqueeze" in str(node.target):
        return e.op("Unsqueeze", e.get(a["self"]), e.constant([int(dims) % after]))
    given = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    sizes = value(a["self"]).shape
    axes = [d % rank for d in given if fixed_size(sizes[d]) == 1]
    if rank - len(axes) != after:
        raise NoForm("a squeeze of dynamic sizes")
    return e.op("Squeeze", e.get(a["self"]), e.constant(axes)) if axes else e.get(a["self"])


@form("aten.transpose", "aten.permute", "aten.t", "aten.numpy_T", "aten.swapaxes", "aten.mT")
def _transpose(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    rank = rank_of(node)
    order = list(range(rank))
    if "dims" in a:
        order = [int(d) % rank for d in a["dims"]]
    elif "dim0" in a:
        one, other = int(a["dim0"]) % rank, int(a["dim1"]) % rank
        order[one], order[other] = order[other], order[one]
    elif "mT" in str(node.target):
        order[-2:] = [rank - 1, rank - 2]
    else:
        order.reverse()
    if order == list(range(rank)):
        return e.get(a["self"])
    return e.op("Transpose", e.get(a["self"]), perm=order)


@form("aten.expand", "aten.expand_as", "aten.broadcast_to")
def _expand(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    sizes = a.get("size")
    if sizes is None:
        return e.op("Expand", e.get(a["self"]), e.op("Shape", e.get(a["other"])))
    return e.op("Expand", e.get(a["self"]), e.sizes([1 if size == -1 else size for size in sizes]))


@form("aten.slice")
def _slice(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    start = 0 if a["start"] is None else a["start"]
    end = _FULL if a["end"] is None else a["end"]
    axis = int(a["dim"])
    bounds = [e.sizes([start]), e.sizes([end])]
    return e.op("Slice", e.get(a["self"]), *bounds, e.constant([axis]), e.constant([a["step"]]))


@form("aten.narrow")
def _narrow(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if not isinstance(a["start"], int) or not isinstance(a["length"], int) or a["start"] < 0:
        raise NoForm("narrow with dynamic limits")
    bounds = [e.constant([a["start"]]), e.constant([a["start"] + a["length"]])]
    return e.op("Slice", e.get(a["self"]), *bounds, e.constant([int(a["dim"])]))


@form("aten.select")
def _select(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if not isinstance(a["index"], int):
        raise NoForm("a selection by a symbolic index")
    return e.op("Gather", e.get(a["self"]), e.constant(a["index"]), axis=int(a["dim"]))


@form("aten.cat", "aten.concat", "aten.concatenate")
def _cat(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    parts = e.get(a["tensors"], element_type(node))
    return e.op("Concat", *parts, axis=int(a["dim"]))


@form("aten.stack")
def _stack(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    axis = int(a["dim"]) % rank_of(node)
    parts = e.get(a["tensors"], element_type(node))
    lifted = [e.op("Unsqueeze", part, e.constant([axis])) for part in parts]
    return e.op("Concat", *lifted, axis=axis)


@form("aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split")
def _split(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    axis = int(a["dim"])
    sizes = [fixed_size(part.shape[axis]) for part in value(node)]
    if None in sizes:
        raise NoForm("a split of a dynamic size")
    parts = e.op("Split", e.get(a["self"]), e.constant(sizes), axis=axis, outputs=len(sizes))
    return [parts] if len(sizes) == 1 else parts


@form("aten.unbind")
def _unbind(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    axis, count = int(a["dim"]), len(value(node))
    return [e.op("Gather", e.get(a["self"]), e.constant(i), axis=axis) for i in range(count)]


@form("aten.repeat")
def _repeat(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    repeats = list(a["repeats"])
    x, missing = e.get(a["self"]), len(repeats) - rank_of(a["self"])
    if missing:
        x = e.op("Unsqueeze", x, e.constant(list(range(missing))))
    return e.op("Tile", x, e.sizes(repeats))


@form("aten.pad", "aten.constant_pad_nd")
def _pad(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    rank, given = rank_of(node), list(a["pad"])
    if not all(isinstance(n, int) for n in given):
        raise NoForm("dynamic padding")
    starts, ends = [0] * rank, [0] * rank
    for place in range(len(given) // 2):
        starts[rank - 1 - place], ends[rank - 1 - place] = given[2 * place], given[2 * place + 1]
    filler = []
    if a.get("mode", "constant") == "constant" and a.get("value"):
        filler = [e.constant(a["value"], element_type(node))]
    mode = modes[str(a.get("mode", "constant"))]
    return e.op("Pad", e.get(a["self"]), e.constant(starts + ends), *filler, mode=mode)


# Looking up


@form("aten.gather")
def _gather(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op(
        "GatherElements", e.get(a["self"]), e.get(a["index"], torch.int64), axis=int(a["dim"])
    )


@form("aten.index_select")
def _index_select(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.op("Gather", e.get(a["self"]), e.get(a["index"], torch.int64), axis=int(a["dim"]))


@form("aten.index")
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


@form("aten.arange")
def _arange(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    kind = element_type(node)
    limits = [a.get("start", 0), a["end"], a.get("step", 1)]
    scalars = [
        e.get(limit) if isinstance(limit, fx.Node) else e.constant(limit, kind) for limit in limits
    ]
    if kind != torch.int64 and any(isinstance(limit, fx.Node) for limit in limits):
        raise NoForm("a range of other numbers than int64")
    return e.op("Range", *scalars)


def _filled(number: Callable[[dict[str, Any]], Any]) -> Form:
    def written(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        filler = e.constant(number(a), element_type(node))
        sizes = a.get("size")
        if sizes is None:
            return e.op("Expand", filler, e.op("Shape", e.get(a["self"])))
        return e.op("Expand", filler, e.sizes(sizes)) if sizes else filler

    return written


for _name in ("zeros", "new_zeros", "zeros_like"):
    FORMS[f"aten.{_name}"] = _filled(lambda a: 0)
for _name in ("ones", "new_ones", "ones_like"):
    FORMS[f"aten.{_name}"] = _filled(lambda a: 1)
for _name in ("full", "full_like", "new_full"):
    FORMS[f"aten.{_name}"] = _filled(lambda a: a["fill_value"])


@form("aten.scalar_tensor")
def _scalar(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.constant(a["s"], element_type(node))


@form("aten.to", "aten._to_copy", "aten.type_as")
def _to(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    before, after = element_type(a["self"]), element_type(node)
    if before.is_floating_point and after in (torch.uint8, torch.int8):
        raise NoForm("a cast of floats to 8-bit integers")
    return e.get(a["self"], after)


@form(
    "aten.contiguous", "aten.alias", "aten.detach", "aten.clone", "aten.lift_fresh_copy",
    "aten.lift_fresh", "aten.dropout",
)  # fmt: skip
def _same(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    if a.get("train"):
        raise NoForm("dropout in train mode")
    return e.get(a.get("self", a.get("input")))


# Sizes


@form("aten.sym_size")
def _sym_size(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    return e.size(a["self"], int(a["dim"]))


def size_arithmetic(op_type: str) -> Form:
    """Arithmetic of sizes, which are int64 vectors of one."""

    def written(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        left, right = (
            e.values[item] if isinstance(item, fx.Node) else e.constant([item])
            for item in node.args
        )
        return e.op(op_type, left, right)

    return written
