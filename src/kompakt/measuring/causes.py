"""Why sites lose what they lose: what their numbers show, in words, and what could be done about it.

Nothing is decided here: each cause names the remedies to be tried, and only what they change says whether it was the
cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch.fx import Node

from kompakt.measuring.cause import (
    DYNAMIC,
    FLOAT,
    METHODS,
    OTHERS,
    WIDE,
    Cause,
    Remedy,
    cause_of,
)
from kompakt.measuring.edge_causes import WIDER, edge_cause, outlying_channels, stretch
from kompakt.measuring.error_split import SiteError
from kompakt.measuring.weight_causes import weight_findings
from kompakt.network.network import Network
from kompakt.observe import Calibration
from kompakt.quantize.place import plan_of

FED = 0.6
"""Outlying channels with this share of an input's energy decide what rounded weights cost."""
GATHERING = ("cat",)
"""Kinds whose output holds all their inputs."""
_WEIGHT_REMEDIES: dict[str, Remedy] = {
    "per_channel": Remedy(step="per_channel", words="give its weights one scale per channel"),
    "eight_bits": Remedy(step="eight_bits", words="give its weights 8 bits"),
    "clip_weights": Remedy(
        step="clip_weights", words="cut its outlying weights: the grid of least squared error"
    ),
    "equalize": METHODS[0],
    "seven_bits": Remedy(step="seven_bits", words="give its weights 7 bits (isa any does so)"),
    "dynamic": Remedy(step="dynamic", words="let it find its input's range while it runs"),
}


def site_causes(
    errors: Sequence[SiteError],
    placed: Network,
    reference: Network,
    calibration: Calibration | None,
    everywhere: Sequence[SiteError] = (),
) -> list[Cause]:
    """The likeliest explanation of each of these sites.

    Args:
        errors: The sites, as :func:`~kompakt.measuring.error_split.split_errors` measured them.
        placed: The placed network.
        reference: The float network it was placed from.
        calibration: What calibration saw, where that is known.
        everywhere: All sites; edges that share a range are compared.
    """
    seen = calibration.statistics if calibration is not None else {}
    extents = {e.site.name: e.facts.extent for e in everywhere or errors if e.facts is not None}
    found: list[Cause] = []
    for error in errors:
        if error.site.role == "activation":
            cause = _shared(error, placed, extents) or edge_cause(error, placed, seen)
            _add(found, cause)
        else:
            fed = _fed_by_outliers(error, placed, everywhere or errors)
            if fed is not None:
                _add(found, fed)
                continue
            layer = placed.get_submodule(error.site.name)
            original = reference.get_submodule(error.site.name)
            code, sentence, steps, facts = weight_findings(error, layer, original)
            remedies = [*(_WEIGHT_REMEDIES[step] for step in steps), FLOAT]
            found.append(cause_of(error, code, sentence, remedies, facts))
    return found


def _add(found: list[Cause], cause: Cause) -> None:
    """Add a cause; one of the same kind at the same site costs as much as both."""
    for at, known in enumerate(found):
        if (known.code, known.site) == (cause.code, cause.site):
            first = cause if cause.role == "activation" and "layer" in known.facts else known
            found[at] = replace(first, alone=math.hypot(known.alone, cause.alone))
            return
    found.append(cause)


def _fed_by_outliers(
    error: SiteError, placed: Network, everywhere: Sequence[SiteError]
) -> Cause | None:
    """That a layer's rounded weights cost what they cost because few channels of its input are so large."""
    edge = _input_of(error, placed, everywhere)
    if edge is None or edge.facts is None or error.saturation > error.rounding:
        return None
    channels, facts = outlying_channels(edge.facts), edge.facts
    if channels is None or facts.square is None:
        return None
    which, ratio = channels
    share = float(facts.square[which].sum() / facts.square.sum().clamp(min=1e-300))
    if share < FED:
        return None
    named = f"outlier channel {which[0]}" if len(which) == 1 else f"outlier channels {which}"
    sentence = (
        f"{named} of `{edge.site.name}` reaches {ratio:.0f} times as far as the others, which also makes the rounded "
        f"weights of `{error.site.name}` count {ratio:.0f} times"
    )
    remedies = [*METHODS[:2], *OTHERS, WIDE, DYNAMIC, FLOAT]
    numbers = {"channels": which, "ratio": ratio, "layer": error.site.name}
    cause = cause_of(error, "outlier_channel", sentence, remedies, numbers)
    return replace(cause, site=edge.site.name, role="activation")


def _input_of(
    error: SiteError, placed: Network, everywhere: Sequence[SiteError]
) -> SiteError | None:
    """The edge that a layer reads."""
    node = next((n for n in placed.graph.nodes if n.name == error.site.node), None)
    source = node.args[0] if node is not None and node.args else None
    site = source.meta.get("site") if isinstance(source, Node) else None
    fits = (e for e in everywhere if e.site.role == "activation" and e.site.name == site)
    return next(fits, None)


def _shared(error: SiteError, placed: Network, extents: Mapping[str, float]) -> Cause | None:
    """That a branch stretches the range that others share with it, where that costs more than clipping."""
    group = [name for name in _partners(placed, error.site.name) if name in extents]
    if len(group) < 2 or error.clipping > error.rounding:
        return None
    widest = max(group, key=lambda name: extents[name])
    narrow = min(group, key=lambda name: extents[name])
    ratio = stretch(extents[widest], extents[narrow])
    if ratio < WIDER or (error.site.name == widest and error.site.kind not in GATHERING):
        return None
    wide = [n for n in group if n == widest or stretch(extents[widest], extents[n]) < WIDER]
    stretched = (
        next(n for n in wide if n not in _gathered(placed))
        if set(wide) - _gathered(placed)
        else widest
    )
    sentence = (
        f"`{stretched}` stretches the range that `{narrow}` shares with it {ratio:.0f} times (both are read as one "
        "tensor)"
    )
    facts = {"ratio": ratio, "partners": group, "widest": stretched}
    cause = cause_of(error, "shared_range", sentence, [*METHODS[:2], WIDE, FLOAT], facts)
    return replace(cause, site=narrow)


def _gathered(placed: Network) -> set[str]:
    return {s.name for s in plan_of(placed).quantized("activation") if s.kind in GATHERING}


def _partners(placed: Network, site: str) -> list[str]:
    """Sites that share this one's quantizer, itself among them."""
    plan = plan_of(placed)
    mine = next(s.quantizer for s in plan.sites if s.name == site and s.role == "activation")
    return [s.name for s in plan.quantized("activation") if s.quantizer == mine]


__all__ = ["site_causes"]
