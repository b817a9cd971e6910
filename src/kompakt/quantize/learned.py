"""A layer's numbers as parameters that learn: weights, their scale and bias; and an activation's scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kompakt.numerics.affine import dequantize, quantize
from kompakt.numerics.fake import fake_quantize
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import expand
from kompakt.quantize.layers import Treated, fix_grid_, grid_of
from kompakt.quantize.least_error_grid import least_error_grid
from kompakt.quantize.quantizer import Quantizer


class LearnedWeights:
    """What a layer learns: weights ``codes · step``, scales ``scale · e^stretch``, biases ``bias + size · shift``."""

    def __init__(self, layer: Treated, size: float) -> None:
        self.layer, self.size = layer, size
        self.format = get_format(str(layer.treatment.weight))
        self._begin(*grid_of(layer))
        self.shift = None if layer.bias is None else nn.Parameter(torch.zeros_like(layer.bias))

    def start(self) -> None:
        """Begin with the scale of least error, or the one a method chose before."""
        self._begin(*least_error_grid(self.layer))

    def _begin(self, scale: Tensor, zero_point: Tensor) -> None:
        weight = self.layer.weight.detach()
        self.scale, self.zero_point = scale.detach(), zero_point.detach()
        self.step = expand(self.scale, weight.shape, self.layer.treatment.granularity)
        self.codes = nn.Parameter(weight / self.step)
        self.stretch = nn.Parameter(torch.zeros_like(self.scale))

    def tensors(self) -> dict[str, Tensor]:
        """Weight and bias as the layer takes them."""
        granularity = self.layer.treatment.granularity
        scale = self.scale * self.stretch.exp()
        weight = fake_quantize(
            self.codes * self.step, scale, self.zero_point, self.format, granularity
        )
        bias = self.bias()
        return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}

    def bias(self) -> Tensor | None:
        """The bias as learned so far."""
        if self.shift is None or self.layer.bias is None:
            return None
        return self.layer.bias.detach() + self.size * self.shift

    @torch.no_grad()
    def keep_(self) -> None:
        """Give the layer what was learned."""
        granularity = self.layer.treatment.granularity
        scale, bias = self.scale * self.stretch.exp(), self.bias()
        grid = scale, self.zero_point
        codes = quantize(self.codes * self.step, *grid, self.format, granularity)
        self.layer.weight.copy_(dequantize(codes, *grid, granularity))
        fix_grid_(self.layer, *grid)
        if bias is not None and self.layer.bias is not None:
            self.layer.bias.copy_(bias)


class LearnedRange:
    """An activation's scale as what is learned: scale · e^stretch."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.scale, self.zero_point = quantizer.parameters_()
        self.stretch = nn.Parameter(torch.zeros_like(self.scale))

    def rounded(self, x: Tensor) -> Tensor:
        """An activation on the grid as learned so far."""
        q = self.quantizer
        scale = self.scale * self.stretch.exp()
        return fake_quantize(
            x, scale, self.zero_point, q.format, q.granularity, q.rounding, samples=len(x)
        )

    @torch.no_grad()
    def keep_(self) -> None:
        """Give the quantizer what was learned."""
        self.quantizer.set_parameters(self.scale * self.stretch.exp(), self.zero_point)


__all__ = ["LearnedRange", "LearnedWeights"]
