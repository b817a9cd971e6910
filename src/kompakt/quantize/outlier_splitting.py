"""Outlier splitting: the few channels behind an activation that no range serves are spread over several channels.

What it does
    Behind a GELU a few channels can be several times larger than all others, and one scale for the tensor then
    leaves the others few codes. Such a channel is repeated: the activation is clamped at a limit, and copies of the
    channel, whose bias is smaller by once, twice, … the limit, carry what lies above it. The layer that reads the
    tensor adds them up again, for its weights of the copies are the same. The range shrinks to the limit.
When to use
    Static schemes on transformers, together with smoothing, which cannot be folded through a GELU.
Cost
    One float pass over the samples. No operator is added: the quantizer behind the activation clamps by itself. The
    copies take the places of channels that hardly vary, whose mean goes into the bias of the layer behind, so that no
    shape changes; where every channel matters, as many rows and columns are added, usually under one percent.
Formula
    f(u) ≈ Σⱼ min(f(u − j·T), T), j = 0 … n, for functions that are 0 far below and u far above zero. T and the
    channels are those with the smallest ‖W·x − Ŵ·x̂‖ of the layers behind, on samples their ranges were not found on.
Limits
    Only between two linear layers with nothing but functions of one number between them. Exact for ReLU; near a
    multiple of T a GELU's copies are off by at most 0.17, and of a replaced channel only the mean is kept. Values above
    (n + 1)·T are clipped, as any range clips.
Reference
    Zhao et al., Improving Neural Network Quantization without Retraining using Outlier Channel Splitting,
    arXiv:1901.09504 (there channels are halved, which needs a function that halves with its input).
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.progress import track
from kompakt.quantize.in_order import in_order
from kompakt.quantize.linear_groups import (
    Group,
    linear_groups,
    parameter_owners,
    rounded_input,
    rounded_weight,
    rows_of,
    weights_of,
)
from kompakt.quantize.method import Batches
from kompakt.quantize.pointwise import Pointwise, apply_pointwise, join_bias_, pointwise_before
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme

MOST_COPIES = 1 / 32
"""Copies at most, as a share of the channels."""
MULTIPLE = 16
"""Channels are added in such steps: kernels compute so many at a time."""
REPLACED_WORTH = 1.3
"""Copies that take the places of other channels may leave so many times the squared error that added ones leave."""
HEADROOM = 1.1
"""The copies reach this many times as far as the largest value seen."""
WORTH = 0.7
"""A split must leave at most this share of the squared error."""
STRAIGHT = 0.01
"""How far from u (or 0) the function may be at the limit, as a share of the limit."""
OUTLIERS = (1, 2, 3, 4, 6, 8, 12, 16)
STRETCHES = (1.0, 1.15, 1.3, 1.6)


@dataclass(frozen=True, kw_only=True)
class Split:
    """How one tensor is split.

    Attributes:
        limit: T, the largest value left.
        channels: The channel of each copy.
        shifts: How much is taken off each copy's input, multiples of the limit.
        places: The channels whose places the copies take; None where they are added behind the last.
        means: What those channels are on average.
    """

    limit: float
    channels: Tensor
    shifts: Tensor
    places: Tensor | None = None
    means: Tensor | None = None

    def rows(self, weight: Tensor) -> Tensor:
        """A weight or bias (O, …) with the rows of the copies."""
        return self._with(weight, weight[self.channels])

    def columns(self, weight: Tensor) -> Tensor:
        """A weight (…, I) with the columns of the copies."""
        return self._with(weight.t(), weight.t()[self.channels]).t().contiguous()

    def shifted(self, bias: Tensor) -> Tensor:
        """A bias (O,) with those of the copies."""
        return self._with(bias, bias[self.channels] - self.shifts)

    def carried(self, x: Tensor, copies: Tensor) -> Tensor:
        """Activations (N, I), with those of the copies, clamped."""
        return self._with(x.t(), copies.t()).t().clamp(max=self.limit)

    def moved(self, weight: Tensor) -> Tensor:
        """What a layer with a weight (O, I) no longer gets on average from the channels replaced: (O,)."""
        if self.places is None or self.means is None:
            return torch.zeros(len(weight))
        return weight[:, self.places] @ self.means

    def _with(self, value: Tensor, more: Tensor) -> Tensor:
        if self.places is None:
            return torch.cat([value, more])
        changed = value.clone()
        changed[self.places] = more
        return changed


def split_outliers(
    network: Network, scheme: Scheme, rules: Rules, batches: Batches
) -> tuple[Network, int]:
    """Split the channels that stretch the range of a linear layer's input.

    Args:
        network: An inference-form network; it is not changed.
        scheme: Says which layers round their input.
        rules: What the runtime can execute.
        batches: Calibration samples.

    Returns:
        A copy, and how many tensors were split.
    """
    split, changed = copy.deepcopy(network), 0
    groups = linear_groups(network, scheme, rules)
    twins = {node.name: node for node in split.graph.nodes}
    for node, values in track(
        in_order(network, batches), "splitting outliers", total=len(network.graph.nodes)
    ):
        group = groups.get(node)
        function = pointwise_before(network, node) if group is not None and group.alone else None
        if not batches or group is None or function is None or not _can_grow(network, function):
            continue
        chosen = _choose(network, group, function, values, rules)
        if chosen is not None:
            _split_(split, group, function, chosen, twins)
            changed += 1
    split.graph.lint()
    split.recompile()
    return split, changed


def _can_grow(network: Network, function: Pointwise) -> bool:
    """Whether the layer before the function is called once and owns its weights."""
    called = Counter(str(n.target) for n in network.graph.nodes if n.op == "call_module")
    layer = network.get_submodule(str(function.layer.target))
    owners = parameter_owners(network)
    return called[str(function.layer.target)] == owners[id(layer.weight)] == 1


def _choose(
    network: Network, group: Group, function: Pointwise, values: list[Tensor], rules: Rules
) -> Split | None:
    """The split with the smallest error on samples its ranges were not found on; None where none is worth it."""
    found, judged = rows_of(values)
    largest = found.amax(0)
    weights = weights_of(network, group)
    exact = [judged @ weight.t() for weight in weights]
    rounded = [rounded_weight(weight, group.treatment) for weight in weights]

    def error(split: Split | None) -> float:
        if split is None:
            x = rounded_input(judged, found.amin(), largest.amax(), group, rules)
            return sum(
                float((x @ w.t() - y).square().sum()) for w, y in zip(rounded, exact, strict=True)
            )
        copies = apply_pointwise(network, function, judged[:, split.channels] - split.shifts)
        x, high = split.carried(judged, copies), torch.tensor(split.limit)
        x = rounded_input(x, found.amin(), high, group, rules)
        return sum(
            float((x @ split.columns(r).t() + split.moved(w) - y).square().sum())
            for r, w, y in zip(rounded, weights, exact, strict=True)
        )

    ordered = largest.sort(descending=True).values
    most = torch.maximum(largest, judged.amax(0))
    splits = [
        split
        for count in (count for count in OUTLIERS if count < len(ordered))
        for stretch in STRETCHES
        if (split := _split_at(network, function, float(ordered[count]) * stretch, most))
    ]
    if not splits:
        return None
    added = min((error(split), place) for place, split in enumerate(splits))
    replacing = [_replacing(split, found, weights) for split in splits]
    replaced = min((error(split), place) for place, split in enumerate(replacing))
    enough = WORTH * error(None)
    if replaced[0] <= min(REPLACED_WORTH * added[0], enough):
        return replacing[replaced[1]]
    return splits[added[1]] if added[0] <= enough else None


def _replacing(split: Split, x: Tensor, weights: list[Tensor]) -> Split:
    """The same split with its copies in the places of the channels that matter least."""
    column = torch.stack([weight.square().sum(0) for weight in weights]).sum(0)
    matters = x.var(0) * column
    matters[split.channels] = math.inf
    places = matters.argsort(stable=True)[: len(split.channels)]
    return replace(split, places=places, means=x[:, places].mean(0))


def _split_at(network: Network, function: Pointwise, limit: float, most: Tensor) -> Split | None:
    """The split that leaves no value above ``limit``; None where that takes too many copies or the function bends."""
    if limit <= 0 or not bool((most > limit).any()):
        return None
    inputs = torch.tensor([limit, 2 * float(most.amax()), -limit])
    ends, straight = apply_pointwise(network, function, inputs), inputs.clamp(min=0.0)
    if float((ends - straight).abs().amax()) > STRAIGHT * limit:
        return None
    channels = torch.nonzero(most > limit).flatten()
    counts = [math.ceil(HEADROOM * float(most[c]) / limit) - 1 for c in channels]
    counts[int(most[channels].argmax())] += -sum(counts) % MULTIPLE
    if sum(counts) > max(MULTIPLE, MOST_COPIES * len(most)):
        return None
    return Split(
        limit=limit,
        channels=channels.repeat_interleave(torch.tensor(counts)),
        shifts=limit * torch.cat([torch.arange(1, n + 1) for n in counts]).float(),
    )


def _split_(
    network: Network, group: Group, function: Pointwise, split: Split, twins: dict[str, Node]
) -> None:
    """Put the copies into the layer before the function and those behind it, and clamp between them, in place."""
    own = Pointwise(
        layer=twins[function.layer.name],
        bias=None if function.bias is None else twins[function.bias.name],
        nodes=tuple(twins[node.name] for node in function.nodes),
    )
    first = join_bias_(network, own)
    layer = network.get_submodule(str(first.target))
    assert isinstance(layer, nn.Linear)
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
    _set_(layer, "bias", split.shifted(bias))
    _set_(layer, "weight", split.rows(layer.weight.detach()))
    grown = len(layer.weight) - layer.out_features
    layer.out_features += grown
    if grown:
        for node in (first, *own.nodes):
            _grow_(node, grown)
    end = own.nodes[-1]
    with network.graph.inserting_after(end):
        clamped = network.graph.call_function(
            torch.ops.aten.clamp.default, (end, None, split.limit)
        )
    clamped.meta.update(val=end.meta.get("val"), site=f"{end.meta.get('site', end.name)}.clamped")
    for call in group.calls:
        twins[call.name].replace_input_with(end, clamped)
        reader = network.get_submodule(str(call.target))
        assert isinstance(reader, nn.Linear)
        before = reader.weight.detach()
        if split.places is not None:
            kept = torch.zeros(reader.out_features) if reader.bias is None else reader.bias.detach()
            _set_(reader, "bias", kept + split.moved(before))
        _set_(reader, "weight", split.columns(before))
        reader.in_features += grown


def _set_(layer: nn.Linear, name: str, value: Tensor) -> None:
    setattr(layer, name, nn.Parameter(value, requires_grad=layer.weight.requires_grad))


def _grow_(node: Node, count: int) -> None:
    """Note that the last axis of a node's value is longer, and that the file it came from has no such node."""
    node.meta.pop("onnx", None)
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        node.meta["val"] = value.new_empty((*value.shape[:-1], value.shape[-1] + count))


__all__ = ["Split", "split_outliers"]
