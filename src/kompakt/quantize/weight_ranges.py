"""Weight ranges: the grid of each channel or group that rounds its weights with the least error.

What it does
    A grid that reaches from the smallest to the largest weight spends its codes on a few outliers. Narrower ones clip
    those and round all others better. Each channel's (or group's) range is shrunk in steps, from below, from above and
    from both ends; the scale of the best is then fitted to its own codes.
When to use
    Weight-only schemes in 4 bits and fewer, most with a zero point; at 8 bits the full range is nearly always the best.
    Needs no data. Methods that round weights with the help of data (``gptq``) search on their own. With one scale per
    channel of a small convolutional network it was seen to lose (ResNet-20): there the largest weights matter most.
Cost
    Some fifty roundings of each weight; no forward pass. Costs no speed: only scales and zero points change.
Formula
    min over s and z of Σ_j h_j · (s · (clip(round(w_j / s) + z) − z) − w_j)², s ∈ {0.65 … 1.05} times the full
    range's, then s = Σ h c w / Σ h c² for the codes c found; h_j = 1 here, the importance of column j in ``gptq``.
Limits
    The least error of the weights is not quite the least error of the output. One scale per output channel, or per
    group of input features of a linear layer; others keep their full range.
Reference
    Nagel et al., A White Paper on Neural Network Quantization, arXiv:2106.08295, section 3.1 (mean squared error);
    Badri and Shaji, Half-Quadratic Quantization, 2023 (zero points searched without data).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kompakt.network.network import Network
from kompakt.numerics.affine import SMALLEST_SCALE
from kompakt.numerics.formats import Format, get_format
from kompakt.numerics.granularity import PerChannel, PerGroup
from kompakt.progress import track
from kompakt.quantize.layers import Treated, fix_grid_, weight_parameters
from kompakt.quantize.method import Batches

FACTORS = tuple(round(1.05 - 0.025 * step, 3) for step in range(17))
"""Parts of the full range that are tried, widest first."""


def search_weight_ranges_(placed: Network, reference: Network, batches: Batches) -> int:
    """Give the weights of every treated layer the grid with the least rounding error, in place.

    Args:
        placed: A placed network, not frozen.
        reference: Not used.
        batches: Not used.

    Returns:
        How many layers have another grid than the full range's.
    """
    changed = 0
    found = [m for m in placed.modules() if isinstance(m, Treated)]
    for layer in track(found, "searching weight ranges"):
        if not can_search(layer):
            continue
        full = weight_parameters(layer.weight, layer.treatment)
        scale, zero_point = (p.clone() for p in full)
        fmt, symmetric = get_format(str(layer.treatment.weight)), layer.treatment.symmetric_weight
        flat = layer.weight.detach().reshape(len(layer.weight), -1)
        for index, columns in enumerate(group_columns(layer)):
            best = best_grid(flat[:, columns], torch.ones(()), fmt, symmetric=symmetric)
            for kept, new in zip((scale, zero_point), best, strict=True):
                kept.view(len(flat), -1)[:, index] = new.to(kept.dtype)
        fix_grid_(layer, scale, zero_point)
        changed += not (torch.equal(scale, full[0]) and torch.equal(zero_point, full[1]))
    return changed


def can_search(layer: Treated) -> bool:
    """Whether a layer has integer weights, and one scale for each output channel or for groups along its inputs."""
    if not layer.on_integers or layer.frozen or getattr(layer, "transposed", False):
        return False
    granularity = layer.treatment.granularity
    grouped = isinstance(granularity, PerGroup) and granularity.axis % layer.weight.dim() == 1
    return granularity == PerChannel(0) or (grouped and isinstance(layer, nn.Linear))


def group_columns(layer: Treated) -> list[slice]:
    """The columns of a layer's weight, seen as (O, K), that share scales."""
    columns = layer.weight[0].numel()
    granularity = layer.treatment.granularity
    size = granularity.size if isinstance(granularity, PerGroup) else columns
    return [slice(start, min(start + size, columns)) for start in range(0, columns, size)]


def best_grid(
    weight: Tensor, importance: Tensor, fmt: Format, *, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Scale and zero point that round weights with the least error.

    Args:
        weight: (…, n); the n numbers of a row share a scale.
        importance: What a squared error costs, broadcastable to the weights.
        fmt: An integer format.
        symmetric: Whether the zero point is that of symmetric weights.

    Returns:
        float32 scale and integral zero point, of shape (…).
    """
    middle = 0 if fmt.signed else (fmt.qmax + 1) // 2
    low, high = weight.amin(-1).clamp(max=0.0), weight.amax(-1).clamp(min=0.0)
    nothing = low == high
    low, high = torch.where(nothing, -1.0, low), torch.where(nothing, 1.0, high)
    width = torch.maximum(-low, high) if symmetric else high - low
    steps = fmt.qmax - middle if symmetric else fmt.qmax - fmt.qmin
    best: tuple[Tensor, ...] | None = None
    for factor in FACTORS:
        scale = (factor * width / max(1, steps)).clamp(min=SMALLEST_SCALE)
        ends = (fmt.qmin - low / scale, fmt.qmax - high / scale)
        zeros = [*ends, (ends[0] + ends[1]) / 2] if not symmetric else [scale.new_tensor(middle)]
        for zero in zeros:
            near = zero.round().clamp(fmt.qmin, fmt.qmax).expand_as(scale)
            best = _better(best, weight, importance, fmt, scale, near)
    assert best is not None
    _, scale, zero = best
    codes = rounded_codes(weight, scale[..., None], zero[..., None], fmt)
    fitted = (importance * codes * weight).sum(-1) / (importance * codes * codes).sum(-1)
    sound = fitted.isfinite() & (fitted >= SMALLEST_SCALE)
    _, scale, zero = _better(best, weight, importance, fmt, torch.where(sound, fitted, scale), zero)
    return scale, zero


def rounded_codes(weight: Tensor, scale: Tensor, zero: Tensor, fmt: Format) -> Tensor:
    """Codes minus zero point, as floats."""
    return (weight / scale + zero).round_().clamp_(fmt.qmin, fmt.qmax) - zero


def _better(
    best: tuple[Tensor, ...] | None,
    weight: Tensor,
    importance: Tensor,
    fmt: Format,
    scale: Tensor,
    zero: Tensor,
) -> tuple[Tensor, ...]:
    """For each row, the better of the best grid so far and another: (error, scale, zero)."""
    codes = rounded_codes(weight, scale[..., None], zero[..., None], fmt)
    error = (importance * (codes * scale[..., None] - weight).square()).sum(-1)
    if best is None:
        return error, scale, zero
    wins = error < best[0]
    new = (error, scale, zero)
    return tuple(torch.where(wins, b, a) for a, b in zip(best, new, strict=True))


__all__ = ["best_grid", "can_search", "group_columns", "rounded_codes", "search_weight_ranges_"]
