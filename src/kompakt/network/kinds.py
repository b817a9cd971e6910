"""One vocabulary for what a node does, whether it is a layer, an ATen call or an operator of ours.

Everything that decides by operator (where quantizers go, how layers are counted, what is folded)
asks :func:`kind_of` and never looks at overloads itself.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, fx, nn

from kompakt.network.operators import arguments, is_operator, operator_name, value

MODULE_KINDS: dict[type[nn.Module], str] = {
    nn.Conv1d: "conv",
    nn.Conv2d: "conv",
    nn.Conv3d: "conv",
    nn.ConvTranspose1d: "conv_transpose",
    nn.ConvTranspose2d: "conv_transpose",
    nn.ConvTranspose3d: "conv_transpose",
    nn.Linear: "linear",
    nn.Embedding: "embedding",
    nn.LSTM: "rnn",
    nn.GRU: "rnn",
    nn.RNN: "rnn",
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.BatchNorm3d: "batch_norm",
    nn.InstanceNorm1d: "norm",
    nn.InstanceNorm2d: "norm",
    nn.InstanceNorm3d: "norm",
    nn.LayerNorm: "layer_norm",
    nn.GroupNorm: "group_norm",
    nn.RMSNorm: "norm",
    nn.PReLU: "prelu",
    nn.Dropout: "dropout",
    nn.Dropout1d: "dropout",
    nn.Dropout2d: "dropout",
    nn.Dropout3d: "dropout",
    nn.AlphaDropout: "dropout",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Identity: "identity",
}

OPERATOR_KINDS: dict[str, str] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "conv"),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), "conv_transpose"),
    "linear": "linear",
    "embedding": "embedding",
    **dict.fromkeys(("matmul", "bmm", "mm"), "matmul"),
    "batch_norm": "batch_norm",
    "layer_norm": "layer_norm",
    "group_norm": "group_norm",
    **dict.fromkeys(("instance_norm", "rms_norm"), "norm"),
    "relu": "relu",
    "relu6": "relu6",
    "leaky_relu": "leaky_relu",
    "prelu": "prelu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "gelu": "gelu",
    "silu": "silu",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    **dict.fromkeys(("softmax", "_softmax"), "softmax"),
    "scaled_dot_product_attention": "attention",
    **dict.fromkeys(("cat", "concat", "concatenate"), "cat"),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), "max_pool"),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), "avg_pool"),
    "mean": "mean",
    **dict.fromkeys(("pad", "constant_pad_nd"), "pad"),
    **dict.fromkeys(
        (
            "view",
            "reshape",
            "flatten",
            "squeeze",
            "unsqueeze",
            "unflatten",
            "view_as",
            "_unsafe_view",
        ),
        "reshape",
    ),
    **dict.fromkeys(
        ("transpose", "permute", "t", "movedim", "swapaxes", "numpy_T", "mT", "adjoint"),
        "transpose",
    ),
    **dict.fromkeys(("slice", "select", "narrow"), "slice"),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unbind"), "split"),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), "expand"),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), "dropout"),
    **dict.fromkeys(
        ("contiguous", "alias", "detach", "clone", "lift_fresh_copy", "lift_fresh", "detach_"),
        "identity",
    ),
    **dict.fromkeys(
        (
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_nearest3d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "upsample_linear1d",
            "upsample_trilinear3d",
        ),
        "upsample",
    ),
}

KINDS: tuple[str, ...] = tuple(
    sorted(
        {
            *MODULE_KINDS.values(),
            *OPERATOR_KINDS.values(),
            *(
                "clamp",
                "add",
                "add_scalar",
                "mul",
                "mul_scalar",
                "sub",
                "sub_scalar",
                "div",
                "div_scalar",
            ),
            *("global_average_pool", "getitem", "shape", "input", "output", "constant", "other"),
        }
    )
)
_ARITHMETIC = {"aten.add": "add", "aten.sub": "sub", "aten.mul": "mul", "aten.div": "div"}


def kind_of(node: fx.Node) -> str:
    """What ``node`` does, as one of :data:`KINDS`.

    Args:
        node: A node of a graph that belongs to a GraphModule.
    """
    if node.op == "call_module":
        return _module_kind(node)
    fixed = {"placeholder": "input", "output": "output", "get_attr": "constant"}.get(node.op)
    if fixed is not None:
        return fixed
    if node.target is operator.getitem:
        return "getitem"
    if not is_operator(node):
        return "shape" if not isinstance(node.meta.get("val"), Tensor) else "other"
    return _operator_kind(node)


def layer_of(node: fx.Node) -> nn.Module | None:
    """The module a ``call_module`` node calls, or None."""
    owner = node.graph.owning_module
    if node.op != "call_module" or owner is None:
        return None
    return owner.get_submodule(str(node.target))


def _module_kind(node: fx.Node) -> str:
    layer = layer_of(node)
    declared = getattr(layer, "kind", None)
    if isinstance(declared, str):
        return declared
    for parent in type(layer).__mro__:
        if parent in MODULE_KINDS:
            return MODULE_KINDS[parent]
    return "other"


def _operator_kind(node: fx.Node) -> str:
    name = operator_name(node)
    if name in ("kompakt.global_average_pool", "kompakt.rnn"):
        return name.removeprefix("kompakt.")
    if name.startswith("aten.sym_"):
        return "shape"
    if name in _ARITHMETIC:
        return _arithmetic_kind(node, _ARITHMETIC[name])
    if name in ("aten.clamp", "aten.hardtanh", "aten.clip", "aten.clamp_min", "aten.clamp_max"):
        return _clamp_kind(node)
    if name.startswith("aten.adaptive_avg_pool"):
        sizes = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
        return "global_average_pool" if all(size == 1 for size in sizes) else "avg_pool"
    if name in ("aten.to", "aten._to_copy", "aten.type_as"):
        return "identity" if _same_dtype(node) else "other"
    return (
        OPERATOR_KINDS.get(name.removeprefix("aten."), "other")
        if name.startswith("aten.")
        else "other"
    )


def _arithmetic_kind(node: fx.Node, word: str) -> str:
    """``add`` for two tensors, ``add_scalar`` for a tensor and a number (or a symbolic size)."""
    both = all(isinstance(value(argument), Tensor) for argument in node.args[:2])
    return word if both else f"{word}_scalar"


def clamp_limits(node: fx.Node) -> tuple[float | None, float | None]:
    """Lower and upper limit of a clamp-like node; None where there is none or it is not a
    number.
    """
    found = arguments(node)
    name = operator_name(node)
    if name == "aten.relu":
        return 0.0, None
    if name == "aten.relu6":
        return 0.0, 6.0
    low = found.get("min_val", found.get("min"))
    high = found.get("max_val", found.get("max"))
    return _number(low), _number(high)


def _clamp_kind(node: fx.Node) -> str:
    limits = clamp_limits(node)
    if limits == (0.0, 6.0):
        return "relu6"
    return "relu" if limits == (0.0, None) else "clamp"


def _number(limit: Any) -> float | None:
    return float(limit) if isinstance(limit, (int, float)) else None


def _same_dtype(node: fx.Node) -> bool:
    before, after = value(node.args[0]), value(node)
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    return before.dtype == after.dtype and before.device == after.device
