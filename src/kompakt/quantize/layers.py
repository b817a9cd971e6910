"""Layers with treated weights: the user's own ``nn`` layers, keeping their names, keys and parameters.

:func:`treat_` swaps the class of a layer for its treated subclass and gives it a weight quantizer. A treated layer
first simulates (its weights are rounded at every call, gradients pass straight through); :func:`freeze_layer_` then
fixes codes and scales, and from there on the layer computes with the very numbers that are written to the file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kompakt.quantize.operators  # noqa: F401  (registers kompakt::dynamic_linear)
from kompakt.errors import NumericsError, SchemeError
from kompakt.numerics.affine import choose_qparams, dequantize, quantize, refuse_nonfinite
from kompakt.numerics.formats import Format, get_format
from kompakt.numerics.granularity import PerChannel, PerGroup, extremes
from kompakt.numerics.ops import PER_TENSOR
from kompakt.quantize.quantizer import Stage
from kompakt.schemes import Treatment

FROZEN = ("weight_codes", "weight_scale", "weight_zero_point", "bias_codes", "bias_scale")
"""What freezing fixes."""
GRID = ("grid_scale", "grid_zero_point")
"""What a method fixes that chose the weights' grid itself."""
BIAS_LIMIT = 2.0**28
"""Largest bias code allowed: a tiny weight scale would otherwise overflow the int32 accumulator."""


class Treated(nn.Module):
    """What all treated layers share.

    Attributes:
        site: Dotted name of the layer.
        treatment: What is done to it.
        stage: See :class:`kompakt.quantize.quantizer.Quantizer`.
        weight_codes: Weight codes once frozen (storage dtype of the format), shape of the weight.
        weight_scale: float32; shape (O,) per channel, (O, groups) per group, () per tensor.
        weight_zero_point: Same shape as the scale.
        bias_codes: int32 bias codes, where the kernel adds the bias in integers.
        bias_scale: float32 scale of the bias codes, shape (O,).
        grid_scale: The scale a method chose, see :func:`fix_grid_`; None where the weights' extremes decide.
        grid_zero_point: The same for the zero point.
    """

    site: str
    treatment: Treatment
    stage: Stage
    weight: nn.Parameter
    bias: nn.Parameter | None
    weight_codes: Tensor | None
    weight_scale: Tensor | None
    weight_zero_point: Tensor | None
    bias_codes: Tensor | None
    bias_scale: Tensor | None
    grid_scale: Tensor | None
    grid_zero_point: Tensor | None

    @property
    def frozen(self) -> bool:
        """Whether codes and scales are fixed."""
        return self.weight_codes is not None

    @property
    def stored_float(self) -> bool:
        """Whether the weights are only stored in a shorter float format, without a scale."""
        fmt = get_format(str(self.treatment.weight))
        return fmt.kind == "float" and not fmt.is_small_float

    @property
    def on_integers(self) -> bool:
        """Whether weights are integer codes, as methods that choose roundings need them."""
        return get_format(str(self.treatment.weight)).kind == "int"

    @property
    def has_zero_point(self) -> bool:
        """Whether weight code 0 stands for another number than 0."""
        signed = get_format(str(self.treatment.weight)).signed
        return not (signed and self.treatment.symmetric_weight)

    def treated_weight(self) -> Tensor:
        """The weight the deployed layer computes with: float32, shape of the weight."""
        if self.stage == "off":
            return self.weight
        if self.weight_codes is None:
            rounded = self._rounded(*grid_of(self))
            # Straight through: the forward value is exactly `rounded`, the gradient that of `weight`.
            if self.weight.requires_grad and torch.is_grad_enabled():
                return self.weight + (rounded - self.weight).detach()
            return rounded
        return self._decoded()

    def treated_bias(self) -> Tensor | None:
        """The bias the deployed layer adds: float32, shape (O,)."""
        if self.bias_codes is None or self.bias_scale is None or self.stage == "off":
            return self.bias
        zero = torch.zeros_like(self.bias_codes)
        bias: Tensor = torch.ops.kompakt.dequantize(self.bias_codes, self.bias_scale, zero, 0)
        return bias

    def _rounded(self, scale: Tensor, zero_point: Tensor) -> Tensor:
        if self.stored_float:
            return self.weight.to(get_format(str(self.treatment.weight)).torch_dtype).float()
        fmt = get_format(str(self.treatment.weight))
        granularity = self.treatment.granularity
        codes = quantize(self.weight, scale, zero_point, fmt, granularity, site=self.site)
        return dequantize(codes, scale, zero_point, granularity)

    def decoded_groups(self) -> Tensor:
        """The weight of a frozen layer with one scale per group: float32, shape (I, O) as blocked kernels want it."""
        granularity = self.treatment.granularity
        assert isinstance(granularity, PerGroup)
        weight: Tensor = torch.ops.kompakt.dequantize_blocked(
            self.weight_codes,
            self.weight_scale,
            self.weight_zero_point if self.has_zero_point else None,
            0,
            granularity.size,
        )
        return weight

    def _decoded(self) -> Tensor:
        assert self.weight_codes is not None
        if self.stored_float:
            return self.weight_codes.to(torch.float32)
        assert self.weight_scale is not None
        assert self.weight_zero_point is not None
        granularity = self.treatment.granularity
        if isinstance(granularity, PerGroup):
            return self.decoded_groups().t()
        axis = granularity.axis if isinstance(granularity, PerChannel) else PER_TENSOR
        if self.treatment.mode == "weight_only":
            # Plain arithmetic on constants: runtimes do it once, when they load the file.
            shape = [1] * self.weight_codes.dim()
            if axis != PER_TENSOR:
                shape[axis] = -1
            codes = self.weight_codes.to(torch.float32)
            if self.has_zero_point:
                codes = codes - self.weight_zero_point.to(torch.float32).reshape(shape)
            return codes * self.weight_scale.reshape(shape)
        weight: Tensor = torch.ops.kompakt.dequantize(
            self.weight_codes, self.weight_scale, self.weight_zero_point, axis
        )
        return weight


class _Convolution(Treated):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.treated_weight(), self.treated_bias())  # type: ignore[operator,no-any-return]


class TreatedConv1d(_Convolution, nn.Conv1d):  # type: ignore[misc]
    """A 1-d convolution with treated weights."""


class TreatedConv2d(_Convolution, nn.Conv2d):  # type: ignore[misc]
    """A 2-d convolution with treated weights."""


class TreatedConv3d(_Convolution, nn.Conv3d):  # type: ignore[misc]
    """A 3-d convolution with treated weights."""


class _Transposed(Treated):
    dims: int
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    _output_padding: Callable[..., list[int]]

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        extra = self._output_padding(
            x, output_size, self.stride, self.padding, self.kernel_size, self.dims, self.dilation
        )
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dims - 1]
        weight, bias = self.treated_weight(), self.treated_bias()
        return function(
            x, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation
        )


class TreatedConvTranspose1d(_Transposed, nn.ConvTranspose1d):  # type: ignore[misc]
    """A transposed 1-d convolution with treated weights."""

    dims = 1


class TreatedConvTranspose2d(_Transposed, nn.ConvTranspose2d):  # type: ignore[misc]
    """A transposed 2-d convolution with treated weights."""

    dims = 2


class TreatedConvTranspose3d(_Transposed, nn.ConvTranspose3d):  # type: ignore[misc]
    """A transposed 3-d convolution with treated weights."""

    dims = 3


class TreatedLinear(Treated, nn.Linear):  # type: ignore[misc]
    """A linear layer with treated weights, and dynamic activations where the treatment says so."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer with its treated weights."""
        if self.treatment.mode == "dynamic" and self.stage != "off":
            codes, scale = self.weight_codes, self.weight_scale
            if codes is None or scale is None:
                scale, zero_point = grid_of(self)
                fmt = get_format(str(self.treatment.weight))
                codes = quantize(
                    self.weight, scale, zero_point, fmt, self.treatment.granularity
                ).t()
            result: Tensor = torch.ops.kompakt.dynamic_linear(x, codes, scale, self.bias)
            return result
        if self.frozen and isinstance(self.treatment.granularity, PerGroup) and self.stage != "off":
            # Rank 3: ONNX Runtime makes a Gemm of some products of rank 2, which then decode the weights at every call.
            rows = x.unsqueeze(0) if x.dim() == 2 else x
            result = torch.matmul(rows, self.decoded_groups())
            result = result if self.bias is None else result + self.bias
            return result.squeeze(0) if x.dim() == 2 else result
        return F.linear(x, self.treated_weight(), self.treated_bias())


class TreatedEmbedding(Treated, nn.Embedding):  # type: ignore[misc]
    """An embedding whose rows are stored as codes and decoded after the look-up."""

    bias = None

    def forward(self, ids: Tensor) -> Tensor:
        """The layer with its treated weights."""
        rows = self.treatment.granularity == PerChannel(0) and not self.stored_float
        if self.stage == "off" or self.weight_codes is None or not rows:
            return F.embedding(ids, self.treated_weight(), self.padding_idx)
        assert self.weight_scale is not None
        assert self.weight_zero_point is not None
        scale = F.embedding(ids, self.weight_scale.unsqueeze(-1))
        codes = F.embedding(ids, self.weight_codes).to(torch.float32)
        if self.has_zero_point:
            codes = codes - F.embedding(ids, self.weight_zero_point.unsqueeze(-1)).to(torch.float32)
        return codes * scale


TREATED: dict[type[nn.Module], type[Treated]] = {
    nn.Conv1d: TreatedConv1d,
    nn.Conv2d: TreatedConv2d,
    nn.Conv3d: TreatedConv3d,
    nn.ConvTranspose1d: TreatedConvTranspose1d,
    nn.ConvTranspose2d: TreatedConvTranspose2d,
    nn.ConvTranspose3d: TreatedConvTranspose3d,
    nn.Linear: TreatedLinear,
    nn.Embedding: TreatedEmbedding,
}


def treat_(layer: nn.Module, site: str, treatment: Treatment) -> None:
    """Turn ``layer`` into its treated subclass, in place.

    Raises:
        SchemeError: K344 when there is no treated form of this layer.
    """
    base = next((kind for kind in TREATED if isinstance(layer, kind)), None)
    if base is None:
        raise SchemeError(
            "K344",
            f"treating the layer {site}",
            why=f"a {type(layer).__name__} has no treated form",
            help="leave it in float with keep_float",
        )
    layer.__class__ = TREATED[base]
    layer.site, layer.treatment, layer.stage = site, treatment, "simulate"  # type: ignore[assignment]
    for name in (*FROZEN, *GRID):
        layer.register_buffer(name, None)


def weight_parameters(weight: Tensor, treatment: Treatment) -> tuple[Tensor, Tensor]:
    """Scale and zero point that cover every weight of each channel, group or tensor.

    Args:
        weight: float32, shape (O, ...).
        treatment: Says the format and granularity.
    """
    fmt = get_format(str(treatment.weight))
    if fmt.kind == "float" and not fmt.is_small_float:
        return torch.ones(()), torch.zeros(())
    low, high = extremes(weight.detach(), treatment.granularity)
    return choose_qparams(low, high, fmt, symmetric=treatment.symmetric_weight)


def grid_of(layer: Treated) -> tuple[Tensor, Tensor]:
    """Scale and zero point of a layer's weights: those a method chose, else those that cover every weight."""
    if layer.grid_scale is not None and layer.grid_zero_point is not None:
        return layer.grid_scale, layer.grid_zero_point
    return weight_parameters(layer.weight, layer.treatment)


def fix_grid_(layer: Treated, scale: Tensor, zero_point: Tensor) -> None:
    """Let a layer's weights be rounded to a grid that a method chose, in place.

    Args:
        layer: A treated layer that is not frozen.
        scale: float32, positive; of the shape that :func:`weight_parameters` gives.
        zero_point: Of the same shape.
    """
    layer.grid_scale, layer.grid_zero_point = scale.detach(), zero_point.detach()


def release_grid_(layer: Treated) -> None:
    """Let the extremes of a layer's weights decide its grid again."""
    layer.grid_scale = layer.grid_zero_point = None


def freeze_layer_(layer: Treated, input_scale: Tensor | None, *, integer_bias: bool) -> None:
    """Fix the codes and scales of a treated layer.

    Args:
        layer: The layer.
        input_scale: float32 scalar, the (smallest) scale of its quantized input where the kernel adds the bias to
            its integer sums; else None.
        integer_bias: Whether the bias is written as int32 codes of scale ``input_scale · weight_scale``.

    Raises:
        NumericsError: K301 when a weight is not finite, or would not be in the format it is stored in.
    """
    treatment, fmt = layer.treatment, get_format(str(layer.treatment.weight))
    weight = layer.weight.detach()
    refuse_nonfinite(weight, what="a weight", site=layer.site)
    if layer.stored_float:
        layer.weight_codes = _stored(weight, fmt, layer.site)
        return
    scale, zero_point = grid_of(layer)
    bias = layer.bias.detach() if layer.bias is not None else None
    if bias is not None and input_scale is not None and fmt.kind == "int":
        # Without this guard a dead channel's tiny weight scale makes its bias overflow int32.
        least = bias.abs() / (input_scale * BIAS_LIMIT)
        scale = torch.maximum(scale, least if scale.dim() else least.amax())
        if integer_bias:
            layer.bias_scale = (input_scale * scale).expand_as(bias).contiguous()
            layer.bias_codes = torch.round(bias.double() / layer.bias_scale.double()).int()
    codes = quantize(weight, scale, zero_point, fmt, treatment.granularity, site=layer.site)
    layer.weight_scale, layer.weight_zero_point = scale, zero_point.to(codes.dtype)
    layer.weight_codes = codes
    if isinstance(treatment.granularity, PerGroup):
        layer.weight_codes = codes.t().contiguous()
        layer.weight_scale = scale.t().contiguous()
        layer.weight_zero_point = layer.weight_zero_point.t().contiguous()
    elif treatment.mode == "dynamic":
        layer.weight_codes = codes.t().contiguous()


def thaw_layer_(layer: Treated) -> None:
    """Forget the codes and scales of a frozen layer: from here on it rounds its weights at every call again."""
    for name in FROZEN:
        setattr(layer, name, None)


def _stored(weight: Tensor, fmt: Format, site: str) -> Tensor:
    """The weight in a shorter float format."""
    too_large = int((weight.abs() > float(fmt.qmax)).sum())
    if too_large:
        raise NumericsError(
            "K301",
            f"storing weights in {fmt.name}",
            where=site,
            why=f"{too_large} of them exceed {fmt.qmax}, its largest number, and would become infinite",
            help="use bf16, which reaches as far as float32, or keep the layer in float",
        )
    return weight.to(fmt.torch_dtype)
