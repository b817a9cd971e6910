"""What the values on one edge look like on data, channel by channel, beside the range chosen for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.network import Network

_FEATURES_SECOND = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(kw_only=True)
class ChannelFacts:
    """Streamed facts about one edge.

    Attributes:
        channel_dim: The dimension that runs over channels.
        low: Smallest value.
        high: Largest value.
        values: Values seen.
        outside: How many lie outside the range.
        absmax: Largest magnitude of each channel, float64 (C,).
        square: Sum of squares of each channel, float64 (C,).
        varied: Whether the number of channels differs between batches; then no channel is told.
        readers: Kinds of what reads the edge, by its node's kind.
    """

    channel_dim: int
    low: float = float("inf")
    high: float = float("-inf")
    values: int = 0
    outside: int = 0
    absmax: Tensor | None = None
    square: Tensor | None = None
    varied: bool = False
    readers: Sequence[str] = field(default_factory=tuple)

    @classmethod
    def for_node(cls, network: Network, call: Node) -> ChannelFacts:
        """Facts, still empty, of what a quantizer call reads."""
        source = call.args[0]
        assert isinstance(source, Node)
        return cls(channel_dim=_channel_dim(network, source, call))

    def add(self, x: Tensor, low: float, high: float) -> None:
        """Add one tensor, beside the range chosen for it."""
        if x.numel() == 0:
            return
        self.low, self.high = min(self.low, float(x.amin())), max(self.high, float(x.amax()))
        self.values += x.numel()
        margin = 1e-6 * (high - low)
        self.outside += int(((x < low - margin) | (x > high + margin)).sum())
        if x.dim() <= 1:
            self.varied = True
            return
        dim = self.channel_dim % x.dim()
        others = [d for d in range(x.dim()) if d != dim]
        absmax, square = x.abs().amax(others).double(), x.double().square().sum(others)
        if self.absmax is None or self.square is None:
            self.absmax, self.square = absmax, square
        elif self.absmax.shape != absmax.shape:
            self.varied = True
        else:
            self.absmax = torch.maximum(self.absmax, absmax)
            self.square = self.square + square

    @property
    def extent(self) -> float:
        """How far the values reach, from the smallest (or 0) to the largest (or 0)."""
        return max(self.high, 0.0) - min(self.low, 0.0)


def _channel_dim(network: Network, source: Node, call: Node) -> int:
    """Dimension 1 for what convolutions read and write, else the last (of images: dimension 1)."""
    around = (source, *source.all_input_nodes, *source.users, *call.users)
    modules = (network.get_submodule(str(n.target)) for n in around if n.op == "call_module")
    if any(isinstance(module, _FEATURES_SECOND) for module in modules):
        return 1
    value = source.meta.get("val")
    return 1 if isinstance(value, Tensor) and value.dim() >= 4 else -1


__all__ = ["ChannelFacts"]
