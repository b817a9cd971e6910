"""What the channels of a float network look like, and how much noise in them would move the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.network.channel_groups import ChannelGroups
from kompakt.network.network import Network
from kompakt.quantize.method import Batches

PROBED_SAMPLES = 16
"""Samples of the backward passes."""
AT_ONCE = 4
SEED = 0


@dataclass(kw_only=True)
class EdgeNoise:
    """One tensor, channel by channel; float64 (C,) each.

    Attributes:
        low: Smallest value seen.
        high: Largest value seen.
        variance: Over samples and positions.
        gain: Mean over samples of the squared derivative of the outputs by the channel, summed over its positions: the
            squared error of the outputs for noise of variance 1 there.
    """

    low: Tensor
    high: Tensor
    variance: Tensor
    gain: Tensor


def observe_channels(
    network: Network, groups: ChannelGroups, batches: Batches
) -> dict[Node, EdgeNoise]:
    """Look at every layer's input and output and every clipped tensor.

    Args:
        network: The float network of the groups.
        groups: Its groups of channels.
        batches: Samples, at least one.
    """
    axes = _watched(groups)
    moments = _Moments(network, axes)
    with torch.no_grad():
        for inputs in _pieces(batches):
            moments.run(*inputs, enable_io_processing=False)
    found = moments.found()
    gains = _gains(network, axes, batches)
    if gains is None:
        gains = _local_gains(groups, moments)
    for node, gain in gains.items():
        if node in found:
            found[node].gain = gain
    return {node: seen for node, seen in found.items() if node in gains or node in groups.clipped}


def _watched(groups: ChannelGroups) -> dict[Node, int]:
    """Every tensor of interest with its dimension of channels."""
    axes: dict[Node, int] = {node: axis for node, (axis, *_) in groups.clipped.items()}
    for entry in groups.layers:
        source = entry.node.args[0]
        assert isinstance(source, Node)
        axis = -1 if isinstance(entry.layer, nn.Linear) else 1
        axes[source] = axes[entry.node] = axis
    return axes


def _pieces(batches: Batches, most: int | None = None) -> Iterator[list[Tensor]]:
    """The samples a few at a time."""
    left = most
    for batch in batches:
        size = max((len(t) for t in batch if t.dim()), default=1)
        for start in range(0, size, AT_ONCE):
            if left is not None and left <= 0:
                return
            count = AT_ONCE if left is None else min(AT_ONCE, left)
            yield [t[start : start + count] if t.dim() and len(t) == size else t for t in batch]
            left = None if left is None else left - count


def _rows(x: Tensor, axis: int) -> Tensor:
    """(C, values) of a tensor."""
    return x.detach().movedim(axis, 0).flatten(1)


class _Moments(fx.Interpreter):
    """Runs the network and keeps extremes and moments of some tensors."""

    def __init__(self, network: Network, axes: Mapping[Node, int]) -> None:
        super().__init__(network)
        self.axes = axes
        self.extremes: dict[Node, tuple[Tensor, Tensor]] = {}
        self.sums: dict[Node, Tensor] = {}
        self.counts: dict[Node, int] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if n in self.axes:
            rows = _rows(result, self.axes[n]).float()
            low, high = rows.aminmax(dim=1)
            if n in self.extremes:
                low = torch.minimum(low, self.extremes[n][0])
                high = torch.maximum(high, self.extremes[n][1])
            self.extremes[n] = low, high
            sums = torch.stack([rows.sum(1).double(), rows.square().sum(1).double()])
            self.sums[n] = self.sums.get(n, torch.zeros_like(sums)) + sums
            self.counts[n] = self.counts.get(n, 0) + rows.shape[1]
        return result

    def found(self) -> dict[Node, EdgeNoise]:
        """What was seen; gains are not known here."""
        seen = {}
        for node, (low, high) in self.extremes.items():
            mean, square = self.sums[node] / self.counts[node]
            variance = (square - mean.square()).clamp(min=0)
            nothing = torch.zeros_like(variance)
            seen[node] = EdgeNoise(
                low=low.double(), high=high.double(), variance=variance, gain=nothing
            )
        return seen


def _gains(
    network: Network, axes: Mapping[Node, int], batches: Batches
) -> dict[Node, Tensor] | None:
    """Gains by backward passes from random directions of the outputs; None where there are no derivatives."""
    generator = torch.Generator().manual_seed(SEED)
    probe = _Probe(network, axes)
    total: dict[Node, Tensor] = {}
    samples = 0
    with torch.enable_grad():
        for inputs in _pieces(batches, PROBED_SAMPLES):
            try:
                outputs = probe.outputs(inputs)
                loss = sum(
                    (out * _direction(out, generator)).sum() for out in outputs if out.requires_grad
                )
                tensors = list(probe.kept.values())
                slopes = torch.autograd.grad(loss, tensors, allow_unused=True)  # type: ignore[arg-type]
            except RuntimeError:
                return None  # a part of the network has no derivative
            for node, slope in zip(probe.kept, slopes, strict=True):
                if slope is not None:
                    gain = _rows(slope, axes[node]).double().square().sum(1)
                    total[node] = total.get(node, torch.zeros_like(gain)) + gain
            samples += max((len(t) for t in inputs if t.dim()), default=1)
    return {node: gain / samples for node, gain in total.items()} if total else None


def _direction(out: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers of the size that makes every output count alike."""
    random = torch.randn(out.shape, generator=generator).to(out)
    return random / out.detach().square().mean().sqrt().clamp(min=1e-12)


class _Probe(fx.Interpreter):
    """Runs the network so that derivatives by some tensors can be had."""

    def __init__(self, network: Network, axes: Mapping[Node, int]) -> None:
        super().__init__(network)
        self.axes = axes
        self.kept: dict[Node, Tensor] = {}

    def outputs(self, inputs: list[Tensor]) -> list[Tensor]:
        """The floating outputs, flat."""
        self.kept = {}
        result = self.run(*inputs, enable_io_processing=False)
        flat: list[Any] = []
        fx.node.map_aggregate(result, lambda x: flat.append(x))
        return [x for x in flat if isinstance(x, Tensor) and x.is_floating_point()]

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if n in self.axes and isinstance(result, Tensor) and result.is_floating_point():
            result = result if result.requires_grad else result.detach().requires_grad_()
            self.kept[n] = result
        return result


def _local_gains(groups: ChannelGroups, moments: _Moments) -> dict[Node, Tensor]:
    """Gains by what the reading layers themselves make of noise, each relative to its own output."""
    gains: dict[Node, Tensor] = {}
    for entry in groups.layers:
        if entry.node not in moments.sums:
            continue
        mean_square = moments.sums[entry.node][1] / moments.counts[entry.node]
        each = torch.full_like(mean_square, 1 / float(mean_square.sum().clamp(min=1e-12)))
        gains[entry.node] = each
        source = entry.node.args[0]
        assert isinstance(source, Node)
        weight = entry.layer.weight.detach().double().square()  # type: ignore[operator]
        if getattr(entry.layer, "transposed", False):
            weight = weight.transpose(0, 1)
        parts = int(getattr(entry.layer, "groups", 1))
        power = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        if parts > 1 and not getattr(entry.layer, "transposed", False):
            power = power.reshape(parts, -1, power.shape[1]).sum(1).flatten()
        else:
            power = power.sum(0)
        known = gains.get(source)
        here = power * float(each[0])
        gains[source] = here if known is None or len(known) != len(here) else known + here
    return gains
