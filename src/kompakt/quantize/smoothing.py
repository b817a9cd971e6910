"""Smoothing: outlier channels of activations are made smaller, and the weights that read them larger.

What it does
    Every channel that a linear layer reads is divided by a factor, and the column of the weight that reads it is
    multiplied by the same factor. The product is the same, but one scale now fits all channels of the input. Layers
    that read one tensor share the factors. How much of the outliers moves into the weights is searched for each
    tensor. Where the layer before can take the factors into its weights (a layer norm nothing else reads, a linear
    layer, the values of an attention), no operator is added; elsewhere a multiplication is, where it pays.
When to use
    Static and dynamic schemes on transformers, whose normalised activations have a few channels many times larger
    than the others. After outlier splitting, which deals with what cannot be folded through a GELU.
Cost
    One float pass over the samples and some fifteen products with every weight on about a thousand rows. A
    multiplication that is added takes about as long as a bias; OpenVINO fuses it with the quantization.
Formula
    s = max|x|^a / max|w|^(1 − a) per input channel; x ← x / s, w ← w · s. The strength a is that with the smallest
    ‖W·x − Ŵ·x̂‖ over the layers, on samples that the maxima and ranges were not found on.
Limits
    Linear layers only, and only those called once with weights of their own. The network changes by float rounding.
Reference
    Xiao et al., SmoothQuant, arXiv:2211.10438, section 4 (there one strength for the whole network).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.progress import track
from kompakt.quantize.channel_scaling import fold_, makers_of
from kompakt.quantize.in_order import in_order
from kompakt.quantize.linear_groups import (
    Group,
    linear_groups,
    rounded_input,
    rounded_weight,
    rows_of,
    weights_of,
)
from kompakt.quantize.method import Batches
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme

STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
LEAST = 1e-5
FOLDED_WORTH = 0.95
"""Factors that cost nothing must leave at most this share of the squared error."""
MULTIPLIED_WORTH = 0.5
"""The same for a multiplication."""


def smooth(network: Network, scheme: Scheme, rules: Rules, batches: Batches) -> tuple[Network, int]:
    """Smooth the inputs of the linear layers that a scheme computes in integers.

    Args:
        network: An inference-form network; it is not changed.
        scheme: Says which layers round their input.
        rules: What the runtime can execute.
        batches: Calibration samples.

    Returns:
        A copy, and how many tensors were smoothed.
    """
    smoothed, changed = copy.deepcopy(network), 0
    groups = linear_groups(network, scheme, rules) if batches else {}
    twins = {node.name: node for node in smoothed.graph.nodes}
    total = len(network.graph.nodes)
    for node, values in track(in_order(network, batches), "smoothing", total=total):
        if node not in groups:
            continue
        group = groups[node]
        factors, left = _choose(weights_of(network, group), values, group, rules)
        source, calls = twins[node.name], [twins[call.name] for call in group.calls]
        makers = makers_of(smoothed, source) if group.alone else None
        sample = (batches[0], values[0])
        if not (
            left <= FOLDED_WORTH
            and makers is not None
            and fold_(smoothed, source, makers, factors, sample)
        ):
            if left > MULTIPLIED_WORTH:
                continue
            _multiply_(smoothed, source, calls, factors)
        _widen_(smoothed, calls, factors)
        changed += 1
    smoothed.graph.lint()
    smoothed.recompile()
    return smoothed, changed


def _choose(
    weights: list[Tensor], values: list[Tensor], group: Group, rules: Rules
) -> tuple[Tensor, float]:
    """The best factors, (I,), and the share of the squared error that they leave."""
    found, judged = rows_of(values)
    exact = [judged @ weight.t() for weight in weights]

    def error(factors: Tensor) -> float:
        divided = found / factors
        x = rounded_input(judged / factors, divided.amin(), divided.amax(), group, rules)
        wide = [rounded_weight(weight * factors, group.treatment) for weight in weights]
        return sum(float((x @ w.t() - y).square().sum()) for w, y in zip(wide, exact, strict=True))

    largest = found.abs().amax(0)
    plain = error(torch.ones_like(largest))
    errors = {a: error(_factors(largest, weights, a)) for a in STRENGTHS}
    best = min(errors, key=errors.__getitem__)
    everything = torch.stack([v.abs().reshape(-1, v.shape[-1]).amax(0) for v in values]).amax(0)
    return _factors(everything, weights, best), errors[best] / max(plain, 1e-30)


def _factors(largest: Tensor, weights: list[Tensor], strength: float) -> Tensor:
    columns = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    factors: Tensor = largest.clamp(min=LEAST) ** strength / columns.clamp(min=LEAST) ** (
        1 - strength
    )
    return factors


def _multiply_(network: Network, source: Node, calls: list[Node], factors: Tensor) -> None:
    """Let the layers read the tensor times the factors' reciprocals, in place."""
    name = f"smoothing_{source.name}"
    network.register_buffer(name, factors.reciprocal())
    site = str(source.meta.get("site", source.name))
    with network.graph.inserting_before(calls[0]):
        stored = network.graph.get_attr(name)
        divided = network.graph.call_function(torch.ops.aten.mul.Tensor, (source, stored))
    stored.meta.update(val=factors, site=name)
    divided.meta.update(val=source.meta.get("val"), site=f"{site}.smoothed")
    for call in calls:
        call.replace_input_with(source, divided)


def _widen_(network: Network, calls: list[Node], factors: Tensor) -> None:
    """Multiply the columns of the layers' weights, in place."""
    for call in calls:
        layer = network.get_submodule(str(call.target))
        trains = bool(layer.weight.requires_grad)
        wide = layer.weight.detach() * factors  # type: ignore[operator]
        layer.weight = nn.Parameter(wide, requires_grad=trains)


__all__ = ["smooth"]
