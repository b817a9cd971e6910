"""Analytic bias correction: the mean that rounded weights shift, computed from batch norm statistics.

What it does
    A batch norm knows mean and spread of every channel it made of the training data. From these follows the mean of
    what each layer reads, and from that how far its rounded weights shift the mean of its outputs. The shift is taken
    out of the bias. No data is needed.
When to use
    Without calibration samples, or with too few of them for bias correction by data. Costs no speed.
Cost
    None worth measuring: a few numbers for each channel.
Formula
    b_o ← b_o − Σ_i E[x_i] Σ_k (ŵ_oik − w_oik), x_i what an activation makes of a normal distribution with the batch
    norm's mean and spread; E by its quantiles, so that any activation will do. Additions of two such tensors are taken
    as normal with the sums of means and variances.
Limits
    Corrects the rounding of weights only, not that of activations, and takes the borders of padded images for the
    inside. Layers whose input comes from no batch norm (the first one), and networks without any, stay as they are.
Reference
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721, section 4.2
    and appendix C (there in closed form for clipped normal distributions).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.folding import NORMALIZED, normalized_statistics
from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.network import Network
from kompakt.quantize.layers import Treated
from kompakt.quantize.method import Batches
from kompakt.quantize.quantizer import stage

QUANTILES = 256
POINTWISE = frozenset(
    {
        *("relu", "relu6", "clamp", "leaky_relu", "prelu", "sigmoid", "tanh", "gelu", "silu"),
        *("hardswish", "hardsigmoid", "add_scalar", "mul_scalar", "sub_scalar", "div_scalar"),
    }
)
UNCHANGED = frozenset(
    {
        *("identity", "dropout", "pad", "max_pool", "avg_pool", "global_average_pool"),
        *("mean", "upsample", "reshape", "slice"),
    }
)
Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation, float64 (C,)."""


def correct_biases_analytically_(placed: Network, reference: Network, batches: Batches) -> int:
    """Correct the bias of every treated layer whose input's mean is known, in place.

    Args:
        placed: A placed network; not yet frozen.
        reference: The float network it was placed from, with what its batch norms knew.
        batches: Not looked at.

    Returns:
        How many layers were corrected.
    """
    known = expected_moments(reference)
    layers = {n.name: n for n in placed.graph.find_nodes(op="call_module")}
    corrected = 0
    with torch.no_grad(), stage(placed, "simulate"):
        for node in reference.graph.find_nodes(op="call_module"):
            source, twin = node.args[0] if node.args else None, layers.get(node.name)
            layer = layer_of(twin) if twin is not None else None
            mean = known.get(source) if isinstance(source, Node) else None
            if mean is None or not isinstance(layer, Treated) or isinstance(layer, nn.Embedding):
                continue
            calls = sum(str(n.target) == str(node.target) for n in reference.graph.nodes)
            if calls == 1 and not layer.stored_float:
                corrected += _correct(layer, mean[0])
    return corrected


def _correct(layer: Treated, mean: Tensor) -> int:
    """Take the expected shift out of one layer's bias; returns 1 when it could."""
    change = (layer.treated_weight() - layer.weight).double()
    parts = int(getattr(layer, "groups", 1))
    if getattr(layer, "transposed", False):
        per_part = change.shape[0] // parts
        by_part = change.flatten(2).sum(2).reshape(parts, per_part, -1)
        if len(mean) != change.shape[0]:
            return 0
        shift = (by_part * mean.reshape(parts, per_part, 1)).sum(1).flatten()
    else:
        sums = change.flatten(2).sum(2) if change.dim() > 2 else change
        if len(mean) != sums.shape[1] * parts:
            return 0
        of_part = mean.reshape(parts, -1).repeat_interleave(sums.shape[0] // parts, 0)
        shift = (sums * of_part).sum(1)
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(shift, dtype=layer.weight.dtype))
    layer.bias.sub_(shift.to(layer.bias.dtype))
    return 1


def expected_moments(network: Network) -> dict[Node, Moments]:
    """Mean and spread of the channels of every tensor whose batch norm is known.

    Args:
        network: A float network; batch norms may be folded or not.
    """
    known: dict[Node, Moments] = {}
    with torch.no_grad():
        for node in network.graph.nodes:
            found = _moments(node, known)
            if found is not None:
                known[node] = found
    return known


def _moments(node: Node, known: dict[Node, Moments]) -> Moments | None:
    kind = kind_of(node)
    if NORMALIZED in node.meta:
        return cast("Moments", node.meta[NORMALIZED])
    if kind == "batch_norm" and node.op == "call_module":
        norm = layer_of(node)
        if norm is None or getattr(norm, "running_var", None) is None:
            return None
        return normalized_statistics(norm)
    first = node.args[0] if node.args else None
    before = known.get(first) if isinstance(first, Node) else None
    if before is None:
        return None
    if kind in POINTWISE:
        return _through(node, before)
    if kind in ("add", "sub"):
        other = known.get(cast("Node", node.args[1]))
        if other is None or len(other[0]) != len(before[0]):
            return None
        sign = 1.0 if kind == "add" else -1.0
        return before[0] + sign * other[0], (before[1].square() + other[1].square()).sqrt()
    if kind in UNCHANGED and _channels(node) == len(before[0]):
        return before
    return None


def _channels(node: Node) -> int | None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() < 2:
        return None
    size = value.shape[1]
    return int(size) if isinstance(size, int) or str(size).isdigit() else None


def _through(node: Node, before: Moments) -> Moments | None:
    """Moments behind a function of single values: the function of the normal distribution's quantiles."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() < 2:
        return None
    shares = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    points = torch.special.ndtri(shares).unsqueeze(1) * before[1] + before[0]
    shaped = points.float().reshape(*points.shape, *[1] * (value.dim() - 2))
    rest: Any = node.args[1:]
    if any(isinstance(argument, Node) for argument in (*rest, *node.kwargs.values())):
        return None
    layer = layer_of(node)
    function: Any = layer if layer is not None else node.target
    result = function(shaped, *rest, **node.kwargs).double().flatten(1)
    return result.mean(0), result.std(0, unbiased=False)
