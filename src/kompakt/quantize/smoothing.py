"""Smoothing: outlier channels of activations are made smaller, and the weights that read them larger.

What it does
    Before a linear layer every channel of the input is divided by a factor, and the column of the weight that reads it
    is multiplied by the same factor. The product is the same, but one scale now fits all channels of the input.
    Layers that read one tensor share the factors.
When to use
    Static schemes on transformers, whose normalised activations have a few channels many times larger than the others.
Cost
    One float pass over the calibration samples. One multiplication before each linear layer, which runtimes that
    quantize there anyway (OpenVINO) fuse with that.
Formula
    s = max|x|^a / max|w|^(1 − a) per input channel, a the strength; x ← x / s, w ← w · s.
Limits
    Linear layers only, and only those called once with weights of their own. The network changes by float rounding.
Reference
    Xiao et al., SmoothQuant, arXiv:2211.10438, section 4.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.network import Network

STRENGTH = 0.95
LEAST = 1e-5


def smooth(
    network: Network, batches: Iterable[Mapping[str, Tensor]], strength: float = STRENGTH
) -> Network:
    """A smoothed copy of a network, to be placed in its stead.

    Args:
        network: An inference-form network; it is not changed.
        batches: Calibration inputs by name.
        strength: 0 leaves the outliers in the activations, 1 moves all of them into the weights.
    """
    smoothed = copy.deepcopy(network)
    groups = _groups(smoothed)
    largest = _Magnitudes(smoothed, groups)
    names = [spec.name for spec in smoothed.input_specs]
    with torch.no_grad():
        for batch in batches:
            largest.run(*[batch[name] for name in names], enable_io_processing=False)
        for source, calls in groups.items():
            if source in largest.found:
                _smooth_(smoothed, source, calls, largest.found[source], strength)
    smoothed.graph.lint()
    smoothed.recompile()
    return smoothed


def _groups(network: Network) -> dict[Node, list[Node]]:
    """For every tensor that linear layers read, their calls."""
    calls = [n for n in network.graph.nodes if n.op == "call_module" and kind_of(n) == "linear"]
    layers = {n: network.get_submodule(str(n.target)) for n in calls}
    owners = Counter(
        id(parameter)
        for module in nn.Module.modules(network)
        for parameter in module.parameters(recurse=False)
    )
    called = Counter(str(n.target) for n in calls)
    groups: dict[Node, list[Node]] = {}
    for node, layer in layers.items():
        source = node.args[0]
        if called[str(node.target)] == 1 and owners[id(layer.weight)] == 1:
            assert isinstance(source, Node)
            groups.setdefault(source, []).append(node)
    return groups


class _Magnitudes(fx.Interpreter):
    """Runs the network and keeps the largest magnitude of each channel of some tensors."""

    def __init__(self, network: Network, wanted: Mapping[Node, Any]) -> None:
        super().__init__(network)
        self.wanted = wanted
        self.found: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if n in self.wanted:
            here = result.abs().reshape(-1, result.shape[-1]).amax(0)
            self.found[n] = torch.maximum(here, self.found.get(n, here))
        return result


def _smooth_(
    network: Network, source: Node, calls: list[Node], largest: Tensor, strength: float
) -> None:
    layers = [network.get_submodule(str(call.target)) for call in calls]
    weights = torch.stack([layer.weight.abs().amax(0) for layer in layers]).amax(0)  # type: ignore[operator]
    factor = largest.clamp(min=LEAST) ** strength / weights.clamp(min=LEAST) ** (1 - strength)
    name = f"smoothing_{source.name}"
    network.register_buffer(name, factor.reciprocal())
    site = str(source.meta.get("site", source.name))
    with network.graph.inserting_before(calls[0]):
        stored = network.graph.get_attr(name)
        divided = network.graph.call_function(torch.ops.aten.mul.Tensor, (source, stored))
    stored.meta.update(val=factor, site=name)
    divided.meta.update(val=source.meta.get("val"), site=f"{site}.smoothed")
    for call, layer in zip(calls, layers, strict=True):
        call.replace_input_with(source, divided)
        layer.weight.mul_(factor)  # type: ignore[operator]
