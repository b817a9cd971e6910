"""Bias correction: give back the mean that rounding took away.

What it does
    Rounded weights and activations shift the mean of every output channel a little, and the shifts add up over depth.
    The float and the quantized network are run side by side, layer by layer; at every layer the mean difference
    per output channel is added to the bias, and the corrected output is what the next layer sees.
When to use
    Static and weight-only schemes; most on networks with depthwise convolutions, where few weights share a
    channel. Costs no speed: only biases change.
Cost
    One float and one simulated forward pass over a few dozen samples, whose activations at the current layer are
    held in memory.
Formula
    b ← b + E[y − ŷ], the mean over samples and positions, y the float output before the activation, ŷ the
    output of the quantized layer fed by the quantized, already corrected layers before it.
Limits
    Corrects means only. Layers called more than once, and layers without quantized weights, are left alone.
Reference
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721,
    section 4.2 (there with expected values from batch norm; here with data, all layers in sequence).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.progress import track
from kompakt.quantize.layers import Treated
from kompakt.quantize.method import Batches
from kompakt.quantize.quantizer import stage


def correct_biases_(placed: Network, reference: Network, batches: Batches) -> int:
    """Correct the bias of every treated layer, in place.

    Args:
        placed: A placed network whose quantizers have ranges; not yet frozen.
        reference: The float network it was placed from.
        batches: A few dozen samples.

    Returns:
        How many layers were corrected.
    """
    floats = {node.name: node for node in reference.graph.nodes}
    calls = Counter(str(n.target) for n in placed.graph.nodes if n.op == "call_module")
    pairs = [_Pair(placed, reference, list(inputs)) for inputs in batches]
    corrected = 0
    with torch.no_grad(), stage(placed, "simulate"):
        for node in track(list(placed.graph.nodes), "correcting biases"):
            for pair in pairs:
                pair.run(node, floats.get(node.name))
            layer = _layer(placed, node)
            if pairs and layer is not None and calls[str(node.target)] == 1:
                shift = _correct(layer, [pair.outputs(node) for pair in pairs])
                for pair in pairs:
                    pair.shift(node, shift)
                corrected += 1
            for pair in pairs:
                pair.forget(node)
    return corrected


def _layer(placed: Network, node: Node) -> Treated | None:
    layer = placed.get_submodule(str(node.target)) if node.op == "call_module" else None
    treated = isinstance(layer, Treated) and not isinstance(layer, nn.Embedding)
    return layer if treated and not layer.stored_float else None  # type: ignore[return-value,union-attr]


def _correct(layer: Treated, outputs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Add the mean difference per channel to the layer's bias; returns it, broadcastable to the output."""
    dims = outputs[0][0].dim()
    channel = dims - 1 if isinstance(layer, nn.Linear) else 1
    others = [d for d in range(dims) if d != channel]
    total = sum((exact - rounded).double().sum(others) for exact, rounded in outputs)
    count = sum(exact.numel() // exact.shape[channel] for exact, _ in outputs)
    assert isinstance(total, Tensor)
    shift = (total / count).float()
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(shift))
    layer.bias.add_(shift)
    shape = [1] * dims
    shape[channel] = -1
    return shift.reshape(shape)


class _Pair:
    """Runs two graphs node by node and keeps only what is still needed."""

    def __init__(self, placed: Network, reference: Network, inputs: list[Tensor]) -> None:
        self.rounded, self.exact = fx.Interpreter(placed), fx.Interpreter(reference)
        self.rounded.args_iter, self.exact.args_iter = iter(inputs), iter(inputs)
        self.uses = {n: len(n.users) for n in placed.graph.nodes}
        self.uses_exact = {n: len(n.users) for n in reference.graph.nodes}
        self.twin: dict[Node, Node] = {}

    def run(self, node: Node, twin: Node | None) -> None:
        if node.op == "output":
            return
        self.rounded.env[node] = self.rounded.run_node(node)
        if twin is not None:
            self.twin[node] = twin
            self.exact.env[twin] = self.exact.run_node(twin)

    def outputs(self, node: Node) -> tuple[Tensor, Tensor]:
        return self.exact.env[self.twin[node]], self.rounded.env[node]

    def shift(self, node: Node, amount: Tensor) -> None:
        self.rounded.env[node] = self.rounded.env[node] + amount

    def forget(self, node: Node) -> None:
        """Drop the values this was the last node to read."""
        _release(node, self.uses, self.rounded.env)
        if node in self.twin:
            _release(self.twin[node], self.uses_exact, self.exact.env)


def _release(node: Node, uses: dict[Node, int], env: dict[Node, Any]) -> None:
    for source in node.all_input_nodes:
        uses[source] -= 1
        if uses[source] == 0:
            env.pop(source, None)
