"""Why an edge loses what it loses: clipped, stretched by a few channels or values, or too few codes."""

from __future__ import annotations

from collections.abc import Mapping

from kompakt.measuring.cause import (
    DYNAMIC,
    FLOAT,
    METHODS,
    MINMAX,
    OTHERS,
    RECALIBRATE,
    WIDE,
    Cause,
    cause_of,
)
from kompakt.measuring.channel_facts import ChannelFacts
from kompakt.measuring.error_split import SiteError
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.observe import EdgeStatistics, outlier_ratio
from kompakt.quantize.quantizer import Quantizer

WIDER = 3.0
"""A range this many times what the data needs has lost more than a bit and a half."""
BEYOND = 1.5
"""Data that reaches this many times as far as calibration saw is clipped hard."""
STRETCHED = 4.0
"""Channels or values this many times as large as all others cost two bits."""
UNEVEN = 30.0
"""Where a typical channel uses less than one part in so many of the range, it has fewer than 9 codes."""
BALANCED = 10.0
"""Clipping that costs less than so many times what rounding costs was a choice between the two."""
OUTLIERS = 8.0
"""The largest magnitude over the 99.9th percentile."""
_READERS = {
    "softmax": "a softmax",
    "sigmoid": "a sigmoid",
    "layer_norm": "a layer norm",
    "gelu": "a GELU",
    "silu": "a SiLU",
    "tanh": "a tanh",
}


def edge_cause(error: SiteError, placed: Network, seen: Mapping[str, EdgeStatistics]) -> Cause:
    """The likeliest explanation of what an edge loses.

    Args:
        error: What was measured.
        placed: The placed network.
        seen: What calibration saw, by site.
    """
    quantizer = placed.get_submodule(str(error.site.quantizer))
    assert isinstance(quantizer, Quantizer)
    statistics = seen.get(error.site.name)
    if statistics is not None and statistics.is_empty:
        statistics = None
    low, high = quantizer.represented_range()
    if error.formula > error.clipping + error.rounding:
        return _formula(error)
    # A calibrator that weighs both errors clips where a few channels reach far: then these are the cause.
    balanced = error.clipping < BALANCED * error.rounding and _is_out_of_shape(error)
    if error.clipping > error.rounding and not balanced:
        return _clipped(error, placed, statistics, low, high)
    return _rounded(error, placed, quantizer, statistics, low, high)


def _is_out_of_shape(error: SiteError) -> bool:
    return error.facts is not None and (
        outlying_channels(error.facts) is not None or _unevenness(error) >= UNEVEN
    )


def _formula(error: SiteError) -> Cause:
    share = error.formula / max(error.own, 1e-300)
    sentence = (
        f"`{error.site.name}` is rounded by the target's kernel otherwise than the float simulation rounds it: "
        f"{share:.0%} of the error it adds comes from that"
    )
    return cause_of(error, "formula", sentence, [FLOAT], {"share": share})


def _clipped(
    error: SiteError,
    placed: Network,
    statistics: EdgeStatistics | None,
    low: float,
    high: float,
) -> Cause:
    facts = error.facts
    assert facts is not None
    share = facts.outside / max(facts.values, 1)
    numbers = {"share": share, "low": low, "high": high, "data": [facts.low, facts.high]}
    reader = _reader(error, placed)
    reach = f"this data runs from {facts.low:.3g} to {facts.high:.3g}, its range from {low:.3g} to {high:.3g}"
    clipped = f"{share:.2%} of the values of `{error.site.name}`{reader} are clipped: {reach}"
    if statistics is not None and stretch(facts.extent, _extent(statistics)) >= BEYOND:
        numbers["calibrated"] = [statistics.low, statistics.high]
        sentence = (
            f"{clipped}, and calibration saw nothing outside "
            f"[{statistics.low:.3g}, {statistics.high:.3g}]"
        )
        return cause_of(error, "beyond_calibration", sentence, [RECALIBRATE, WIDE, FLOAT], numbers)
    saw = (
        ""
        if statistics is None
        else f"; calibration saw [{statistics.low:.3g}, {statistics.high:.3g}]"
    )
    return cause_of(error, "clipped", clipped + saw, [MINMAX, *OTHERS, WIDE, FLOAT], numbers)


def _rounded(
    error: SiteError,
    placed: Network,
    quantizer: Quantizer,
    statistics: EdgeStatistics | None,
    low: float,
    high: float,
) -> Cause:
    facts, name = error.facts, error.site.name
    assert facts is not None
    wider = stretch(high - low, facts.extent)
    if wider >= WIDER:
        return _too_wide(error, statistics, wider, (low, high))
    reader = _reader(error, placed)
    far = [*METHODS[:2], *OTHERS, WIDE, DYNAMIC, FLOAT]
    channels = outlying_channels(facts)
    if channels is not None:
        which, ratio = channels
        named = f"outlier channel {which[0]}" if len(which) == 1 else f"outlier channels {which}"
        verb = "stretches" if len(which) == 1 else "stretch"
        sentence = f"{named} of `{name}`{reader} {verb} the range {ratio:.0f} times"
        return cause_of(
            error, "outlier_channel", sentence, far, {"channels": which, "ratio": ratio}
        )
    if statistics is not None and (ratio := outlier_ratio(statistics)) >= OUTLIERS:
        sentence = (
            f"outliers of `{name}`{reader} reach {ratio:.0f} times as far as 99.9 % of its values"
        )
        return cause_of(error, "outlier_values", sentence, far, {"ratio": ratio})
    uneven = _unevenness(error)
    if uneven >= UNEVEN:
        sentence = (
            f"half of the channels of `{name}`{reader} use less than 1/{uneven:.0f} of its range"
        )
        return cause_of(error, "uneven_channels", sentence, far, {"ratio": uneven})
    bits = quantizer.format.bits
    lost = error.relative(error.rounding)
    sentence = f"{bits} bits are few for `{name}`{reader}: rounding leaves an error of {lost:.1%}"
    return cause_of(error, "coarse_activations", sentence, [*OTHERS, WIDE, DYNAMIC, FLOAT], {})


def _too_wide(
    error: SiteError,
    statistics: EdgeStatistics | None,
    wider: float,
    ends: tuple[float, float],
) -> Cause:
    name, numbers = error.site.name, {"ratio": wider, "low": ends[0], "high": ends[1]}
    saw = _extent(statistics) if statistics is not None else 0.0
    facts = error.facts
    assert facts is not None
    if statistics is not None and saw >= WIDER * facts.extent:
        sentence = (
            f"the range of `{name}` is {wider:.0f} times what this data needs: calibration saw "
            f"[{statistics.low:.3g}, {statistics.high:.3g}], this data lies in [{facts.low:.3g}, {facts.high:.3g}]"
        )
        return cause_of(error, "wider_calibration", sentence, [RECALIBRATE, WIDE, FLOAT], numbers)
    sentence = (
        f"the range of `{name}`, [{ends[0]:.3g}, {ends[1]:.3g}], is {wider:.0f} times what its values need, "
        f"[{facts.low:.3g}, {facts.high:.3g}]"
    )
    return cause_of(error, "too_wide", sentence, [MINMAX, *OTHERS, WIDE, FLOAT], numbers)


def outlying_channels(facts: ChannelFacts) -> tuple[list[int], float] | None:
    """The few channels that reach :data:`STRETCHED` times as far as all others, and how many times."""
    if facts.varied or facts.absmax is None or facts.absmax.numel() < 3:
        return None
    order = facts.absmax.argsort(descending=True)
    sizes = facts.absmax[order]
    most = max(1, sizes.numel() // 16)
    ratios = [float(sizes[k - 1] / sizes[k].clamp(min=1e-30)) for k in range(1, most + 1)]
    k = max(range(len(ratios)), key=ratios.__getitem__) + 1
    ratio = float(sizes[0] / sizes[k].clamp(min=1e-30))
    return ([int(c) for c in order[:k]], ratio) if ratios[k - 1] >= STRETCHED else None


def _unevenness(error: SiteError) -> float:
    facts = error.facts
    if facts is None or facts.varied or facts.absmax is None:
        return 1.0
    alive = facts.absmax[facts.absmax > 0]
    return float(alive.amax() / alive.median()) if alive.numel() > 2 else 1.0


def _reader(error: SiteError, placed: Network) -> str:
    """The function of the edge's reader, where it is a sensitive one: ``, the input of a softmax``."""
    calls = (n for n in placed.graph.nodes if n.meta.get("site") == error.site.name)
    for call in calls:
        for user in call.users:
            if (kind := kind_of(user)) in _READERS:
                return f", the input of {_READERS[kind]},"
    return ""


def _extent(statistics: EdgeStatistics) -> float:
    return max(statistics.high, 0.0) - min(statistics.low, 0.0)


def stretch(wide: float, narrow: float) -> float:
    """How many times as wide one extent is as another."""
    return wide / narrow if narrow > 0 else (1.0 if wide <= 0 else 1e6)


__all__ = ["BEYOND", "WIDER", "edge_cause", "outlying_channels", "stretch"]
