"""Float-to-float quantization with a gradient for the scale, for training.

:func:`fake_quantize` is learned step size quantization: the forward pass is what the runtime
computes, the backward pass treats rounding as the identity. With ``v = x / s`` and codes counted
from the zero point:

* ``∂x̂/∂x`` is 1 where the code was inside ``[qmin, qmax]`` and 0 where it was clipped;
* ``∂x̂/∂s`` is ``round(v) − v`` inside and the clipped code outside.

The scale's gradient is then multiplied by ``g = 1 / √(N · Q)`` with ``Q`` the format's largest
code and ``N`` the number of elements **of one sample** that share a scale: for weights numel /
scales, for activations numel / (samples · scales). Without the division by the number of samples,
a larger batch would change how fast scales learn. This is our reading of the paper; a widely used
implementation counts the whole tensor, batch included.

A scale must stay positive: keep its learning rate small, or learn its logarithm.

Reference:
    Esser et al., Learned Step Size Quantization, arXiv 1902.08153, section 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kompakt.numerics.formats import Format
from kompakt.numerics.granularity import Granularity, PerTensor, expand
from kompakt.numerics.rounding import get_rounding


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    fmt: Format,
    granularity: Granularity = PerTensor(),
    rounding: str = "divide_even",
    *,
    samples: int = 1,
) -> Tensor:
    """Quantize and dequantize with gradients for ``x`` and ``scale``.

    Args:
        x: Real tensor.
        scale: float32 parameter of shape ``granularity.parameter_shape(x.shape)``.
        zero_point: Integers of the same shape; not learned.
        fmt: An integer format, or a float format (see :func:`fake_cast`, then the scale gets no
            gradient).
        granularity: Which elements share a scale.
        rounding: A name of :data:`kompakt.numerics.rounding.ROUNDINGS`.
        samples: Samples in the batch for an activation; 1 for a weight.

    Returns:
        A tensor of the shape and dtype of ``x``.
    """
    step = expand(scale, x.shape, granularity)
    if fmt.kind == "float":
        return fake_cast(x, step, fmt)
    zero = expand(zero_point.float(), x.shape, granularity)
    factor = gradient_scale(x.numel(), scales=scale.numel(), samples=samples, largest=fmt.qmax)
    result: Tensor = _LearnedStep.apply(  # type: ignore[no-untyped-call]
        x, step, zero, fmt.qmin, fmt.qmax, rounding, factor
    )
    return result


def fake_cast(x: Tensor, scale: Tensor, fmt: Format) -> Tensor:
    """Round to a float format and back, saturating; the gradient is that of clamping to its range.

    Args:
        x: Real tensor.
        scale: Positive, broadcasts against ``x``; gets no gradient.
        fmt: A float format.

    Returns:
        A tensor of the shape and dtype of ``x``.
    """
    step = scale.detach()
    clamped = (x.float() / step).clamp(float(fmt.qmin), float(fmt.qmax))
    rounded = clamped.detach().to(fmt.torch_dtype).float()
    return ((clamped + (rounded - clamped).detach()) * step).to(x.dtype)


def gradient_scale(numel: int, *, scales: int, samples: int, largest: int) -> float:
    """``1 / √(N · Q)``, with ``N`` the elements of one sample that share a scale.

    Args:
        numel: Elements of the tensor, batch included.
        scales: Number of scales.
        samples: Samples in the batch; 1 for weights.
        largest: Largest code of the format.
    """
    shared = max(1.0, numel / max(1, scales * samples))
    return 1.0 / math.sqrt(shared * max(1, largest))


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        zero: Tensor,
        qmin: int,
        qmax: int,
        rounding: str,
        factor: float,
    ) -> Tensor:
        ctx.save_for_backward(x, step, zero)
        ctx.settings = (qmin, qmax, rounding, factor)
        codes = get_rounding(rounding)(x.float(), step, zero, qmin, qmax)
        return codes.clamp_(qmin, qmax).sub_(zero).mul_(step).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, step, zero = ctx.saved_tensors
        qmin, qmax, rounding, factor = ctx.settings
        codes = get_rounding(rounding)(x.float(), step, zero, qmin, qmax)
        inside = (codes >= qmin) & (codes <= qmax)
        grad_x = grad * inside
        slope = codes.clamp_(qmin, qmax).sub_(zero) - inside * (x.float() / step)
        grad_step = (grad.float() * slope).sum_to_size(step.shape) * factor
        return grad_x, grad_step, None, None, None, None, None
