"""Other weight formats for single layers of a placed network, in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kompakt.network.network import Network
from kompakt.quantize.layers import Treated, release_grid_, thaw_layer_
from kompakt.quantize.place import plan_of


def reformat_(placed: Network, format_name: str, reasons: Mapping[str, str]) -> Network:
    """Store the weights of some layers in another format, in place; the plan says why.

    Args:
        placed: A placed network; layers that are frozen thaw.
        format_name: The format.
        reasons: For each layer, why.

    Returns:
        The same network.
    """
    plan, treatments = plan_of(placed), {}
    for path in reasons:
        layer = placed.get_submodule(path)
        assert isinstance(layer, Treated)
        layer.treatment = treatments[path] = replace(layer.treatment, weight=format_name)
        thaw_layer_(layer)
        release_grid_(layer)  # it belonged to the other format
    sites = tuple(
        replace(
            site,
            format=format_name,
            why_format=reasons[site.name],
            treatment=treatments[site.name],
        )
        if site.role == "weight" and site.name in reasons
        else site
        for site in plan.sites
    )
    placed.meta["plan"] = replace(plan, sites=sites)
    return placed


__all__ = ["reformat_"]
