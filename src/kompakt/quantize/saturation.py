"""Where 16-bit sums can saturate on x86 processors without VNNI.

There an integer kernel for unsigned activations and signed weights multiplies with ``VPMADDUBSW``: two neighbouring
products are added in 16 bits, and what does not fit is clipped without notice. With VNNI, and on ARM, sums have 32
bits. Neighbours are two consecutive input channels of one kernel position (the order weights are packed in), or two
consecutive input features. Codes enter as they are stored, before any zero point is subtracted.

Depthwise kernels, signed activations and unsigned weights are widened before they are multiplied: nothing saturates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.numerics.affine import quantize
from kompakt.numerics.formats import get_format
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.kinds import placing_kind
from kompakt.quantize.layers import Treated, grid_of
from kompakt.quantize.pending import Codes
from kompakt.quantize.place import is_quantizer_call, quantizer_of
from kompakt.quantize.rules import Rules

LOWEST, HIGHEST = -(2**15), 2**15 - 1
"""What 16 bits hold."""
LARGEST_CODE = 255
_BLOCK = 1 << 22
"""Sums computed at once."""

Verdict = Literal["impossible", "not seen", "seen", "possible"]


@dataclass(kw_only=True)
class PairSums:
    """The pair sums of one layer.

    Attributes:
        layer: The layer's name.
        weight: The format of its weights.
        low: The smallest pair sum its weights allow on any data.
        high: The largest.
        samples: Samples it was watched on; 0 when only its weights were looked at.
        sums: Pair sums computed for those samples.
        saturating: How many of them 16 bits do not hold.
        least: The smallest pair sum on those samples, or a bound below it where that settles it.
        most: The largest, or a bound above it.
    """

    layer: str
    weight: str
    low: int
    high: int
    samples: int = 0
    sums: int = 0
    saturating: int = 0
    least: int = 0
    most: int = 0

    @property
    def verdict(self) -> Verdict:
        """``impossible`` on any data, ``seen`` or ``not seen`` on the samples; ``possible`` where none was watched."""
        if fits(self.low, self.high):
            return "impossible"
        if not self.samples:
            return "possible"
        return "seen" if self.saturating else "not seen"

    @property
    def at_risk(self) -> bool:
        """Whether it saturates on the samples, or may where none was watched."""
        return self.verdict in ("seen", "possible")

    def to_json(self) -> dict[str, Any]:
        """Plain data for records."""
        return {**vars(self), "verdict": self.verdict}


def fits(low: float, high: float) -> bool:
    """Whether 16 bits hold both."""
    return low >= LOWEST and high <= HIGHEST


def pair_sums(placed: Network, batches: Iterable[Sequence[Tensor]], rules: Rules) -> list[PairSums]:
    """The pair sums of every layer of a placed network that a processor without VNNI adds in 16 bits.

    Weights are looked at first. Only layers whose weights allow a sum that does not fit are watched on data, and of
    those only pairs that the largest code of each input channel leaves in doubt are computed.

    Args:
        placed: The network; frozen, where there are inputs.
        batches: Inputs, one tensor for each input of the network; read once, and only when a layer needs watching.
            None: the weights alone are looked at.
        rules: The rules of its runtime.

    Returns:
        One entry a layer, in graph order.
    """
    watch = PairSumWatch(placed, rules)
    if watch.needs_data:
        for inputs in batches:
            run_in_integers(placed, *inputs, on_input=watch.observe)
            watch.count(int(inputs[0].shape[0]) if inputs[0].dim() else 1)
    return watch.found


class PairSumWatch:
    """Watches the layers of a network whose weights allow pair sums that 16 bits do not hold.

    Args:
        placed: The network.
        rules: The rules of its runtime.
    """

    def __init__(self, placed: Network, rules: Rules) -> None:
        self._watched = _watched(placed, rules)
        self._doubtful = {path: w for path, w in self._watched.items() if w.doubtful}

    @property
    def needs_data(self) -> bool:
        """Whether the weights alone leave a layer in doubt."""
        return bool(self._doubtful)

    @property
    def found(self) -> list[PairSums]:
        """What is known so far, one entry a layer, in graph order."""
        return [watch.found for watch in self._watched.values()]

    def observe(self, node: Node, codes: Codes) -> None:
        """Look at what a layer reads."""
        watch = self._doubtful.get(str(node.target))
        if watch is not None:
            watch.observe(codes)

    def lost(self, node: Node, codes: Codes) -> Tensor | None:
        """Look at what a layer reads; what clipping takes from its sums there, where it takes anything.

        Returns:
            Clipped sums minus exact ones, float32 (O, positions), positions of the whole batch in order.
        """
        watch = self._doubtful.get(str(node.target))
        return None if watch is None else watch.loss(codes)

    def count(self, samples: int) -> None:
        """So many samples more were looked at."""
        for watch in self._doubtful.values():
            watch.found.samples += samples


def _watched(placed: Network, rules: Rules) -> dict[str, _Watch]:
    found: dict[str, _Watch] = {}
    for node in placed.graph.nodes:
        if node.op != "call_module" or placing_kind(node) not in rules.pair_sums:
            continue
        layer = placed.get_submodule(str(node.target))
        if isinstance(layer, Treated) and _adds_pairs(placed, node, layer):
            found.setdefault(str(node.target), _Watch.of(str(node.target), layer))
    return found


def _adds_pairs(placed: Network, node: Node, layer: Treated) -> bool:
    """Whether the kernel of this call multiplies unsigned codes with signed ones and adds neighbours."""
    mode, weight = layer.treatment.mode, get_format(str(layer.treatment.weight))
    if mode not in ("static", "dynamic") or not weight.signed or _is_depthwise(layer):
        return False
    source = node.args[0]
    if mode == "dynamic":
        return True
    while isinstance(source, Node) and placing_kind(source) == "pad":
        source = source.args[0]
    if not is_quantizer_call(placed, source):
        return False
    assert isinstance(source, Node)
    fmt = quantizer_of(placed, source).format
    return fmt.bits <= 8 and not fmt.signed


def _is_depthwise(layer: Any) -> bool:
    groups = int(getattr(layer, "groups", 1))
    return groups > 1 and bool(layer.in_channels == layer.out_channels == groups)


@dataclass
class _Watch:
    """One layer while it is watched.

    Attributes:
        layer: The layer.
        even: Weight codes that come first in their pair, int32 (O, pairs).
        odd: Those that come second; 0 where a pair has only one.
        found: What is known so far.
        doubtful: Whether data has to tell.
        lost: What clipping takes from each sum, (O, positions), while that is asked for.
    """

    layer: Treated
    even: Tensor
    odd: Tensor
    found: PairSums
    doubtful: bool = field(default=False)
    lost: Tensor | None = None

    @classmethod
    def of(cls, path: str, layer: Treated) -> _Watch:
        """Look at the weights."""
        even, odd = _pairs(layer)
        low, high = _reach(even, odd, LARGEST_CODE, LARGEST_CODE)
        found = PairSums(
            layer=path,
            weight=str(layer.treatment.weight),
            low=int(low.amin()),
            high=int(high.amax()),
        )
        doubtful = not fits(found.low, found.high) and layer.treatment.mode == "static"
        return cls(layer, even, odd, found, doubtful)

    def observe(self, x: Codes) -> None:
        """Add one batch of inputs."""
        columns = _Columns.of(self.layer, x)
        outputs = self.even.shape[0] // columns.groups
        for group in range(columns.groups):
            rows = slice(group * outputs, (group + 1) * outputs)
            self._observe_group(columns, group, self.even[rows], self.odd[rows])

    def loss(self, x: Codes) -> Tensor | None:
        """Add one batch of inputs; what clipping takes from each of its sums, None where it takes nothing."""
        before = self.found.saturating
        self.lost = torch.zeros(self.even.shape[0], _Columns.of(self.layer, x).positions)
        self.observe(x)
        lost, self.lost = self.lost, None
        return lost if self.found.saturating > before else None

    def _observe_group(self, columns: _Columns, group: int, even: Tensor, odd: Tensor) -> None:
        found, top = self.found, columns.largest(group)
        low, high = _reach(even, odd, top[0::2], top[1::2])
        found.sums += columns.positions * even.numel()
        doubt = (low < LOWEST) | (high > HIGHEST)
        if not doubt.all():
            found.least = min(found.least, int(low[~doubt].amin()))
            found.most = max(found.most, int(high[~doubt].amax()))
        for pair in doubt.any(0).nonzero().flatten().tolist():
            rows = doubt[:, pair].nonzero().flatten()
            a, b = columns.codes(group, 2 * pair), columns.codes(group, 2 * pair + 1)
            first = group * even.shape[0]
            for block in torch.split(rows, max(1, _BLOCK // max(1, a.numel()))):
                self._count(a, b, even[block, pair], odd[block, pair], block + first)

    def _count(self, a: Tensor, b: Tensor, even: Tensor, odd: Tensor, outputs: Tensor) -> None:
        sums = torch.outer(even, a).addr_(odd, b)
        least, most = int(sums.amin()), int(sums.amax())
        self.found.least, self.found.most = (
            min(self.found.least, least),
            max(self.found.most, most),
        )
        if not fits(least, most):
            self.found.saturating += int(((sums < LOWEST) | (sums > HIGHEST)).sum())
            if self.lost is not None:
                self.lost[outputs] += sums.clamp(LOWEST, HIGHEST) - sums


def _pairs(layer: Treated) -> tuple[Tensor, Tensor]:
    """Weight codes in the order they are packed, first and second of each pair: float32 (O, pairs)."""
    codes = _weight_codes(layer)
    if codes.dim() > 2:
        codes = codes.movedim(1, -1).flatten(1)
    if codes.shape[1] % 2:
        codes = nn.functional.pad(codes, (0, 1))
    return codes[:, 0::2].contiguous(), codes[:, 1::2].contiguous()


def _weight_codes(layer: Treated) -> Tensor:
    """Its weight codes, whether it is frozen or not: float32 (O, ...)."""
    if layer.weight_codes is not None:
        codes = layer.weight_codes.to(torch.float32)
        return codes.t() if layer.treatment.mode == "dynamic" else codes
    treatment, weight = layer.treatment, layer.weight.detach()
    scale, zero_point = grid_of(layer)
    fmt = get_format(str(treatment.weight))
    return quantize(weight, scale, zero_point, fmt, treatment.granularity).to(torch.float32)


def _reach(
    even: Tensor, odd: Tensor, top_even: Tensor | int, top_odd: Tensor | int
) -> tuple[Tensor, Tensor]:
    """The smallest and largest sums of each pair, for codes from 0 to the given ones: (O, pairs)."""
    low = even.clamp(max=0) * top_even + odd.clamp(max=0) * top_odd
    high = even.clamp(min=0) * top_even + odd.clamp(min=0) * top_odd
    return low, high


@dataclass
class _Columns:
    """The input codes of a layer as its kernel reads them.

    Attributes:
        codes_: Stored codes, padded: float32 (B, C, ...), or (N, I) for a linear layer.
        offsets: For each kernel position, where it reads: one slice for each spatial axis.
        groups: Groups of channels.
    """

    codes_: Tensor
    offsets: list[tuple[slice, ...]]
    groups: int

    @classmethod
    def of(cls, layer: Any, x: Codes) -> _Columns:
        """The columns of one call."""
        codes = x.values.to(torch.float32)
        if isinstance(layer, nn.Linear):
            return cls(codes.flatten(0, -2), [()], 1)
        _, zero_point = x.quantizer.parameters_()
        padding = layer._reversed_padding_repeated_twice
        if layer.padding_mode == "zeros":
            codes = nn.functional.pad(codes, padding, value=float(zero_point))
        else:
            codes = nn.functional.pad(codes, padding, mode=str(layer.padding_mode))
        axes = []
        for size, kernel, stride, dilation in zip(
            codes.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True
        ):
            last = size - dilation * (kernel - 1)
            axes.append([slice(k * dilation, k * dilation + last, stride) for k in range(kernel)])
        grid = torch.cartesian_prod(*(torch.arange(len(axis)) for axis in axes))
        places = grid.reshape(-1, len(axes)).tolist()
        offsets = [tuple(axes[d][k] for d, k in enumerate(place)) for place in places]
        return cls(codes, offsets, int(layer.groups))

    @property
    def channels(self) -> int:
        """Input channels of one group."""
        return self.codes_.shape[1] // self.groups

    @property
    def positions(self) -> int:
        """Output positions, over the whole batch."""
        return self._at(self.offsets[0], 0).numel()

    def largest(self, group: int) -> Tensor:
        """The largest code of each input of one output, in the order they are packed: float32 (2 · pairs,)."""
        here = self.codes_[:, group * self.channels : (group + 1) * self.channels]
        by_channel = here.amax([d for d in range(here.dim()) if d != 1])
        every = by_channel.repeat(len(self.offsets))
        return nn.functional.pad(every, (0, every.numel() % 2))

    def codes(self, group: int, index: int) -> Tensor:
        """The codes of one input of one output at every position, flat float32; 0 behind the last input."""
        place, channel = divmod(index, self.channels)
        if place >= len(self.offsets):
            return torch.zeros(self.positions)
        return self._at(self.offsets[place], group * self.channels + channel)

    def _at(self, offset: tuple[slice, ...], channel: int) -> Tensor:
        place: tuple[slice | int, ...] = (slice(None), channel, *offset)
        return self.codes_[place].flatten()


__all__ = ["PairSumWatch", "PairSums", "fits", "pair_sums"]
