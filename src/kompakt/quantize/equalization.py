"""Equalization: channels are scaled so that one step of the grid serves all of them alike.

What it does
    An output channel of a layer is multiplied by a factor and the weights that read it are divided by it. ReLUs, pools,
    additions and concatenations let positive factors pass, so the network computes the same; what changes is how much
    of the codes' range each channel uses. Channels that meet in a residual addition share their factor. The factors of
    the whole network are found together, as those with which the rounding of weights and activations is predicted to
    move the output least.
When to use
    Static and weight-only schemes on convolutional networks, most with depthwise convolutions or one scale for a whole
    weight, whose channels differ much. Costs no speed: only weights and biases change.
Cost
    A pass over a few dozen samples, a backward pass over some of them, and 150 steps on the largest weights.
Formula
    minimise Σ_t Σ_c S_tc (R_t / s_c)² / 12 + Σ_l Σ_o G_lo D_lo² / 12 · Σ_i Var[x_i] s_i² over the factors s, where R_t
    is the step of activation t, (max s·x − min s·x) / levels; D_lo the step of the weights of output o,
    max(abs(w_oi) / s_i) / levels; S and G the mean squared derivative of the network's outputs by the activation and by
    the layer's output.
    With one scale for a whole weight and no activations this is cross-layer equalization, s = √(r₁ r₂) / r₂.
Limits
    A channel that is clipped (ReLU6) is scaled only if calibration never saw it reach the clip, and only so far that it
    still does not, by a margin of 1 / √samples: exact for what calibration saw, clipped beyond, as every calibrated
    range does. Layers called more than once or with tied weights, normalisations and other activations keep their
    channels as they are. Where the network has parts without derivatives, S and G are those of the reading layer's own
    output.
Reference
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721, section 4.1
    (there pairs of layers, by the ranges of their weights).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.channel_groups import ChannelGroups, ScalableLayer, channel_groups
from kompakt.network.folding import NORMALIZED
from kompakt.network.match import select
from kompakt.network.network import Network
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerTensor
from kompakt.progress import track
from kompakt.quantize.channel_noise import EdgeNoise, observe_channels
from kompakt.quantize.method import Batches
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme, Treatment

STEPS = 150
RATE = 0.05
WORTHWHILE = 0.99
"""The predicted error must fall below this share of what it was, or nothing is changed."""
LEAST_SIZE = 1e-4
"""Channels that never exceed this share of the largest are not scaled up further."""


def equalize(
    network: Network, scheme: Scheme, rules: Rules, batches: Batches
) -> tuple[Network, int]:
    """A copy of a network with equalized channels.

    Args:
        network: An inference-form network; it is not changed.
        scheme: Says in what the weights and activations will be rounded.
        rules: The runtime's.
        batches: A few dozen samples; without any nothing is changed.

    Returns:
        The copy, and how many of its layers have other weights.
    """
    equalized = copy.deepcopy(network)
    groups = channel_groups(equalized)
    treatments = _treatments(network, scheme)
    if not batches or not groups.count or not any(t.mode != "float" for t in treatments.values()):
        return equalized, 0
    noise = observe_channels(equalized, groups, batches)
    samples = sum(max((len(t) for t in batch if t.dim()), default=1) for batch in batches)
    problem = _Problem(groups, noise, treatments, rules, samples)
    factors = problem.solve()
    if factors is None:
        return equalized, 0
    return equalized, scale_(groups, factors)


def scale_(groups: ChannelGroups, factors: Tensor) -> int:
    """Multiply every channel of a group by its factor, in place.

    Args:
        groups: Of the network whose layers change.
        factors: float64 (count + 1,), positive; number 0 must be 1.

    Returns:
        How many layers changed.
    """
    changed = 0
    with torch.no_grad():
        for entry in groups.layers:
            layer, entering, leaving = (
                entry.layer,
                factors[entry.inputs],
                factors[entry.outputs],
            )
            if bool((entering == 1).all()) and bool((leaving == 1).all()):
                continue
            weight = cast("nn.Parameter", layer.weight)
            rows, columns = _spread(layer, leaving, out=True), _spread(layer, entering, out=False)
            weight.copy_((weight.double() * rows / columns).to(weight.dtype))
            bias = layer._parameters.get("bias")
            if bias is not None:
                bias.copy_((bias.double() * leaving).to(bias.dtype))
            if NORMALIZED in entry.node.meta:
                mean, spread = entry.node.meta[NORMALIZED]
                entry.node.meta[NORMALIZED] = mean * leaving, spread * leaving
            changed += 1
    return changed


def _spread(layer: nn.Module, per_channel: Tensor, *, out: bool) -> Tensor:
    """A value for each channel, shaped to the layer's weight."""
    weight = cast("Tensor", layer.weight)
    parts = int(getattr(layer, "groups", 1))
    transposed = bool(getattr(layer, "transposed", False))
    whole = out != transposed
    # The dimension that holds all channels is the first; the second holds those of one part.
    shape = [1] * weight.dim()
    if whole:
        shape[0] = -1
        return per_channel.reshape(shape)
    shape[1] = -1
    of_part = per_channel.reshape(parts, *shape[1:])
    return of_part.repeat_interleave(weight.shape[0] // parts, 0)


def _treatments(network: Network, scheme: Scheme) -> dict[str, Treatment]:
    """What the scheme does to each layer, by name."""
    names = [str(n.target) for n in network.graph.find_nodes(op="call_module")]
    found = dict.fromkeys(names, scheme.default)
    for override in scheme.overrides:
        found.update(dict.fromkeys(select(network, override.select), override.treatment))
    return found


@dataclass(frozen=True, kw_only=True)
class _Weight:
    """What a layer's rounded weights do to the output.

    Attributes:
        sizes: float64 (O, I / groups): the largest magnitude of each kernel.
        reads: int64 of the same shape: the group each kernel reads.
        leaves: int64 (O, 1).
        variance: Of the inputs, same shape as ``sizes``, times the kernel's size.
        gain: Squared derivative by the layer's output, (O,).
        levels: Of one side of the grid.
        shared: Whether all outputs share one step.
    """

    sizes: Tensor
    reads: Tensor
    leaves: Tensor
    variance: Tensor
    gain: Tensor
    levels: float
    shared: bool

    def error(self, factors: Tensor) -> Tensor:
        """Squared error of the output."""
        read, left = factors[self.reads], factors[self.leaves]
        scaled = self.sizes * left / read
        step = (scaled.amax() if self.shared else scaled.amax(1, keepdim=True)) / self.levels
        rounding = (step / left).square() / 12
        noise: Tensor = (rounding * self.variance * read.square()).sum(1) @ self.gain
        return noise


@dataclass(frozen=True, kw_only=True)
class _Activation:
    """What a rounded tensor does to the output: sensitivity, extremes and group of every channel."""

    gain: Tensor
    low: Tensor
    high: Tensor
    groups: Tensor
    levels: float

    def error(self, factors: Tensor) -> Tensor:
        """Squared error of the output."""
        here = factors[self.groups]
        high, low = (here * self.high).amax().clamp(min=0), (here * self.low).amin().clamp(max=0)
        step = (high - low) / self.levels
        error: Tensor = (self.gain * (step / here).square()).sum() / 12
        return error


class _Problem:
    """The predicted error of the output as a function of the factors, and its least."""

    def __init__(
        self,
        groups: ChannelGroups,
        noise: dict[Node, EdgeNoise],
        treatments: dict[str, Treatment],
        rules: Rules,
        samples: int,
    ) -> None:
        self.count = groups.count
        self.terms: list[_Weight | _Activation] = []
        seen: set[Node] = set()
        for entry in groups.layers:
            treatment = treatments[str(entry.node.target)]
            source = entry.node.args[0]
            assert isinstance(source, Node)
            if treatment.mode == "float" or entry.node not in noise or source not in noise:
                continue
            if get_format(str(treatment.weight)).kind != "float":
                self.terms.append(_weight(entry, noise[source], noise[entry.node], treatment))
            if treatment.mode != "weight_only" and source not in seen and source in groups.edges:
                seen.add(source)
                self.terms.append(
                    _activation(noise[source], groups.edges[source][1], treatment, rules)
                )
        self.most = _limits(groups, noise, 1 + samples**-0.5)

    def error(self, factors: Tensor) -> Tensor:
        """The predicted squared error."""
        return torch.stack([term.error(factors) for term in self.terms]).sum()

    def solve(self) -> Tensor | None:
        """The best factors, float64 (count + 1,); None where they are not worth changing anything for."""
        if not self.terms:
            return None
        logs = torch.zeros(self.count, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([logs], lr=RATE)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        one = torch.ones(1, dtype=torch.float64)
        before = float(self.error(torch.ones(self.count + 1, dtype=torch.float64)))
        least, best = before * WORTHWHILE, None
        with torch.enable_grad():
            for _ in track(range(STEPS), "equalizing channels"):
                factors = torch.cat([one, self._allowed(logs).exp()])
                error = self.error(factors)
                if float(error.detach()) < least:
                    least, best = float(error.detach()), factors.detach().clone()
                optimizer.zero_grad()
                error.log().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                decay.step()
        return best

    def _allowed(self, logs: Tensor) -> Tensor:
        fixed = self.most == 0
        return torch.where(fixed, torch.zeros_like(logs), torch.minimum(logs, self.most))


def _limits(groups: ChannelGroups, noise: dict[Node, EdgeNoise], margin: float) -> Tensor:
    """For each group the logarithm of the largest factor with which nothing that was seen is clipped.

    0 stands for a factor that must be 1: the clip was reached.

    Args:
        groups: Of the network.
        noise: With the extremes.
        margin: How many times larger values are left room for: few samples do not show the largest.
    """
    most = torch.full((groups.count + 1,), float("inf"), dtype=torch.float64)
    for node, (_, numbers, low, high) in groups.clipped.items():
        seen = noise.get(node)
        if seen is None:
            most[numbers] = 0.0
            continue
        room = torch.full_like(seen.high, float("inf"))
        for limit, extreme in ((high, seen.high), (low, seen.low)):
            if limit not in (float("inf"), float("-inf")):
                reached = extreme >= limit if limit > 0 else extreme <= limit
                if limit == 0.0:
                    continue  # a clip at 0 lets every factor pass
                largest = torch.where(extreme == 0, limit * LEAST_SIZE, extreme * margin)
                ratio = limit / largest
                room = torch.minimum(room, torch.where(reached, torch.ones_like(ratio), ratio))
        at_most = room.clamp(min=1.0, max=1 / LEAST_SIZE).log()
        most.scatter_reduce_(0, numbers, at_most, "amin")
    return most[1:]


def _weight(
    entry: ScalableLayer, source: EdgeNoise, result: EdgeNoise, treatment: Treatment
) -> _Weight:
    layer = entry.layer
    weight = cast("Tensor", layer.weight).detach().double().abs()
    if getattr(layer, "transposed", False):
        parts = int(layer.groups)  # type: ignore[arg-type]
        split = weight.reshape(parts, weight.shape[0] // parts, *weight.shape[1:])
        weight = split.transpose(1, 2).flatten(0, 1)
    outputs, per_part = weight.shape[:2]
    parts = int(getattr(layer, "groups", 1))
    kernels = weight.reshape(outputs, per_part, -1)

    def of_kernels(values: Tensor) -> Tensor:
        return values.reshape(parts, per_part).repeat_interleave(outputs // parts, 0)

    return _Weight(
        sizes=kernels.amax(2),
        reads=of_kernels(entry.inputs),
        leaves=entry.outputs.unsqueeze(1),
        variance=of_kernels(source.variance) * kernels.shape[2],
        gain=result.gain,
        levels=float(get_format(str(treatment.weight)).qmax),
        shared=treatment.granularity == PerTensor(),
    )


def _activation(
    seen: EdgeNoise, numbers: Tensor, treatment: Treatment, rules: Rules
) -> _Activation:
    fmt = get_format(rules.activation_format(str(treatment.activation)))
    return _Activation(
        gain=seen.gain,
        low=seen.low,
        high=seen.high,
        groups=numbers,
        levels=float(fmt.qmax - fmt.qmin),
    )


__all__: Sequence[str] = ["equalize", "scale_"]
