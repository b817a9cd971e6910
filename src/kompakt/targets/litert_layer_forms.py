"""How layers with weights are written in TFLite: convolutions, linear layers, embeddings, normalisations.

A layer is an integer operator when its weights are static codes, its input holds codes and a quantizer follows it;
else it computes in float, with weights that are decoded once, when the file is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from kompakt.network.dropout import ScaledDotProductAttention
from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.operators import arguments, fixed_size, value
from kompakt.numerics.granularity import PerChannel
from kompakt.quantize.kinds import padding_mode, placing_kind
from kompakt.quantize.layers import Treated
from kompakt.quantize.quantizer import Quantizer
from kompakt.targets.litert_emitter import Emitter, Form, Grid, NoForm, Value, channels_last, plain
from kompakt.targets.litert_images import Image, as_image
from kompakt.targets.litert_operator_forms import FORMS, epilogue
from kompakt.targets.litert_padding import Window, pad_spatial, padding_of, window
from kompakt.targets.litert_schema import Quantization
from kompakt.targets.litert_sum_forms import normalise

SAME, VALID = 0, 1


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


def is_static(layer: nn.Module) -> bool:
    """Whether a layer computes on codes."""
    treated = isinstance(layer, Treated) and layer.stage != "off"
    return treated and layer.treatment.mode == "static"


def _quantizer(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    layer = _layer(e, node)
    assert isinstance(layer, Quantizer)
    found = e.get(a["input"])
    if layer.stage == "off":
        return found
    site = str(node.meta.get("site", node.name))
    codes = e.quantized(found, Grid.of(layer), f"{site}_codes")
    if site not in e.codes:
        e.codes[site] = codes.tensor
        e.orders.setdefault(codes.tensor, codes.order)
    return codes


# Weights


def integer_weight(
    e: Emitter, layer: Any, path: str, codes: Tensor, axis: int, name: str = "weight"
) -> int:
    """Weight codes of a static layer in the layout of its operator.

    Args:
        e: The graph.
        layer: The frozen layer.
        path: Its path.
        codes: The codes, already in that layout.
        axis: Where the output channels are in it.
        name: Of the tensor.

    Raises:
        NoForm: The codes have a zero point, which the 8-bit kernels do not know.
    """
    if not layer.frozen:
        raise NoForm(f"{path} is not frozen")
    if bool(layer.weight_zero_point.any()):
        raise NoForm(f"{path} has weights with a zero point")
    scales = layer.weight_scale.reshape(-1)
    channels = codes.shape[axis]
    if isinstance(layer.treatment.granularity, PerChannel):
        scales = scales.expand(channels)
    grid = Quantization(_floats(scales), (0,) * len(scales), axis if len(scales) > 1 else 0)
    dtype = "int4" if str(layer.treatment.weight).startswith("int4") else "int8"
    return e.constant(codes.numpy(), dtype, grid, f"{path}.{name}")


def integer_bias(e: Emitter, layer: Any, path: str, x: Grid, channels: int) -> int:
    """The bias as codes of scale input scale · weight scale: int32, or int64 beside 16-bit codes; -1 for none."""
    if layer.bias is None:
        return -1
    scale = torch.tensor(x.scale) * layer.weight_scale
    if layer.bias_codes is not None:
        codes = layer.bias_codes
    else:
        codes = torch.round(layer.bias.detach().double() / scale.double())
    scales = scale.reshape(-1)
    if isinstance(layer.treatment.granularity, PerChannel):
        scales = scales.expand(channels)
    wide = "int64" if x.dtype == "int16" else "int32"
    grid = Quantization(_floats(scales), (0,) * len(scales))
    return e.constant(codes.numpy().astype(wide), wide, grid, f"{path}.bias")


def _floats(scales: Tensor) -> tuple[float, ...]:
    return tuple(float(s) for s in scales)


def float_weight(e: Emitter, layer: Any, path: str, permutation: Sequence[int]) -> int:
    """The weight a float operator computes with: stored as it is, or decoded from codes when the file is loaded."""
    if not isinstance(layer, Treated) or layer.stage == "off" or not layer.frozen:
        weight = layer.weight.detach().permute(*permutation)
        return e.constant(weight.numpy(), "float32", None, f"{path}.weight")
    assert layer.weight_codes is not None
    treatment = layer.treatment
    half = layer.weight_codes.dtype == torch.float16
    simple = treatment.mode == "weight_only" and not layer.stored_float
    if half or (simple and not bool(layer.weight_zero_point.any())):  # type: ignore[union-attr]
        return _decoded_at_load(e, layer, path, permutation, half=half)
    weight = layer.treated_weight().detach().permute(*permutation)
    return e.constant(weight.contiguous().numpy(), "float32", None, f"{path}.weight")


def _decoded_at_load(
    e: Emitter, layer: Any, path: str, permutation: Sequence[int], *, half: bool
) -> int:
    codes = layer.weight_codes.permute(*permutation).contiguous()
    if half:
        stored = e.constant(codes.numpy(), "float16", None, f"{path}.weight")
    else:
        scales = layer.weight_scale.reshape(-1)
        axis = list(permutation).index(0) if len(scales) > 1 else 0
        grid = Quantization(_floats(scales), (0,) * len(scales), axis)
        dtype = "int4" if str(layer.treatment.weight).startswith("int4") else "int8"
        stored = e.constant(codes.numpy(), dtype, grid, f"{path}.weight")
    key = ("decoded", stored)
    if key not in e.decoded:
        made = e.new(tuple(codes.shape), plain(codes.dim()), name=f"{path}.weight_float")
        e.op("DEQUANTIZE", (stored,), (made.tensor,), "DequantizeOptions")
        e.decoded[key] = made.tensor
    return e.decoded[key]


# Convolutions


def convolution(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    """A convolution over one or two spatial dimensions, with the padding and activation around it."""
    layer, path = _layer(e, node), str(node.target)
    spatial = len(layer.kernel_size)
    if spatial > 2 or value(a["input"]).dim() != spatial + 2:
        raise NoForm("a convolution over three dimensions, or without a batch dimension")
    source, amounts = absorbed_padding(e, a["input"], spatial)
    own = list(layer._reversed_padding_repeated_twice)
    own = [(int(s), int(t)) for s, t in zip(own[0::2][::-1], own[1::2][::-1], strict=True)]
    if layer.padding_mode != "zeros":
        raise NoForm(f"a convolution that pads with mode {layer.padding_mode}")
    pads = [(s + o, t + p) for (s, t), (o, p) in zip(amounts, own, strict=True)]
    x = as_image(e, source, spatial)
    end, activation = epilogue(e, node)
    grid = e.grid_behind(end) if is_static(layer) and x.grid is not None else None
    x = x if grid is not None else e.as_float(x)
    shape = window(
        value(source).shape[2:], value(node).shape[2:], layer.kernel_size, layer.stride,
        layer.dilation, pads,
    )  # fmt: skip
    x = pad_spatial(e, x, value(source).shape, shape)
    made = Image.behind(e, end, grid)
    weight, bias, depthwise = _convolution_constants(e, layer, path, x, grid)
    settings = _window_settings(shape, spatial) | {"fusedActivationFunction": activation}
    if depthwise:
        multiplier = layer.out_channels // layer.in_channels
        e.op(
            "DEPTHWISE_CONV_2D", (x.tensor, weight, bias), (made.value.tensor,),
            "DepthwiseConv2DOptions", depthMultiplier=multiplier, **settings,
        )  # fmt: skip
    else:
        inputs = (x.tensor, weight, bias)
        e.op("CONV_2D", inputs, (made.value.tensor,), "Conv2DOptions", **settings)
    return made.close(e, end)


def _window_settings(shape: Window, spatial: int) -> dict[str, int]:
    stride, dilation = [1] * (2 - spatial) + shape.stride, [1] * (2 - spatial) + shape.dilation
    return {
        "padding": SAME if shape.same else VALID,
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
    }


def _convolution_constants(
    e: Emitter, layer: Any, path: str, x: Value, grid: Grid | None
) -> tuple[int, int, bool]:
    """Weight and bias of a convolution, and whether it is depthwise."""
    depthwise = layer.groups == layer.in_channels and layer.groups > 1
    spatial = len(layer.kernel_size)
    # (O, I/g, H, W) becomes (O, H, W, I/g), or (1, H, W, O) when depthwise.
    permutation = [1, 2, 3, 0] if depthwise else [0, 2, 3, 1]
    axis = 3 if depthwise else 0
    lifted = _Lifted(layer, spatial)
    if grid is not None:
        assert x.grid is not None
        codes = lifted.codes.permute(*permutation).contiguous()
        weight = integer_weight(e, layer, path, codes, axis)
        return weight, integer_bias(e, layer, path, x.grid, layer.out_channels), depthwise
    if spatial == 1:
        permutation = [1, 2, 0] if depthwise else [0, 2, 1]
    weight = float_weight(e, layer, path, permutation)
    if spatial == 1:
        weight = _lift_constant(e, weight, 1)
    return weight, _bias_as_float(e, layer, path), depthwise


class _Lifted:
    """The codes of a convolution as those of a two-dimensional one."""

    def __init__(self, layer: Any, spatial: int) -> None:
        codes: Tensor = layer.weight_codes if is_static(layer) else layer.weight
        self.codes = codes if spatial == 2 else codes.unsqueeze(2)


def _lift_constant(e: Emitter, weight: int, axis: int) -> int:
    """A stored weight with one more dimension of size 1."""
    row = e.tensors[weight]
    if row.content is None:
        raise NoForm("a one-dimensional convolution with compressed weights")
    return e.constant(np.expand_dims(row.content, axis), row.dtype, None, row.name)


def _bias_as_float(e: Emitter, layer: Any, path: str) -> int:
    if layer.bias is None:
        return e.constant(np.zeros(layer.weight.shape[0]), "float32", None, "zeros")
    bias: Tensor = layer.treated_bias() if isinstance(layer, Treated) else layer.bias  # type: ignore[assignment]
    return e.constant(bias.detach().numpy(), "float32", None, f"{path}.bias")


def absorbed_padding(
    e: Emitter, source: fx.Node, spatial: int
) -> tuple[fx.Node, list[tuple[int, int]]]:
    """What a convolution really reads, and what a padding before it adds at each end of its spatial dimensions."""
    if source in e.values and not isinstance(e.values[source], Skipped):
        return source, [(0, 0)] * spatial
    return source.args[0], padding_of(source, spatial)  # type: ignore[return-value]


class Skipped:
    """Stands for the value of a call that its reader writes."""


def is_absorbed(node: fx.Node) -> bool:
    """Whether a padding with zeros is written by the convolution that is its only reader."""
    if placing_kind(node) != "pad" or padding_mode(node) != "constant" or len(node.users) != 1:
        return False
    reader = next(iter(node.users))
    if kind_of(reader) != "conv" or layer_of(reader) is None:
        return False
    spatial = value(node).dim() - 2
    given = arguments(node)["pad"]
    return len(given) <= 2 * spatial and all(fixed_size(n) is not None for n in given)


# Linear layers


def linear_layer(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    """A linear layer on any number of leading dimensions."""
    layer, path = _layer(e, node), str(node.target)
    x = e.plain(a["input"])
    end, activation = epilogue(e, node)
    grid = e.grid_behind(end) if is_static(layer) and x.grid is not None else None
    rank = value(a["input"]).dim()
    settings = {"fusedActivationFunction": activation, "keepNumDims": rank != 2}
    if grid is not None:
        assert x.grid is not None
        weight = integer_weight(e, layer, path, layer.weight_codes, 0)
        bias = integer_bias(e, layer, path, x.grid, layer.out_features)
    else:
        x = e.as_float(x)
        dynamic = isinstance(layer, Treated) and layer.treatment.mode == "dynamic" and layer.frozen
        if dynamic:
            weight = integer_weight(e, layer, path, layer.weight_codes.t().contiguous(), 0)
            settings["asymmetricQuantizeInputs"] = True
        else:
            weight = float_weight(e, layer, path, [0, 1])
        bias = _bias_as_float(e, layer, path)
    made = e.result(end, plain(rank), grid)
    e.op(
        "FULLY_CONNECTED", (x.tensor, weight, bias), (made.tensor,), "FullyConnectedOptions",
        **settings,
    )  # fmt: skip
    return made


def _embedding(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    layer, path, ids = _layer(e, node), str(node.target), e.plain(a["input"])
    if layer.max_norm is not None:
        raise NoForm("an embedding that renormalises its rows")
    table = float_weight(e, layer, path, [0, 1])
    made = e.result(node, plain(value(node).dim()))
    e.op("GATHER", (table, ids.tensor), (made.tensor,), "GatherOptions", axis=0, batchDims=0)
    return made


def _layer_norm(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    layer, path = _layer(e, node), str(node.target)
    weight, bias = (
        None if tensor is None else e.stored(f"{path}.{name}", tensor).tensor
        for name, tensor in (("weight", layer.weight), ("bias", layer.bias))
    )
    return normalise(
        e, node, a["input"], len(layer.normalized_shape), float(layer.eps), weight, bias
    )


def _attention(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
    layer = _layer(e, node)
    names = ("query", "key", "value", "attn_mask")
    given: dict[str, Any] = dict.fromkeys(names) | {"is_causal": False, "scale": None}
    given |= {"enable_gqa": False, "dropout_p": 0.0} | dict(layer.settings)
    given |= dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return FORMS["aten.scaled_dot_product_attention"](e, node, given)


def _prelu(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    rank = value(node).dim()
    x = e.as_float(e.get(a["input"], channels_last(rank)))
    slope = _layer(e, node).weight.detach().numpy()
    shape = [1] * (rank - 2) + [slope.size]
    alpha = e.constant(slope.reshape(shape), "float32", None, f"{node.target}.weight")
    made = e.result(node, x.order)
    e.op("PRELU", (x.tensor, alpha), (made.tensor,))
    return made


def _activation(name: str) -> Form:
    def form(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Any:
        return FORMS[f"aten.{name}"](e, node, {"self": a["input"]})

    return form


def _identity(e: Emitter, node: fx.Node, a: dict[str, Any]) -> Value:
    layer = _layer(e, node)
    if layer.training and not isinstance(layer, nn.Identity):
        raise NoForm("dropout in train mode")
    return e.get(a["input"])


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)
_LAYERS: tuple[tuple[Any, Form], ...] = (
    (Quantizer, _quantizer),
    ((nn.Conv1d, nn.Conv2d), convolution),
    (nn.Linear, linear_layer),
    (nn.Embedding, _embedding),
    (nn.LayerNorm, _layer_norm),
    (nn.PReLU, _prelu),
    (ScaledDotProductAttention, _attention),
    (nn.ReLU, _activation("relu")),
    (nn.ReLU6, _activation("relu6")),
    (_DROPOUTS, _identity),
)

__all__ = ["Skipped", "is_absorbed", "layer_form"]
