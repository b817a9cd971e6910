"""Why a layer's weights lose what they lose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kompakt.measuring.error_split import SiteError
from kompakt.measuring.sites import deployed_weight
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerTensor
from kompakt.quantize.layers import Treated, grid_of

SPREAD = 4.0
"""Channels whose weights differ so many times cannot share a scale."""
OUTLYING = 6.0
"""The largest weight of a channel over its 90th percentile, from which on it stretches the channel's grid."""
FEW_BITS = 5
GUARDED = 1.5
"""The guard against overflowing biases widened a channel's scale by so much."""

Finding = tuple[str, str, list[str], dict[str, Any]]
"""The cause's code, a sentence, the steps to try, the numbers."""


def weight_findings(error: SiteError, layer: nn.Module, original: nn.Module) -> Finding:
    """The likeliest explanation of a layer's own error.

    Args:
        error: What was measured.
        layer: The treated layer.
        original: The float layer.
    """
    assert isinstance(layer, Treated)
    name, fmt = error.site.name, get_format(str(layer.treatment.weight))
    if error.saturation > error.rounding + error.clipping:
        share = error.saturation / max(error.own, 1e-300)
        sentence = (
            f"the 16-bit sums of `{name}` saturate on processors without VNNI: {share:.0%} of the error it adds "
            "comes from that"
        )
        return "saturation", sentence, ["seven_bits"], {"share": share}
    weight = original.get_parameter("weight").detach()
    rows = _rows(weight, layer)
    if fmt.kind == "float":
        return "coarse_weights", f"weights in {fmt.name} are coarse for `{name}`", [], {}
    lost = _rows(deployed_weight(layer) - weight, layer).square().sum(1)
    if guarded := _guarded(layer, error, lost):
        return guarded
    if layer.treatment.granularity == PerTensor() and (found := _spread(name, rows, original)):
        return found
    if found := _outlying(name, weight, rows, lost):
        return found
    change = error.relative(error.rounding + error.clipping)
    sentence = f"weights in {fmt.bits} bits are too coarse for `{name}`: they change its output by {change:.1%}"
    steps = ["eight_bits", "clip_weights"] if fmt.bits < 8 else ["clip_weights"]
    if layer.treatment.mode == "dynamic":
        sentence = f"`{name}` with ranges found at run time changes its output by {change:.1%}"
    return "coarse_weights", sentence, steps, {"bits": fmt.bits, "lost": change}


def _rows(weight: Tensor, layer: nn.Module) -> Tensor:
    """Magnitudes with one row for each output channel."""
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    lead = weight.movedim(1, 0) if transposed else weight
    return lead.reshape(lead.shape[0], -1).abs().double()


def _spread(name: str, rows: Tensor, layer: nn.Module) -> Finding | None:
    largest = rows.amax(1)
    alive = largest[largest > 0]
    if alive.numel() < 2:
        return None
    ratio = float(alive.amax() / alive.median())
    if ratio < SPREAD:
        return None
    widest, whole = int(largest.argmax()), float(alive.amax() / alive.amin())
    depthwise = int(getattr(layer, "groups", 1)) > 1
    facts = {"ratio": ratio, "whole": whole, "channel": widest}
    if depthwise:
        sentence = (
            f"the weights of the depthwise layer `{name}` differ {whole:.0f} times between channels and share one "
            f"scale (channel {widest} is {ratio:.0f} times the median)"
        )
        return "depthwise_ranges", sentence, ["per_channel"], facts
    sentence = (
        f"the weights of channel {widest} of `{name}` are {ratio:.0f} times those of a typical channel, and all "
        "channels share one scale"
    )
    return "weight_channel_outlier", sentence, ["per_channel"], facts


def _outlying(name: str, weight: Tensor, rows: Tensor, lost: Tensor) -> Finding | None:
    if rows.shape[1] < 4:
        return None
    most = rows.amax(1)
    typical = torch.quantile(rows, 0.9, dim=1) if rows.numel() < 1 << 22 else rows.mean(1) * 2
    ratio = most / typical.clamp(min=1e-30)
    ratio = torch.where(most > 0, ratio, torch.ones_like(ratio))
    count = int((ratio >= OUTLYING).sum())
    if not _most_of(lost, ratio >= OUTLYING):
        return None
    channel = int((lost * (ratio >= OUTLYING)).argmax())
    worst = float(ratio[channel])
    facts: dict[str, Any] = {"channel": channel, "ratio": worst, "channels": count}
    column = _column(weight, rows, ratio >= OUTLYING)
    if column is not None:
        facts["input_channel"] = column
        sentence = (
            f"the weights of input channel {column} of `{name}` are up to {worst:.0f} times as large as 90 % of the "
            f"others and stretch the grids of {count} of {len(rows)} output channels"
        )
        return "weight_outlier", sentence, ["equalize", "clip_weights"], facts
    more = f" (and {count - 1} more channels)" if count > 1 else ""
    sentence = (
        f"one weight of channel {channel} of `{name}`{more} is {worst:.0f} times as large as 90 % of the channel's "
        "weights and stretches their grid"
    )
    return "weight_outlier", sentence, ["clip_weights"], facts


def _column(weight: Tensor, rows: Tensor, which: Tensor) -> int | None:
    """The input channel that most of these rows have their largest weight in."""
    if weight.dim() < 2 or weight.shape[0] != rows.shape[0] or weight.shape[1] < 2:
        return None
    by_input = (
        weight.detach().abs().flatten(2).amax(2) if weight.dim() > 2 else weight.detach().abs()
    )
    places = by_input[which].argmax(1)
    column = int(places.mode().values)
    return column if int((places == column).sum()) > len(places) / 2 and len(places) > 1 else None


def _most_of(lost: Tensor, rows: Tensor) -> bool:
    """Whether these channels' weights make up half of what all lose or more."""
    return bool(rows.any()) and float(lost[rows].sum()) >= 0.5 * float(lost.sum())


def _guarded(layer: Treated, error: SiteError, lost: Tensor) -> Finding | None:
    """Channels whose scale was widened so that their bias fits 32 bits."""
    if layer.weight_scale is None or layer.treatment.mode != "static":
        return None
    wished, _ = grid_of(layer)
    if wished.shape != layer.weight_scale.shape:
        return None
    ratio = (layer.weight_scale / wished.clamp(min=1e-38)).double()
    worst, count = float(ratio.amax()), int((ratio >= GUARDED).sum())
    if not _most_of(lost, (ratio >= GUARDED).expand_as(lost)):
        return None
    channel = int(ratio.argmax()) if ratio.dim() else 0
    sentence = (
        f"the bias of channel {channel} of `{error.site.name}` needs more than 32 bits beside its weights: their "
        f"scale was widened {worst:.3g} times"
    )
    return "bias_guard", sentence, [], {"channel": channel, "ratio": worst, "channels": count}


__all__ = ["weight_findings"]
