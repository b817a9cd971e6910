"""Networks that are also for x86 processors without VNNI: layers whose sums saturate there get other weights.

Seven bits are enough: two products of a code up to 255 and a weight up to 63 fit 16 bits. Where that costs accuracy,
some layers take unsigned 8-bit weights instead, which such processors widen before they multiply; processors with VNNI
are half as fast with those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from kompakt.network.network import Network
from kompakt.numerics.affine import dequantize, quantize
from kompakt.numerics.formats import get_format
from kompakt.quantize.freeze import frozen_copy
from kompakt.quantize.layers import Treated, grid_of
from kompakt.quantize.narrowing import reformat_
from kompakt.quantize.rules import Rules
from kompakt.quantize.saturation import PairSums, pair_sums

NARROW, UNSIGNED = "int7_narrow", "uint8"
WORTH = 1.5
"""Unsigned weights are taken when seven bits make the simulated output error so many times as large."""
ROUNDS = 8
"""Other weights move codes a little, which can put another layer at risk: so often it is looked again."""

Inputs = Sequence[Tensor]


def avoid_saturation_(
    placed: Network,
    batches: Callable[[], Iterable[Inputs]],
    rules: Rules,
    *,
    reference: Network | None = None,
    samples: Sequence[Inputs] = (),
    rounds: int = ROUNDS,
) -> tuple[list[str], list[PairSums] | None]:
    """Give every layer that saturates on the data other weights, in place.

    Args:
        placed: A placed network whose quantizers have ranges; not frozen.
        batches: Gives the calibration data, from its start; where it gives none, layers that may saturate count as
            layers that do.
        rules: The rules of its runtime.
        reference: The float network it was placed from; without it, seven bits are not compared with unsigned weights.
        samples: A few inputs, to compare output errors on.
        rounds: How often to look; layers are changed after each look that finds some.

    Returns:
        The layers that changed, and what the last look found; None when layers were changed behind it.
    """
    changed: list[str] = []
    for _ in range(rounds):
        found = pair_sums(frozen_copy(placed), batches(), rules)
        risky = {entry.layer: entry for entry in found if entry.at_risk}
        if not risky:
            return changed, found
        reformat_(placed, NARROW, {path: why(entry, NARROW) for path, entry in risky.items()})
        static = [p for p in risky if _treated(placed, p).treatment.mode == "static"]
        if (
            static
            and samples
            and reference is not None
            and UNSIGNED in rules.weight_formats["static"]
        ):
            unsigned = _worth_unsigned(placed, reference, static, samples)
            reformat_(placed, UNSIGNED, {p: why(risky[p], UNSIGNED) for p in unsigned})
        changed.extend(risky)
    return changed, None


def why(found: PairSums, format_name: str) -> str:
    """Why a layer has these weights, in a sentence."""
    cause = (
        f"{found.saturating:,} of {found.sums:,} sums of two products leave 16 bits on {found.samples:,} "
        f"calibration samples ({found.least:,} to {found.most:,})"
        if found.samples
        else f"sums of two products can leave 16 bits ({found.low:,} to {found.high:,})"
    )
    cure = "7-bit weights keep them" if format_name == NARROW else "unsigned weights avoid them"
    return f"on x86 without VNNI, {cause}; {cure}"


def _worth_unsigned(
    placed: Network, reference: Network, layers: Sequence[str], samples: Sequence[Inputs]
) -> list[str]:
    """The layers, those that lose most first, that seven bits cost too much accuracy at; usually none."""
    with torch.no_grad():
        expected = [reference.call_flat(list(inputs)) for inputs in samples]
    reasons = dict.fromkeys(layers, "")
    narrow = _output_error(placed, samples, expected)
    best = _output_error(_tried(placed, reasons), samples, expected)
    if not math.isfinite(narrow) or narrow <= WORTH * best:
        return []
    worst = sorted(layers, key=lambda path: _noise(_treated(placed, path)), reverse=True)
    count = 1
    while count < len(worst):
        trial = _tried(placed, dict.fromkeys(worst[:count], ""))
        if _output_error(trial, samples, expected) <= WORTH * best:
            break
        count *= 2
    return worst[:count]


def _tried(placed: Network, reasons: dict[str, str]) -> Network:
    """A copy with unsigned weights in these layers."""
    return reformat_(frozen_copy(placed), UNSIGNED, reasons)


def _output_error(
    network: Network, samples: Sequence[Inputs], expected: list[list[Tensor]]
) -> float:
    """Relative error of a simulated network's outputs, ‖simulated − float‖ / ‖float‖."""
    error = norm = 0.0
    with torch.no_grad():
        for inputs, exact in zip(samples, expected, strict=True):
            for ours, theirs in zip(network.call_flat(list(inputs)), exact, strict=True):
                error += float((ours.double() - theirs.double()).square().sum())
                norm += float(theirs.double().square().sum())
    return math.sqrt(error / max(norm, 1e-300))


def _noise(layer: Treated) -> float:
    """Relative rounding noise of its weights."""
    weight, treatment = layer.weight.detach(), layer.treatment
    scale, zero_point = grid_of(layer)
    codes = quantize(
        weight, scale, zero_point, get_format(str(treatment.weight)), treatment.granularity
    )
    rounded = dequantize(codes, scale, zero_point, treatment.granularity)
    return float((weight - rounded).norm() / weight.norm().clamp(min=1e-30))


def _treated(placed: Network, path: str) -> Treated:
    layer = placed.get_submodule(path)
    assert isinstance(layer, Treated)
    return layer


__all__ = ["avoid_saturation_", "why"]
