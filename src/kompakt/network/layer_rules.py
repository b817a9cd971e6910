"""Which operator belongs to which ``nn`` layer, and how to build that layer from a call.

Each rule is data: the operator, which of its arguments are weights, which are inputs, and one small
function that builds the layer (on the ``meta`` device; its tensors are put in afterwards).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LayerRule:
    """How calls of one operator become a layer.

    Attributes:
        operator: Name such as ``aten.linear``.
        inputs: Arguments that the layer's ``forward`` takes, in order.
        weights: Operator argument → attribute of the layer, for its parameters and buffers.
        build: From all arguments by name (weights as tensors) to a layer, or None when no layer
            does this.
        settings: Attributes that must be equal for the model's own layer to be used as it is.
    """

    operator: str
    inputs: tuple[str, ...]
    weights: Mapping[str, str]
    build: Callable[[Mapping[str, Any]], nn.Module | None]
    settings: tuple[str, ...]


_CONV_WEIGHTS = {"weight": "weight", "bias": "bias"}
_CONV_SETTINGS = ("stride", "padding", "dilation", "groups", "padding_mode", "transposed")
_NORM_WEIGHTS = {
    "weight": "weight",
    "bias": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
}


def _several(size: Any, rank: int) -> Any:
    """A list of ``rank`` sizes as a tuple; one number stands for all of them."""
    if isinstance(size, str):
        return size
    sizes = list(size) if isinstance(size, (list, tuple)) else [size]
    return tuple(sizes * rank if len(sizes) == 1 else sizes)


def _convolution(a: Mapping[str, Any]) -> nn.Module | None:
    weight: Tensor = a["weight"]
    rank = weight.ndim - 2
    layers: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    if a["input"].ndim != weight.ndim:
        return None
    return layers[rank](
        weight.shape[1] * a["groups"],
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_several(a["stride"], rank),
        padding=_several(a["padding"], rank),
        dilation=_several(a["dilation"], rank),
        groups=a["groups"],
        bias=a["bias"] is not None,
    )


def _transposed_convolution(a: Mapping[str, Any]) -> nn.Module | None:
    weight: Tensor = a["weight"]
    rank = weight.ndim - 2
    layers: dict[int, type[nn.Module]] = {
        1: nn.ConvTranspose1d,
        2: nn.ConvTranspose2d,
        3: nn.ConvTranspose3d,
    }
    if a["input"].ndim != weight.ndim or not _all_integers(a["output_padding"]):
        return None
    return layers[rank](
        weight.shape[0],
        weight.shape[1] * a["groups"],
        tuple(weight.shape[2:]),
        stride=_several(a["stride"], rank),
        padding=_several(a["padding"], rank),
        output_padding=_several(a["output_padding"], rank),
        dilation=_several(a["dilation"], rank),
        groups=a["groups"],
        bias=a["bias"] is not None,
    )


def _all_integers(sizes: Any) -> bool:
    return all(
        isinstance(size, int) for size in (sizes if isinstance(sizes, (list, tuple)) else [sizes])
    )


def _linear(a: Mapping[str, Any]) -> nn.Module | None:
    weight: Tensor = a["weight"]
    if weight.ndim != 2:
        return None
    return nn.Linear(weight.shape[1], weight.shape[0], bias=a["bias"] is not None)


def _batch_norm(a: Mapping[str, Any]) -> nn.Module | None:
    rank = a["input"].ndim
    layers: dict[int, type[nn.Module]] = {
        2: nn.BatchNorm1d,
        3: nn.BatchNorm1d,
        4: nn.BatchNorm2d,
        5: nn.BatchNorm3d,
    }
    tracked = a["running_mean"] is not None
    if rank not in layers or a["training"] == tracked:
        return None
    made = layers[rank](
        a["input"].shape[1],
        eps=a["eps"],
        momentum=a["momentum"],
        affine=a["weight"] is not None,
        track_running_stats=tracked,
    )
    if tracked:
        made.register_buffer("num_batches_tracked", None)
    return made


def _instance_norm(a: Mapping[str, Any]) -> nn.Module | None:
    layers: dict[int, type[nn.Module]] = {
        3: nn.InstanceNorm1d,
        4: nn.InstanceNorm2d,
        5: nn.InstanceNorm3d,
    }
    rank = a["input"].ndim
    tracked = a["running_mean"] is not None
    if rank not in layers or a["use_input_stats"] == tracked:
        return None
    return layers[rank](
        a["input"].shape[1],
        eps=a["eps"],
        momentum=a["momentum"],
        affine=a["weight"] is not None,
        track_running_stats=tracked,
    )


def _layer_norm(a: Mapping[str, Any]) -> nn.Module | None:
    return nn.LayerNorm(
        tuple(a["normalized_shape"]),
        eps=a["eps"],
        elementwise_affine=a["weight"] is not None,
        bias=a["bias"] is not None,
    )


def _rms_norm(a: Mapping[str, Any]) -> nn.Module | None:
    return nn.RMSNorm(
        tuple(a["normalized_shape"]), eps=a["eps"], elementwise_affine=a["weight"] is not None
    )


def _group_norm(a: Mapping[str, Any]) -> nn.Module | None:
    if (a["weight"] is None) != (a["bias"] is None):
        return None
    channels = a["input"].shape[1]
    return nn.GroupNorm(a["num_groups"], channels, eps=a["eps"], affine=a["weight"] is not None)


def _embedding(a: Mapping[str, Any]) -> nn.Module | None:
    rows, width = a["weight"].shape
    padding = None if a["padding_idx"] < 0 else a["padding_idx"]
    made = nn.Embedding(rows, width, padding_idx=padding, sparse=a["sparse"])
    made.scale_grad_by_freq = a["scale_grad_by_freq"]
    return made


def _prelu(a: Mapping[str, Any]) -> nn.Module | None:
    return nn.PReLU(a["weight"].numel()) if a["weight"].ndim == 1 else None


def _dropout(a: Mapping[str, Any]) -> nn.Module | None:
    return None if a["train"] else nn.Dropout(a["p"])


def _feature_dropout(a: Mapping[str, Any]) -> nn.Module | None:
    layers: dict[int, type[nn.Module]] = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
    rank = a["input"].ndim
    return None if a["train"] or rank not in layers else layers[rank](a["p"])


def _alpha_dropout(a: Mapping[str, Any]) -> nn.Module | None:
    return None if a["train"] else nn.AlphaDropout(a["p"])


def _rule(
    operator: str,
    build: Callable[[Mapping[str, Any]], nn.Module | None],
    weights: Mapping[str, str],
    settings: tuple[str, ...],
    inputs: tuple[str, ...] = ("input",),
) -> LayerRule:
    return LayerRule(
        operator=operator, inputs=inputs, weights=weights, build=build, settings=settings
    )


_RULES = (
    *(_rule(f"aten.conv{n}d", _convolution, _CONV_WEIGHTS, _CONV_SETTINGS) for n in (1, 2, 3)),
    *(
        _rule(
            f"aten.conv_transpose{n}d",
            _transposed_convolution,
            _CONV_WEIGHTS,
            (*_CONV_SETTINGS, "output_padding"),
        )
        for n in (1, 2, 3)
    ),
    _rule("aten.linear", _linear, _CONV_WEIGHTS, ()),
    _rule("aten.batch_norm", _batch_norm, _NORM_WEIGHTS, ("eps", "track_running_stats")),
    _rule("aten.instance_norm", _instance_norm, _NORM_WEIGHTS, ("eps", "track_running_stats")),
    _rule("aten.layer_norm", _layer_norm, _CONV_WEIGHTS, ("eps", "normalized_shape")),
    _rule("aten.rms_norm", _rms_norm, {"weight": "weight"}, ("eps", "normalized_shape")),
    _rule("aten.group_norm", _group_norm, _CONV_WEIGHTS, ("eps", "num_groups")),
    _rule(
        "aten.embedding",
        _embedding,
        {"weight": "weight"},
        ("padding_idx", "max_norm"),
        ("indices",),
    ),
    _rule("aten.prelu", _prelu, {"weight": "weight"}, (), ("self",)),
    _rule("aten.dropout", _dropout, {}, ("p",)),
    _rule("aten.feature_dropout", _feature_dropout, {}, ("p",)),
    _rule("aten.alpha_dropout", _alpha_dropout, {}, ("p",)),
)
LAYER_RULES: dict[str, LayerRule] = {rule.operator: rule for rule in _RULES}


def build_layer(rule: LayerRule, values: Mapping[str, Any]) -> nn.Module | None:
    """A layer for one call, its tensors still on the ``meta`` device; None when no layer computes
    this call.

    Args:
        rule: The rule of the operator.
        values: All arguments of the call by name; tensors may be fake.
    """
    with torch.device("meta"):
        return rule.build(values)
