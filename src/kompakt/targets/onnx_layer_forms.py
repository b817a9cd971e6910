"""How layers and quantizers are written in ONNX: one function for each kind of module."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from kompakt.network.dropout import ScaledDotProductAttention
from kompakt.network.operators import value
from kompakt.numerics.granularity import PerChannel, PerGroup
from kompakt.quantize.layers import Treated
from kompakt.quantize.quantizer import Quantizer
from kompakt.targets.onnx_emitter import Emitter, Form, NoForm
from kompakt.targets.onnx_forms import FORMS
from kompakt.targets.onnx_operator_forms import linear

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def layer_form(layer: nn.Module) -> Form:
    """The form of a module.

    Raises:
        NoForm: There is none.
    """
    for kinds, form in _LAYERS:
        if isinstance(layer, kinds):
            return form
    raise NoForm(f"no form for a {type(layer).__name__}")


def _layer(e: Emitter, node: fx.Node) -> Any:
    return e.network.get_submodule(str(node.target))


def dimensions(node: fx.Node, otherwise: int) -> int:
    """The rank of a value; ``otherwise`` where it is not known."""
    fake = value(node)
    return int(fake.dim()) if isinstance(fake, Tensor) else otherwise


def _parameter(e: Emitter, node: fx.Node, name: str) -> ir.Value:
    return e.tensor(f"{node.target}.{name}", getattr(_layer(e, node), name))


def _quantizer(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    """A quantize/dequantize pair."""
    layer = _layer(e, node)
    assert isinstance(layer, Quantizer)
    if layer.stage == "off":
        return e.get(a["input"])
    layer.parameters_()
    grid = [_parameter(e, node, "scale"), _parameter(e, node, "zero_point")]
    axis = layer.axis if isinstance(layer.granularity, PerChannel) else None
    codes = e.op("QuantizeLinear", e.get(a["input"]), *grid, axis=axis)
    codes.shape, codes.type = e.get(a["input"]).shape, grid[1].type
    return e.op("DequantizeLinear", codes, *grid, axis=axis)


def _weight(e: Emitter, node: fx.Node) -> ir.Value:
    """The weight of a layer, decoded from what is stored where it is treated."""
    layer = _layer(e, node)
    if not isinstance(layer, Treated) or layer.stage == "off":
        return _parameter(e, node, "weight")
    if not layer.frozen:
        raise NoForm(f"{node.target} is not frozen")
    codes = _parameter(e, node, "weight_codes")
    if layer.stored_float:
        return e.cast(codes, torch.float32)
    scale = _parameter(e, node, "weight_scale")
    granularity = layer.treatment.granularity
    axis = granularity.axis if isinstance(granularity, PerChannel) else None
    if layer.treatment.mode != "weight_only":
        zero = _parameter(e, node, "weight_zero_point")
        return e.op("DequantizeLinear", codes, scale, zero, axis=axis)  # type: ignore[no-any-return]
    # Plain arithmetic on constants: runtimes do it once, when they load the file.
    shape = [1] * layer.weight.dim()
    if axis is not None:
        shape[axis] = -1
    numbers = e.cast(codes, torch.float32)
    if layer.has_zero_point:
        zero = e.cast(_parameter(e, node, "weight_zero_point"), torch.float32)
        numbers = e.op("Sub", numbers, e.op("Reshape", zero, e.constant(shape)))
    return e.op("Mul", numbers, e.op("Reshape", scale, e.constant(shape)))  # type: ignore[no-any-return]


def _bias(e: Emitter, node: fx.Node) -> ir.Value | None:
    layer = _layer(e, node)
    if layer.bias is None:
        return None
    coded = isinstance(layer, Treated) and layer.bias_codes is not None and layer.stage != "off"
    if not coded:
        return _parameter(e, node, "bias")
    codes, scale = _parameter(e, node, "bias_codes"), _parameter(e, node, "bias_scale")
    return e.op("DequantizeLinear", codes, scale, axis=0)  # type: ignore[no-any-return]


def _convolution(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    spatial = len(layer.kernel_size)
    x = e.get(a["input"])
    if dimensions(a["input"], spatial + 2) != spatial + 2:
        raise NoForm("a convolution without a batch dimension")
    # PyTorch keeps amounts for its own padding modes, last dimension first.
    amounts = list(layer._reversed_padding_repeated_twice)
    starts, ends = amounts[0::2][::-1], amounts[1::2][::-1]
    if layer.padding_mode not in ("zeros", "constant"):
        modes = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        pads = e.constant([0, 0, *starts, 0, 0, *ends])
        x = e.op("Pad", x, pads, mode=modes[layer.padding_mode])
        starts = ends = [0] * spatial
    bias = _bias(e, node)
    return e.op(
        "Conv",
        x,
        _weight(e, node),
        *([] if bias is None else [bias]),
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=[int(n) for n in (*starts, *ends)],
        dilations=list(layer.dilation),
        group=layer.groups,
    )


def _transposed(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    spatial = len(layer.kernel_size)
    if a.get("output_size") is not None or dimensions(a["input"], spatial + 2) != spatial + 2:
        raise NoForm("a transposed convolution with an output size, or without a batch dimension")
    bias = _bias(e, node)
    return e.op(
        "ConvTranspose",
        e.get(a["input"]),
        _weight(e, node),
        *([] if bias is None else [bias]),
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=list(layer.padding) * 2,
        output_padding=list(layer.output_padding),
        dilations=list(layer.dilation),
        group=layer.groups,
    )


def _linear_layer(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer, x = _layer(e, node), e.get(a["input"])
    rank = value(a["input"]).dim()
    treated = isinstance(layer, Treated) and layer.stage != "off"
    if treated and layer.treatment.mode == "dynamic":
        return _dynamic_linear(e, node, x)
    if treated and isinstance(layer.treatment.granularity, PerGroup):
        return _blocked_linear(e, node, x, rank)
    return linear(e, x, _weight(e, node), _bias(e, node), rank)


def _dynamic_linear(e: Emitter, node: fx.Node, x: ir.Value) -> Any:
    codes, scale, zero = e.op("DynamicQuantizeLinear", x, outputs=3)
    weight = _parameter(e, node, "weight_codes")
    sums = e.cast(e.op("MatMulInteger", codes, weight, zero), torch.float32)
    result = e.op("Mul", sums, e.op("Mul", scale, _parameter(e, node, "weight_scale")))
    bias = _bias(e, node)
    return result if bias is None else e.op("Add", result, bias)


def _blocked_linear(e: Emitter, node: fx.Node, x: ir.Value, rank: int) -> Any:
    """Weights in groups; rank 3, because ONNX Runtime makes a Gemm of some products of rank 2."""
    layer = _layer(e, node)
    grid = [_parameter(e, node, "weight_codes"), _parameter(e, node, "weight_scale")]
    if layer.has_zero_point:
        grid.append(_parameter(e, node, "weight_zero_point"))
    block = layer.treatment.granularity.size
    weight = e.op("DequantizeLinear", *grid, axis=0, block_size=block)
    rows = e.op("Unsqueeze", x, e.constant([0])) if rank == 2 else x
    result = e.op("MatMul", rows, weight)
    bias = _bias(e, node)
    result = result if bias is None else e.op("Add", result, bias)
    return e.op("Squeeze", result, e.constant([0])) if rank == 2 else result


def _embedding(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer, ids = _layer(e, node), e.get(a["input"])
    if layer.max_norm is not None:
        raise NoForm("an embedding that renormalises its rows")
    coded = isinstance(layer, Treated) and layer.stage != "off" and not layer.stored_float
    if not coded or layer.treatment.granularity != PerChannel(0):
        return e.op("Gather", _weight(e, node), ids, axis=0)

    def rows(name: str) -> Any:
        tensor: Tensor = getattr(layer, name)
        stored = e.tensor(f"{node.target}.{name}", tensor)
        lifted = stored if tensor.dim() > 1 else e.op("Unsqueeze", stored, e.constant([-1]))
        return e.op("Gather", lifted, ids, axis=0)

    codes = e.cast(rows("weight_codes"), torch.float32)
    if layer.has_zero_point:
        codes = e.op("Sub", codes, e.cast(rows("weight_zero_point"), torch.float32))
    return e.op("Mul", codes, rows("weight_scale"))


def _layer_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    if layer.weight is None:
        raise NoForm("layer norm without a weight")
    bias = [] if layer.bias is None else [_parameter(e, node, "bias")]
    weight = _parameter(e, node, "weight")
    axis = -len(layer.normalized_shape)
    x = e.get(a["input"])
    return e.op("LayerNormalization", x, weight, *bias, axis=axis, epsilon=float(layer.eps))


def _group_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    if layer.weight is None:
        raise NoForm("group norm without a weight")
    given = [_parameter(e, node, name) for name in ("weight", "bias")]
    x, groups = e.get(a["input"]), int(layer.num_groups)
    return e.op("GroupNormalization", x, *given, num_groups=groups, epsilon=float(layer.eps))


def _batch_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    if layer.running_mean is None or layer.weight is None or layer.training:
        raise NoForm("a batch norm without statistics or weights, or in train mode")
    names = ("weight", "bias", "running_mean", "running_var")
    given = [_parameter(e, node, name) for name in names]
    return e.op("BatchNormalization", e.get(a["input"]), *given, epsilon=float(layer.eps))


def _prelu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    slope, rank = _parameter(e, node, "weight"), value(a["input"]).dim()
    count = _layer(e, node).weight.numel()
    if count > 1 and rank > 2:
        slope = e.op("Reshape", slope, e.constant([count] + [1] * (rank - 2)))
    return e.op("PRelu", e.get(a["input"]), slope)


def _activation(name: str) -> Form:
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        return FORMS[f"aten.{name}"](e, node, {"self": a["input"]})

    return form


def _identity(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    if layer.training and not isinstance(layer, nn.Identity):
        raise NoForm("dropout in train mode")
    return e.get(a["input"])


def _attention(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    names = ("query", "key", "value", "attn_mask")
    given: dict[str, Any] = dict.fromkeys(names) | {"is_causal": False, "scale": None}
    given |= {"enable_gqa": False, "dropout_p": 0.0} | dict(layer.settings)
    given |= dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return FORMS["aten.scaled_dot_product_attention"](e, node, given)


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)
_LAYERS: tuple[tuple[Any, Form], ...] = (
    (Quantizer, _quantizer),
    (_CONVOLUTIONS, _convolution),
    (_TRANSPOSED, _transposed),
    (nn.Linear, _linear_layer),
    (nn.Embedding, _embedding),
    (nn.LayerNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    (nn.PReLU, _prelu),
    (nn.ReLU, _activation("relu")),
    (nn.ReLU6, _activation("relu6")),
    (ScaledDotProductAttention, _attention),
    (_DROPOUTS, _identity),
)

__all__ = ["layer_form"]
