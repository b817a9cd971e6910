"""From a range to a scale and a zero point, from numbers to codes and back.

``x ≈ (code − zero_point) · scale``: the scale multiplies codes back, the zero point is an integer
code, and the real number 0 is always exactly a code, because padding, ReLU and absent values are
zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kompakt.errors import NumericsError
from kompakt.numerics.formats import Format
from kompakt.numerics.granularity import Granularity, PerTensor, expand
from kompakt.numerics.rounding import get_rounding

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""2⁻¹²⁶, the smallest normal float32: below it ``1/scale`` overflows, and runtimes may flush the
scale to zero."""


def choose_qparams(
    lo: Tensor, hi: Tensor, fmt: Format, *, symmetric: bool, site: str = ""
) -> tuple[Tensor, Tensor]:
    """Scale and zero point for ranges.

    The range is first widened to include 0.

    * Affine: ``scale = (hi − lo) / (qmax − qmin)`` and ``zero_point = even(qmin − lo / scale)``, in
      float32 and in this order, as ONNX ``DynamicQuantizeLinear`` does.
    * Symmetric: ``scale = max(−lo, hi) / m`` with ``m = min(|qmin|, qmax)`` and zero point 0 (``m``
      is 127 for ``int8`` as for ``int8_narrow``). An unsigned format has its zero point in the
      middle (128 for ``uint8``, where ``m`` is 127 too).

    Two cases have no natural scale. A range of exactly 0 (a dead channel, an empty tensor) is
    treated as [0, 1], so that the scale stays of an ordinary size. A range so small that the scale
    would be denormal gets :data:`SMALLEST_SCALE`.

    ``fp8`` formats get ``scale = max(−lo, hi) / qmax`` and zero point 0; wider floats scale 1.

    Args:
        lo: Low ends, float, any shape.
        hi: High ends, same shape.
        fmt: The format whose codes should span the range.
        symmetric: Whether the range is made symmetric around 0 first. Float formats always are.
        site: Name of the tensor, for error messages.

    Returns:
        ``scale`` (float32, normal and positive) and ``zero_point`` (int32), both of the shape of
        ``lo``.

    Raises:
        NumericsError: K301 when an end is not finite, K302 when a low end lies above its high end.
    """
    lo, hi = lo.detach().float(), hi.detach().float()
    refuse_nonfinite(lo, what="the low end of a range", site=site)
    refuse_nonfinite(hi, what="the high end of a range", site=site)
    if bool((lo > hi).any()):
        first = int((lo > hi).flatten().int().argmax())
        raise NumericsError(
            "K302",
            f"the range [{lo.flatten()[first].item()}, {hi.flatten()[first].item()}]",
            where=site,
            why="its low end lies above its high end",
        )
    lo, hi = lo.clamp(max=0.0), hi.clamp(min=0.0)
    hi = torch.where((lo == 0) & (hi == 0), torch.ones_like(hi), hi)
    if fmt.kind == "float":
        return _float_scale(lo, hi, fmt)
    if symmetric:
        return _symmetric_qparams(lo, hi, fmt)
    # A tensor, because GPUs divide by a plain number as multiplication with its reciprocal.
    steps = torch.full_like(lo, fmt.qmax - fmt.qmin)
    width = hi - lo
    # The widest ranges overflow float32 when subtracted; divided first they do not.
    scale = torch.where(width.isfinite(), width / steps, hi / steps - lo / steps)
    scale = scale.clamp(SMALLEST_SCALE, torch.finfo(torch.float32).max)
    zero_point = (fmt.qmin - lo / scale).clamp(fmt.qmin, fmt.qmax).round()
    return scale, zero_point.to(torch.int32)


def dynamic_qparams(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point that ONNX ``DynamicQuantizeLinear`` computes for ``x``, bit for bit.

    ``scale = (max(0, x) − min(0, x)) / 255`` and ``zero_point = even(clip(−min / scale, 0, 255))``
    in float32. Unlike :func:`choose_qparams` a tensor of zeros gets scale 1, and scales may be
    denormal.

    Args:
        x: Any float tensor with at least one element.

    Returns:
        ``scale`` float32 and ``zero_point`` uint8, both of shape ``()``.

    Reference:
        ONNX operator DynamicQuantizeLinear, opset 11.
    """
    lo, hi = x.detach().float().aminmax()
    lo, hi = lo.clamp(max=0.0), hi.clamp(min=0.0)
    scale = torch.where(lo == hi, torch.ones_like(lo), (hi - lo) / torch.full_like(lo, 255.0))
    zero_point = (0.0 - lo / scale).clamp(0.0, 255.0).round()
    return scale, zero_point.to(torch.uint8)


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    fmt: Format,
    granularity: Granularity = PerTensor(),
    rounding: str = "divide_even",
    *,
    site: str = "",
) -> Tensor:
    """Codes of ``x``.

    Args:
        x: Real tensor; computed in float32.
        scale: float32, shape ``granularity.parameter_shape(x.shape)``.
        zero_point: Integer codes, same shape.
        fmt: Integer format, or a float format (then codes are ``x / scale`` cast with saturation).
        granularity: Which elements share a scale.
        rounding: A name of :data:`kompakt.numerics.rounding.ROUNDINGS`; float formats round half
            to even always.
        site: Name of the tensor, for error messages.

    Returns:
        A tensor of ``x``'s shape and dtype ``fmt.torch_dtype``, every code within
        ``[fmt.qmin, fmt.qmax]``.

    Raises:
        NumericsError: K301 when ``x`` or a scale is not finite, K302 when a scale is not positive,
            K303 when the parameters do not fit ``x``.
    """
    x = x.detach().float()
    refuse_nonfinite(x, what="a tensor to be quantized", site=site)
    _refuse_bad_scale(scale, site)
    scale_x = expand(scale.detach().float(), x.shape, granularity)
    if fmt.kind == "float":
        # Where x / scale overflows float32, clamping still gives the saturated value.
        return x.div(scale_x).clamp_(float(fmt.qmin), float(fmt.qmax)).to(fmt.torch_dtype)
    zero_x = expand(zero_point.float(), x.shape, granularity)
    codes = get_rounding(rounding)(x, scale_x, zero_x, fmt.qmin, fmt.qmax)
    return codes.clamp_(fmt.qmin, fmt.qmax).to(fmt.torch_dtype)


def dequantize(
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    granularity: Granularity = PerTensor(),
) -> Tensor:
    """``(codes − zero_point) · scale`` in float32.

    Args:
        codes: Integer codes, or a float format's values.
        scale: float32, shape ``granularity.parameter_shape(codes.shape)``.
        zero_point: Integer codes, same shape; ignored for a float format.
        granularity: Which elements share a scale.

    Returns:
        float32 tensor of the shape of ``codes``.
    """
    scale_x = expand(scale.float(), codes.shape, granularity)
    if codes.is_floating_point():
        return codes.float().mul(scale_x)
    zero_x = expand(zero_point.to(torch.int32), codes.shape, granularity)
    return centred(codes, zero_x).mul_(scale_x)


def centred(codes: Tensor, zero_point: Tensor) -> Tensor:
    """``codes − zero_point`` as float32, exactly; wide integers are subtracted before converting.

    Args:
        codes: Integer tensor.
        zero_point: Integers that broadcast against it.

    Returns:
        A new float32 tensor of the shape of ``codes``.
    """
    if codes.dtype in (torch.int32, torch.int64):
        return (codes - zero_point).float()
    return codes.to(torch.float32, copy=True).sub_(zero_point.float())


def refuse_nonfinite(x: Tensor, *, what: str, site: str) -> None:
    """Raise K301, naming the site, when ``x`` holds NaN or infinity.

    Args:
        x: Any tensor; integer and empty tensors pass.
        what: What the tensor is, such as ``"a tensor to be quantized"``.
        site: Name of the tensor.
    """
    if x.numel() == 0 or not x.is_floating_point():
        return
    lo, hi = x.detach().float().aminmax()
    if bool(lo.isfinite() & hi.isfinite()):
        return
    nan, infinite = int(x.isnan().sum()), int(x.isinf().sum())
    raise NumericsError(
        "K301",
        f"{what} of shape {tuple(x.shape)} with {nan} NaN and {infinite} infinite values",
        where=site,
        why="no code stands for a number that is not finite",
    )


def _float_scale(lo: Tensor, hi: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    zero_point = torch.zeros_like(lo, dtype=torch.int32)
    if fmt.bits > 8:
        return torch.ones_like(lo), zero_point
    largest = torch.maximum(-lo, hi)
    return largest.div_(torch.full_like(largest, fmt.qmax)).clamp(min=SMALLEST_SCALE), zero_point


def _symmetric_qparams(lo: Tensor, hi: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    middle = 0 if fmt.signed else (fmt.qmax + 1) // 2
    # One-bit formats have no code above the middle: their one step then spans the range.
    steps = max(1, fmt.qmax - middle)
    scale = torch.maximum(-lo, hi).div_(torch.full_like(lo, steps)).clamp(min=SMALLEST_SCALE)
    return scale, torch.full_like(lo, middle, dtype=torch.int32)


def _refuse_bad_scale(scale: Tensor, site: str) -> None:
    refuse_nonfinite(scale, what="a scale", site=site)
    if bool((scale <= 0).any()):
        raise NumericsError(
            "K302",
            f"a scale of {scale.min().item()}",
            where=site,
            why="a scale is a step size and therefore positive",
        )
