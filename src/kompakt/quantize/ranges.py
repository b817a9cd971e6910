"""Giving quantizers their ranges from a calibration."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from kompakt.errors import SchemeError
from kompakt.network.network import Network
from kompakt.observe import OBSERVERS, Calibration
from kompakt.quantize.layers import Treated, thaw_layer_
from kompakt.quantize.place import plan_of, quantizer_calls, quantizer_of


def set_ranges_(
    placed: Network, calibration: Calibration, observer: str | Mapping[str, str] = "minmax"
) -> Network:
    """Give every quantizer the range an observer finds in its site's statistics, in place.

    Sites that share a quantizer get the union of their ranges. A frozen network is no longer frozen afterwards: its
    integer biases belong to the ranges it had.

    Args:
        placed: A placed network.
        calibration: Statistics of (at least) the sites in the network's plan.
        observer: One observer's name for all sites, or a name for each site.

    Returns:
        The same network.

    Raises:
        SchemeError: K346 for an unknown observer, K347 when a site was not calibrated.
    """
    plan = plan_of(placed)
    members: dict[str, list[str]] = {}
    for site in plan.taps:
        members.setdefault(_owner(site, plan.shared), []).append(site)
    calls = quantizer_calls(placed)
    for sites in members.values():
        quantizer = quantizer_of(placed, calls[sites[0]])
        lows, highs = [], []
        for site in sites:
            if site not in calibration.statistics:
                raise SchemeError(
                    "K347",
                    f"the range of {site}",
                    why="the calibration did not observe it",
                    help="calibrate with the taps of this network's plan",
                )
            name = observer if isinstance(observer, str) else observer[site]
            low, high = find_observer(name).range(
                calibration.statistics[site], quantizer.format, quantizer.symmetric
            )
            lows.append(low)
            highs.append(high)
        quantizer.set_range(torch.tensor(min(lows)), torch.tensor(max(highs)))
    for layer in placed.modules():
        if isinstance(layer, Treated):
            thaw_layer_(layer)
    return placed


def find_observer(name: str):  # type: ignore[no-untyped-def]
    """An observer by name.

    Raises:
        SchemeError: K346 when there is none.
    """
    if name not in OBSERVERS:
        raise SchemeError(
            "K346",
            f"the calibrator {name!r}",
            why="there is none of that name",
            help=f"use one of {', '.join(OBSERVERS)}",
        )
    return OBSERVERS[name]


def _owner(site: str, shared: Mapping[str, str]) -> str:
    while site in shared:
        site = shared[site]
    return site
