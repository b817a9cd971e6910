"""Folds batch norms into the layer before them.

Formula: with ``f = γ / sqrt(var + ε)`` per output channel, ``weight ← weight · f`` and
``bias ← (bias − mean) · f + β``. Computed in float64, so the folded weights carry a single
rounding.

What the batch norm knew about its output stays on the layer's node, as ``node.meta[NORMALIZED]``: mean and standard
deviation of every channel over the training data, before the activation.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, fx, nn

from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.network import Network

NORMALIZED = "normalized"
"""Key of a node's metadata: float64 (mean (C,), standard deviation (C,)) of its output over the training data."""


def fold_batch_norms(network: Network) -> None:
    """Fold, in place, every batch norm whose input is a layer that nothing else reads or calls."""
    calls = Counter(id(layer_of(node)) for node in network.graph.find_nodes(op="call_module"))
    shared = _shared_tensors(network)
    for node in list(network.graph.find_nodes(op="call_module")):
        source = node.args[0]
        if kind_of(node) != "batch_norm" or not isinstance(source, fx.Node):
            continue
        norm, layer = layer_of(node), layer_of(source)
        if layer is None or norm is None or len(source.users) != 1:
            continue
        if calls[id(norm)] > 1 or calls[id(layer)] > 1 or id(layer.weight) in shared:
            continue
        if kind_of(source) in ("conv", "conv_transpose", "linear") and _fits(source, norm):
            fold_pair(layer, norm)
            source.meta[NORMALIZED] = normalized_statistics(norm)
            node.replace_all_uses_with(source)
            network.graph.erase_node(node)


def fold_pair(layer: nn.Module, norm: nn.Module) -> None:
    """Fold one batch norm into ``layer``, which gets new ``weight`` and ``bias`` parameters.

    Args:
        layer: Convolution, transposed convolution or linear layer with O outputs.
        norm: Batch norm over those O channels, with running statistics.
    """
    weight: Tensor = layer.weight.detach().double()  # type: ignore[operator]
    factor_O, shift_O = channel_affine(norm)
    bias = layer.bias
    bias_O = torch.zeros_like(shift_O) if bias is None else bias.detach().double()  # type: ignore[operator]
    dtype = layer.weight.dtype
    trains = bool(layer.weight.requires_grad)
    scaled = weight * output_factors(layer, factor_O, weight.ndim)
    layer.weight = nn.Parameter(scaled.to(dtype), requires_grad=trains)  # type: ignore[arg-type]
    layer.bias = nn.Parameter((bias_O * factor_O + shift_O).to(dtype), requires_grad=trains)  # type: ignore[arg-type]


def normalized_statistics(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float64 (O,), of every channel a batch norm makes of its training data."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_var is not None
    # The variance of (x - mean) / sqrt(var + eps) is a little below 1.
    spread = (norm.running_var.double() / (norm.running_var.double() + norm.eps)).sqrt()
    if norm.weight is not None:
        spread = spread * norm.weight.detach().double().abs()
    mean = torch.zeros_like(spread) if norm.bias is None else norm.bias.detach().double()
    return mean, spread


def channel_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Factor and shift, float64 of shape (O,), that a batch norm in eval mode applies to each
    channel.
    """
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -norm.running_mean.double() * factor
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return factor, shift


def output_factors(layer: nn.Module, factor_O: Tensor, rank: int) -> Tensor:
    """``factor_O`` shaped to multiply the weight of ``layer`` along its output channels.

    A transposed convolution stores (I, O / groups, ...): there the outputs of group g belong to the
    inputs of group g.
    """
    groups = getattr(layer, "groups", 1)
    if not getattr(layer, "transposed", False):
        return factor_O.reshape(-1, *[1] * (rank - 1))
    inputs: int = layer.weight.shape[0]  # type: ignore[assignment, index]
    per_group = factor_O.reshape(groups, 1, -1)
    rows = per_group.expand(groups, inputs // groups, per_group.shape[-1])
    return rows.reshape(inputs, -1, *[1] * (rank - 2))


def _fits(source: fx.Node, norm: nn.Module) -> bool:
    """Whether the norm has statistics and normalises the channels this layer makes."""
    if getattr(norm, "running_mean", None) is None:
        return False
    produced = source.meta.get("val")
    # A linear layer makes its features last; BatchNorm1d on (N, C, L) would normalise dimension 1.
    return kind_of(source) != "linear" or (isinstance(produced, Tensor) and produced.ndim == 2)


def _shared_tensors(network: Network) -> set[int]:
    """Identities of parameters that more than one layer holds."""
    counts: Counter[int] = Counter()
    for module in set(nn.Module.modules(network)):
        counts.update(id(p) for p in module._parameters.values() if p is not None)
    return {key for key, count in counts.items() if count > 1}
