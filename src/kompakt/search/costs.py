"""What each layer costs in each treatment: measured on the target where it tells times, else by multiply-adds.

All-float, all-int8, … files are written and profiled once; the time of every operator goes to the layer it belongs to
(an operator without weights to the last layer before it). The times of each file are scaled so that they add up to the
file's own measured latency. Where the runtime tells no times, the latency of each file is shared out by multiply-adds.
Between a layer on codes and one in float a tensor is converted: that costs by element, at first by the measured time of
the conversions at hand, later by what mixed files turned out to take.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from kompakt.errors import KompaktError
from kompakt.measuring.data import Batch
from kompakt.measuring.latency import measure_latency
from kompakt.network.layers import layers
from kompakt.network.network import Network
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerGroup
from kompakt.schemes import FLOAT, Scheme, Treatment
from kompakt.search.candidates import Candidate
from kompakt.search.slowdown import plain_name
from kompakt.search.workbench import Build, Workbench
from kompakt.targets.target import Spent

CONVERSION_MS = 5e-7
"""Milliseconds to convert one element, where nothing was measured: half a nanosecond."""
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
TRUST = 1.0
"""How much the first guess of what conversions cost counts against what mixed files took."""
LIMITS = (0.1, 20.0)
SCALE_BYTES = 5.0
"""A float scale and a zero point."""

Pair = tuple[str, str]


@dataclass(kw_only=True)
class Costs:
    """Costs that add up over a network.

    Attributes:
        unit: ``ms`` or ``bytes``.
        layers: By layer and choice, ``float`` among them.
        boundaries: For a layer and one that reads it, the cost of converting between them, either way.
        constant: What no choice changes.
        conversion: By how much conversions cost more than first guessed.
        measured: Whether operators were timed one by one.
        seen: For files measured: what their layers should take, their conversions, and what they took.
    """

    unit: str
    layers: dict[Pair, float]
    boundaries: dict[Pair, float] = field(default_factory=dict)
    constant: float = 0.0
    conversion: float = 1.0
    measured: bool = True
    seen: list[tuple[float, float, float]] = field(default_factory=list)

    def of(self, plan: Mapping[str, str], on_codes: frozenset[str]) -> float:
        """The cost of a plan: a choice for each layer.

        Args:
            plan: Choices by layer.
            on_codes: The choices whose layers read and write codes.
        """
        return self._own(plan) + self.conversion * self._converting(plan, on_codes)

    def observe(self, plan: Mapping[str, str], on_codes: frozenset[str], found: float) -> None:
        """Learn from what a plan's file took how much conversions cost."""
        self.seen.append((self._own(plan), self._converting(plan, on_codes), found))
        size = sum(b * b for _, b, _ in self.seen)
        if size <= 0:
            return
        prior = TRUST * size / len(self.seen)
        right = sum(b * (found - own) for own, b, found in self.seen) + prior
        self.conversion = min(max(right / (size + prior), LIMITS[0]), LIMITS[1])

    def _own(self, plan: Mapping[str, str]) -> float:
        return self.constant + sum(self.layers[pair] for pair in plan.items())

    def _converting(self, plan: Mapping[str, str], on_codes: frozenset[str]) -> float:
        return sum(
            cost
            for (a, b), cost in self.boundaries.items()
            if (plan.get(a) in on_codes) != (plan.get(b) in on_codes)
        )


def latency_costs(
    bench: Workbench,
    example: Batch,
    names: Mapping[str, Collection[str]],
    choices: Mapping[str, Treatment],
    base: Build,
    base_choice: str,
) -> Costs:
    """Milliseconds of every layer in every choice.

    Args:
        bench: Writes files.
        example: What to run them on.
        names: The choices of each layer.
        choices: Treatments by name.
        base: A file whose layers are all in ``base_choice``.
        base_choice: One of the choices.
    """
    builds = {"float": bench.float_build(), base_choice: base}
    for name, treatment in choices.items():
        if name not in builds:
            scheme = Scheme(name=name, default=treatment)
            calibrator = base.candidate.calibrator or "mse"
            candidate = Candidate(name=name, level=2, scheme=scheme, calibrator=calibrator)
            try:
                builds[name] = bench.build(candidate)
            except KompaktError:
                continue  # its layers are given no cost, and so not chosen
    found, conversion = {}, CONVERSION_MS
    owners = owners_of(base.placed)
    for name, build in builds.items():
        total = _total_ms(bench, build, example)
        rows = _profiled(bench, build, example)
        conversion = _conversion_rate(rows, example) or conversion
        found[name] = _spread(rows, owners, total) if rows else _by_macs(bench.prepared, total)
    table = {
        (layer, name): found[name].get(layer, 0.0)
        for layer, given in names.items()
        for name in ("float", *given)
        if name in found
    }
    sizes = boundary_elements(bench.prepared, set(names), example)
    return Costs(
        unit="ms",
        layers=table,
        boundaries={pair: count * conversion for pair, count in sizes.items()},
        constant=_rest(found["float"], names),
        measured=bench.target.profile is not None,
    )


def size_costs(
    network: Network, names: Mapping[str, Collection[str]], choices: Mapping[str, Treatment]
) -> Costs:
    """Bytes of every layer's weights in every choice."""
    table: dict[Pair, float] = {}
    for layer, given in names.items():
        weight = network.get_submodule(layer).weight
        assert isinstance(weight, Tensor)
        for name in ("float", *given):
            treatment = FLOAT if name == "float" else choices[name]
            table[layer, name] = _bytes(weight, treatment)
    return Costs(unit="bytes", layers=table, measured=False)


def _bytes(weight: Tensor, treatment: Treatment) -> float:
    if treatment.mode == "float":
        return 4.0 * weight.numel()
    bits = get_format(str(treatment.weight)).bits
    scales = weight.shape[0]
    if isinstance(treatment.granularity, PerGroup):
        if weight.dim() == 2:
            scales = math.prod(treatment.granularity.parameter_shape(tuple(weight.shape)))
        else:
            bits = max(bits, 8)  # kernels of convolutions are not grouped
    return weight.numel() * bits / 8 + SCALE_BYTES * scales


def _total_ms(bench: Workbench, build: Build, example: Batch) -> float:
    inputs = example.arrays()
    timed = measure_latency(lambda: build.runnable(inputs), threads=bench.threads)
    return timed.median_ms


def _profiled(bench: Workbench, build: Build, example: Batch) -> list[Spent]:
    if bench.target.profile is None:
        return []
    return bench.target.profile(build.path, build.written.options, example.arrays(), bench.threads)


def _conversion_rate(rows: Sequence[Spent], example: Batch) -> float | None:
    """Milliseconds for each element of the inputs, where they alone are quantized."""
    spent = sum(row.milliseconds for row in rows if row.operator == CONVERSIONS[0])
    count = sum(t.numel() for t in example.inputs.values() if t.is_floating_point())
    return spent / count if spent and count else None


def _spread(rows: Sequence[Spent], owners: Mapping[str, str], total: float) -> dict[str, float]:
    """Milliseconds by layer, scaled so that all add up to the whole; ``""`` has what belongs to no layer."""
    found: dict[str, float] = {}
    for row in rows:
        layer = owners.get(plain_name(row.name), "")
        found[layer] = found.get(layer, 0.0) + row.milliseconds
    scale = total / max(sum(found.values()), 1e-12)
    return {layer: spent * scale for layer, spent in found.items()}


def _by_macs(network: Network, total: float) -> dict[str, float]:
    rows = layers(network)
    macs = sum(row.macs or 0 for row in rows)
    return {row.name: total * (row.macs or 0) / max(macs, 1) for row in rows}


def _rest(found: Mapping[str, float], names: Mapping[str, Collection[str]]) -> float:
    return sum(spent for layer, spent in found.items() if layer not in names)


def owners_of(placed: Network) -> dict[str, str]:
    """The layer that every name in a file belongs to: its own, and those of all operators behind it."""
    owners: dict[str, str] = {}
    of_node: dict[fx.Node, str] = {}
    for node in placed.graph.nodes:
        layer = _weighted(placed, node)
        if layer is None:
            before = [of_node[n] for n in node.all_input_nodes if n in of_node]
            layer = before[-1] if before else None
        if layer is not None:
            of_node[node] = layer
            owners.setdefault(str(node.meta.get("site", node.name)), layer)
            owners.setdefault(node.name, layer)
    return owners


def boundary_elements(network: Network, names: set[str], example: Batch) -> dict[Pair, int]:
    """For each layer and the layers before it, how many elements the tensor between them has."""
    size = max(1, example.size)
    before: dict[fx.Node, set[str]] = {}
    found: dict[Pair, int] = {}
    for node in network.graph.nodes:
        sources = set().union(*(before.get(n, set()) for n in node.all_input_nodes))
        layer = str(node.target) if node.op == "call_module" and str(node.target) in names else None
        if layer is None:
            before[node] = sources
            continue
        count = _elements(node.args[0], size)
        for source in sources:
            if source != layer:
                found[source, layer] = count
        before[node] = {layer}
    return found


def _elements(node: object, size: int) -> int:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor):
        return 0
    count = 1
    for position, length in enumerate(value.shape):
        # Other lengths that are not known count as one: they are the same for all layers.
        known = length if isinstance(length, int) else None
        count *= known if known is not None else (size if position == 0 else 1)
    return count


def _weighted(network: Network, node: fx.Node) -> str | None:
    if node.op != "call_module" or "quantizes" in node.meta:
        return None
    module = network.get_submodule(str(node.target))
    has = next(nn.Module.parameters(module), None) is not None
    return str(node.target) if has else None


__all__ = ["Costs", "boundary_elements", "latency_costs", "owners_of", "size_costs"]
