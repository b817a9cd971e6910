"""Activation-aware scaling (AWQ): weights that meet large activations are rounded with a finer step.

What it does
    A weight that multiplies a large activation costs the output more when it is rounded. Before rounding, the columns
    of a linear layer's weight are multiplied by factors that grow with the activations they meet, and the layer before
    takes the division (a layer norm nothing else reads, a linear layer, the values of an attention). In a group of
    weights with one scale, the enlarged columns keep more of their digits. Layers that read one tensor share the
    factors. How strongly they follow the activations is searched for each tensor.
When to use
    Weight-only schemes, before ``gptq``: the larger the groups, the more. Decoders, whose norms are read by linear
    layers only; encoders that normalise after the residual have few places for the factors.
Cost
    One float pass over the samples and ten products with every weight on about a thousand rows. No operator is added.
Formula
    s = (mean of abs x)^a per input channel, divided by √(max s · min s); x ← x / s, w ← w · s; a is that of .1 … 1 with
    the smallest ‖(W · s as rounded) x / s − W x‖ over the layers, on samples that s was not found on.
Limits
    Linear layers only, called once and with weights of their own, whose input another layer makes channel by channel.
    Clipping is left to ``weight_ranges``. The network changes by float rounding.
Reference
    Lin et al., AWQ, arXiv:2306.00978, section 3.2.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kompakt.network.network import Network
from kompakt.progress import track
from kompakt.quantize.channel_scaling import fold_, makers_of
from kompakt.quantize.in_order import in_order
from kompakt.quantize.linear_groups import (
    Group,
    linear_groups,
    rounded_weight,
    rows_of,
    weights_of,
)
from kompakt.quantize.method import Batches
from kompakt.quantize.rules import Rules
from kompakt.schemes import Mode, Scheme

MODES: tuple[Mode, ...] = ("weight_only",)
STRENGTHS = tuple(step / 10 for step in range(1, 11))
LEAST = 1e-4
WORTH = 0.97
"""Factors must leave at most this share of the squared error."""


def scale_by_activations(
    network: Network, scheme: Scheme, rules: Rules, batches: Batches
) -> tuple[Network, int]:
    """Scale the inputs of the linear layers whose weights alone a scheme rounds.

    Args:
        network: An inference-form network; it is not changed.
        scheme: Says how weights are rounded.
        rules: What the runtime can execute.
        batches: Calibration samples.

    Returns:
        A copy, and how many tensors were scaled.
    """
    scaled, changed = copy.deepcopy(network), 0
    groups = linear_groups(network, scheme, rules, MODES) if batches else {}
    twins = {node.name: node for node in scaled.graph.nodes}
    total = len(network.graph.nodes)
    for node, values in track(in_order(network, batches), "scaling weights", total=total):
        if node not in groups or not groups[node].alone:
            continue
        source = twins[node.name]
        makers = makers_of(scaled, source)
        if makers is None:
            continue
        # An earlier tensor's factors may be in these weights already: choose on what is there now.
        factors, left = _choose(weights_of(scaled, groups[node]), values, groups[node])
        if left <= WORTH and fold_(scaled, source, makers, factors, (batches[0], values[0])):
            _widen_(scaled, groups[node], factors)
            changed += 1
    scaled.graph.lint()
    scaled.recompile()
    return scaled, changed


def _choose(weights: list[Tensor], values: list[Tensor], group: Group) -> tuple[Tensor, float]:
    """The best factors, (I,), and the share of the squared error that they leave."""
    found, judged = rows_of(values)
    size = found.abs().mean(0)

    def error(factors: Tensor) -> float:
        x = judged / factors
        off = (rounded_weight(w * factors, group.treatment) - w * factors for w in weights)
        return sum(float((x @ difference.t()).square().sum()) for difference in off)

    plain = error(torch.ones_like(size))
    tried = {strength: _factors(size, strength) for strength in STRENGTHS}
    errors = {strength: error(factors) for strength, factors in tried.items()}
    best = min(errors, key=errors.__getitem__)
    return tried[best], errors[best] / max(plain, 1e-30)


def _factors(size: Tensor, strength: float) -> Tensor:
    factors = size.clamp(min=LEAST) ** strength
    return factors / (factors.amax() * factors.amin()).sqrt()


def _widen_(network: Network, group: Group, factors: Tensor) -> None:
    """Multiply the columns of the layers' weights, in place."""
    for call in group.calls:
        layer = network.get_submodule(str(call.target))
        wide = layer.weight.detach() * factors  # type: ignore[operator]
        layer.weight = nn.Parameter(wide, requires_grad=bool(layer.weight.requires_grad))


__all__ = ["scale_by_activations"]
