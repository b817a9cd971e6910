"""Freezing: from here on a placed network computes with the very numbers that are written to the file."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.quantize.layers import Treated, freeze_layer_
from kompakt.quantize.place import is_quantizer_call, quantizer_of


def frozen_copy(placed: Network) -> Network:
    """A frozen network over the same tensors; ``placed`` itself stays as it is, to be calibrated or trained further.

    Raises:
        SchemeError: K343 when a quantizer has no range.
        NumericsError: K301 when a weight is not finite.
    """
    shared = [*placed.parameters(), *placed.buffers()]
    return freeze_(copy.deepcopy(placed, {id(tensor): tensor for tensor in shared}))


def freeze_(placed: Network) -> Network:
    """Fix the weight codes, scales and integer biases of every treated layer, in place.

    Args:
        placed: A placed network whose quantizers have ranges.

    Returns:
        The same network.

    Raises:
        SchemeError: K343 when a quantizer has no range.
        NumericsError: K301 when a weight is not finite.
    """
    modules = dict(nn.Module.named_modules(placed, remove_duplicate=False))
    calls: dict[Treated, list[Node]] = {}
    for node in placed.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, Treated) and not layer.frozen:
            calls.setdefault(layer, []).append(node)
    for layer, nodes in calls.items():
        scales = [_input_scale(placed, n) for n in nodes if adds_bias_in_integers(n, layer)]
        known = [scale for scale in scales if scale is not None]
        smallest = torch.stack(known).amin() if known else None
        freeze_layer_(layer, smallest, integer_bias=len(nodes) == 1)
    return placed


def adds_bias_in_integers(node: Node, layer: Treated) -> bool:
    """Whether the deployed kernel of this call adds the bias to its integer sums."""
    if layer.treatment.mode != "static":
        return False
    value = node.meta.get("val")
    rank = len(value.shape) if value is not None else 0
    # Linear layers on more than two dimensions become matrix products with a float addition behind them.
    return not isinstance(layer, nn.Linear) or rank == 2


def _input_scale(placed: Network, node: Node) -> Tensor | None:
    source = node.args[0] if node.args else None
    while isinstance(source, Node) and kind_of(source) == "pad":
        source = source.args[0]
    if not is_quantizer_call(placed, source):
        return None
    assert isinstance(source, Node)
    scale, _ = quantizer_of(placed, source).parameters_()
    return scale
