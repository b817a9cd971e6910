"""The operators ``kompakt::quantize``, ``::dequantize``, ``::dequantize_blocked`` and ``::qdq``.

They are ordinary PyTorch operators: eager, ``torch.compile`` and ``torch.export`` all see one
node, which a target then translates to its own. Importing this module registers them; importing it
again changes nothing.

``quantize`` and ``dequantize`` carry integer codes and therefore no gradient (an integer tensor
cannot require one). ``qdq`` goes from float to float and is what training uses: the gradient of
``x`` passes unchanged where the code was inside ``[qmin, qmax]`` and is zero where it was clipped;
scale and zero point get none (see :mod:`kompakt.numerics.fake` for scales that learn).

``axis`` is the channel axis of a scale of shape ``(C,)``; :data:`PER_TENSOR` means that the scale
broadcasts as it is. The zero point's dtype is the dtype of the codes; a float dtype (E4M3) means that
codes are ``x / scale`` cast to it, halves to even, and its largest number beyond its range. Arithmetic is float32,
whatever the dtype of ``x``. NaN is not looked for: operators run inside compiled graphs;
:func:`kompakt.numerics.affine.quantize` refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kompakt.numerics.affine import centred
from kompakt.numerics.rounding import ROUNDINGS, get_rounding

PER_TENSOR = -1000
"""The ``axis`` that stands for a scale that broadcasts as it is."""

_PARAMETERS = "Tensor scale, Tensor zero_point"
_SCHEMAS = {
    "quantize": f"(Tensor x, {_PARAMETERS}, int qmin, int qmax, int axis=-1000) -> Tensor",
    "dequantize": f"(Tensor q, {_PARAMETERS}, int axis=-1000) -> Tensor",
    "dequantize_blocked": "(Tensor q, Tensor scale, Tensor? zero_point, int axis, int block)"
    " -> Tensor",
    "qdq": f"(Tensor x, {_PARAMETERS}, int qmin, int qmax, int axis=-1000,"
    ' str rounding="divide_even") -> Tensor',
}


def _along(parameter: Tensor, rank: int, axis: int) -> Tensor:
    if axis == PER_TENSOR:
        return parameter
    view = [1] * rank
    view[axis] = -1
    return parameter.reshape(view)


def _quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int = PER_TENSOR
) -> Tensor:
    step = _along(scale.float(), x.dim(), axis)
    if zero_point.is_floating_point():
        return x.float().div(step).clamp_(qmin, qmax).to(zero_point.dtype)
    zero = _along(zero_point.float(), x.dim(), axis)
    codes = ROUNDINGS["divide_even"](x.float(), step, zero, qmin, qmax)
    return codes.clamp_(qmin, qmax).to(zero_point.dtype)


def _dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int = PER_TENSOR) -> Tensor:
    codes = centred(q, _along(zero_point, q.dim(), axis))
    return codes.mul_(_along(scale.float(), q.dim(), axis))


def _dequantize_blocked(
    q: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int, block: int
) -> Tensor:
    length = q.shape[axis]
    steps = scale.float().repeat_interleave(block, axis).narrow(axis, 0, length)
    if zero_point is None:
        return q.float().mul(steps)
    # uint16 cannot be repeated, float32 can, and holds every code of up to 16 bits exactly.
    zeros = zero_point.float().repeat_interleave(block, axis).narrow(axis, 0, length)
    return centred(q, zeros).mul_(steps)


def _qdq(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    axis: int = PER_TENSOR,
    rounding: str = "divide_even",
) -> Tensor:
    step = _along(scale.float(), x.dim(), axis)
    if zero_point.is_floating_point():
        return _quantize(x, scale, zero_point, qmin, qmax, axis).float().mul_(step).to(x.dtype)
    zero = _along(zero_point.float(), x.dim(), axis)
    codes = get_rounding(rounding)(x.float(), step, zero, qmin, qmax)
    return codes.clamp_(qmin, qmax).sub_(zero).mul_(step).to(x.dtype)


def _remember_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, zero_point, *settings = inputs
    ctx.save_for_backward(x, scale, zero_point)
    ctx.settings = settings


def _straight_through(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, zero_point = ctx.saved_tensors
    qmin, qmax, axis, rounding = ctx.settings
    step = _along(scale.float(), x.dim(), axis)
    zero = _along(zero_point.float(), x.dim(), axis)
    if zero_point.is_floating_point():
        codes = x.float() / step
    else:
        codes = get_rounding(rounding)(x.float(), step, zero, qmin, qmax)
    inside = (codes >= qmin) & (codes <= qmax)
    return (grad * inside, None, None, None, None, None, None)


def _register() -> None:
    kernels: dict[str, Callable[..., Tensor]] = {
        "quantize": _quantize,
        "dequantize": _dequantize,
        "dequantize_blocked": _dequantize_blocked,
        "qdq": _qdq,
    }
    shapes = {
        "quantize": lambda x, s, zero_point, *_: torch.empty_like(x, dtype=zero_point.dtype),
        "dequantize": lambda q, *_: torch.empty_like(q, dtype=torch.float32),
        "dequantize_blocked": lambda q, *_: torch.empty_like(q, dtype=torch.float32),
        "qdq": lambda x, *_: torch.empty_like(x),
    }
    for name, kernel in kernels.items():
        qualified = f"kompakt::{name}"
        torch.library.define(qualified, _SCHEMAS[name])
        torch.library.impl(qualified, "CompositeExplicitAutograd", kernel)
        torch.library.register_fake(qualified, shapes[name])
    torch.library.register_autograd(
        "kompakt::qdq", _straight_through, setup_context=_remember_inputs
    )


# The function forms of torch.library keep the registration alive for the process, so a second
# import finds it.
if not hasattr(torch.ops.kompakt, "qdq"):
    _register()
