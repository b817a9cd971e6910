"""The error every site of a placed network adds, on data, split by where it comes from.

The float network, the simulated network and the integer referee run side by side, node by node; only values that are
still needed are kept. At a layer the same input goes through exact and through rounded weights; at an edge the same
tensor is clipped to the range and then rounded, and the referee rounds as the target's kernel does. What came in wrong
already is counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.measuring.channel_facts import ChannelFacts
from kompakt.network.network import Network
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerChannel, PerGroup
from kompakt.progress import track
from kompakt.quantize.freeze import frozen_copy
from kompakt.quantize.integer import IntegerInterpreter
from kompakt.quantize.layers import Treated
from kompakt.quantize.method import Batches
from kompakt.quantize.pending import Codes, Sums
from kompakt.quantize.place import plan_of, quantizer_of
from kompakt.quantize.plan import Site
from kompakt.quantize.quantizer import Quantizer, stage
from kompakt.quantize.rules import Rules
from kompakt.quantize.saturation import PairSumWatch

PARTS = ("clipping", "rounding", "saturation", "formula", "propagated")


@dataclass(kw_only=True)
class SiteError:
    """What one site adds to the error. Energies are sums of squares over all values of the data.

    Attributes:
        site: The site.
        signal: Energy of the float values.
        clipping: Of what lies outside the range (of a layer: outside its weights' grid).
        rounding: Of rounding inside the range (of a layer: what rounded weights and biases change).
        saturation: Of sums that 16 bits do not hold.
        formula: Of the target's rounding, as the referee computes it, against the simulation's.
        propagated: Of what was wrong before.
        total: Of the difference to the float values behind the site.
        alone: Relative error of the network's outputs when nothing but this site is treated.
        facts: What the float values look like; activations only.
    """

    site: Site
    signal: float = 0.0
    clipping: float = 0.0
    rounding: float = 0.0
    saturation: float = 0.0
    formula: float = 0.0
    propagated: float = 0.0
    total: float = 0.0
    alone: float | None = None
    facts: ChannelFacts | None = None

    @property
    def own(self) -> float:
        """Energy of what the site adds itself."""
        return self.clipping + self.rounding + self.saturation + self.formula

    def relative(self, energy: float) -> float:
        """An energy as the relative size of an error: ‖error‖ / ‖float values‖."""
        return math.sqrt(energy / self.signal) if self.signal > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data: relative errors (root mean square over that of the float values)."""
        parts = {name: self.relative(getattr(self, name)) for name in PARTS}
        row = {"site": self.site.name, "role": self.site.role, "kind": self.site.kind}
        return row | parts | {"total": self.relative(self.total), "alone": self.alone}


@dataclass(kw_only=True)
class ErrorSplit:
    """The error of all sites.

    Attributes:
        sites: One entry for every treated site, in network order.
        output: Relative error of the network's outputs.
        samples: Rows of data it was measured on.
        nonfinite: Whether a NaN or an infinity turned up in the float outputs.
    """

    sites: list[SiteError]
    output: float = 0.0
    samples: int = 0
    nonfinite: bool = False


def split_errors(
    placed: Network,
    reference: Network,
    batches: Batches,
    *,
    rules: Rules | None = None,
    saturates: bool = False,
) -> ErrorSplit:
    """Run the float and the placed network side by side and split the error of every site.

    Args:
        placed: A placed network whose quantizers have ranges; frozen or not, it stays as it is.
        reference: The float network it was placed from.
        batches: Data.
        rules: The rules of its runtime.
        saturates: Whether the processor clips pair sums to 16 bits; then so does the simulation.

    Raises:
        NumericsError: K301 when a weight is not finite.
    """
    frozen = frozen_copy(placed)
    plan = plan_of(frozen)
    errors = {(str(s.role), s.name): SiteError(site=s) for s in plan.quantized()}
    found = ErrorSplit(sites=list(errors.values()))
    watch = PairSumWatch(frozen, rules) if saturates and rules is not None else None
    gone = energy = 0.0
    # What was switched off stays so: that is how leaving it in float is tried.
    with torch.no_grad():
        for inputs in track(batches, "splitting errors"):
            lanes = _Lanes(frozen, reference, list(inputs), errors, watch, bool(plan.taps))
            exact, rounded = lanes.run()
            found.samples += int(inputs[0].shape[0]) if inputs and inputs[0].dim() else 1
            for ours, theirs in zip(rounded, exact, strict=True):
                found.nonfinite |= not bool(theirs.double().isfinite().all())
                gone += _energy(ours.double() - theirs.double())
                energy += _energy(theirs)
    found.output = math.sqrt(gone / energy) if energy > 0 else math.nan
    return found


@dataclass
class _Lanes:
    """One batch on its way through three graphs; values are dropped behind their last reader."""

    placed: Network
    reference: Network
    inputs: list[Tensor]
    errors: dict[tuple[str, str], SiteError]
    watch: PairSumWatch | None
    with_integers: bool
    done: set[str] = field(default_factory=set)
    lost: Tensor | None = None

    def run(self) -> tuple[list[Tensor], list[Tensor]]:
        """The outputs, exact and rounded."""
        self.exact, self.rounded = fx.Interpreter(self.reference), fx.Interpreter(self.placed)
        self.integer = IntegerInterpreter(self.placed, self._compare, self._look)
        for lane in (self.exact, self.rounded, self.integer):
            lane.args_iter = iter(self.inputs)
        twins = {node.name: node for node in self.reference.graph.nodes}
        uses = {n: len(n.users) for g in (self.placed, self.reference) for n in g.graph.nodes}
        outputs: list[list[Tensor]] = []
        for node in self.placed.graph.nodes:
            twin = twins.get(node.name)
            if node.op == "output":
                assert twin is not None
                outputs = [_leaves(twin, self.exact.env), _leaves(node, self.rounded.env)]
                break
            if twin is not None:
                self.exact.env[twin] = self.exact.run_node(twin)
            self.rounded.env[node] = self.rounded.run_node(node)
            self._measure(node, twin)
            if self.with_integers:
                self.integer.env[node] = self.integer.run_node(node)
            self._saturate(node)
            for passed, lanes in (
                (node, [self.rounded.env, self.integer.env]),
                (twin, [self.exact.env]),
            ):
                _release(passed, uses, lanes)
        return outputs[0], outputs[1]

    def _measure(self, node: Node, twin: Node | None) -> None:
        if node.op != "call_module":
            return
        module = self.placed.get_submodule(str(node.target))
        if isinstance(module, Quantizer):
            source, site = node.args[0], str(node.meta["site"])
            if isinstance(source, Node) and site not in self.done:
                self.done.add(site)
                exact = next(n for n in self.exact.env if n.name == source.name)
                self._edge(site, node, module, self.exact.env[exact], self.rounded.env[source])
        elif isinstance(module, Treated) and twin is not None:
            self._layer(module, node, twin)

    def _edge(self, site: str, node: Node, module: Quantizer, exact: Tensor, came: Tensor) -> None:
        error = self.errors.get(("activation", site))
        if error is None:
            return
        low, high = module.represented_range()
        clipped, result = came.clamp(low, high), self.rounded.env[node]
        error.signal += _energy(exact)
        error.clipping += _energy(clipped - came)
        error.rounding += _energy(result - clipped)
        error.propagated += _energy(came - exact)
        error.total += _energy(result - exact)
        error.facts = error.facts or ChannelFacts.for_node(self.placed, node)
        error.facts.add(exact, low, high)

    def _layer(self, layer: Treated, node: Node, twin: Node) -> None:
        error = self.errors.get(("weight", str(node.target)))
        if error is None:
            return
        args, kwargs = self.rounded.fetch_args_kwargs_from_env(node)
        original = self.reference.get_submodule(str(twin.target))
        exact, result = self.exact.env[twin], self.rounded.env[node]
        unrounded = original(*args, **kwargs)
        clipped = clipped_weight(layer)
        if clipped is not None:
            with_clipped = torch.func.functional_call(
                original, {"weight": clipped}, tuple(args), kwargs
            )
            error.clipping += _energy(with_clipped - unrounded)
            error.rounding += _energy(result - with_clipped)
        else:
            error.rounding += _energy(result - unrounded)
        error.signal += _energy(exact)
        error.propagated += _energy(unrounded - exact)
        error.total += _energy(result - exact)

    def _look(self, node: Node, codes: Codes) -> None:
        layer = self._module(node)
        treated = isinstance(layer, Treated) and layer.stage != "off"
        self.lost = self.watch.lost(node, codes) if self.watch is not None and treated else None

    def _saturate(self, node: Node) -> None:
        """Let the simulation lose what 16-bit sums lose."""
        lost, self.lost = self.lost, None
        sums = self.integer.env.get(node)
        if lost is None or not isinstance(sums, Sums):
            return
        value = self.rounded.env[node]
        channel = value.dim() - 1 if isinstance(self._module(node), nn.Linear) else 1
        others = [size for d, size in enumerate(value.shape) if d != channel]
        gone = lost.reshape(-1, *others).movedim(0, channel) * sums.factors.scale
        self.rounded.env[node] = value + gone
        sums.sums = sums.sums + lost.reshape(-1, *others).movedim(0, channel).to(sums.sums.dtype)
        error = self.errors[("weight", str(node.target))]
        error.saturation += _energy(gone)

    def _module(self, node: Node) -> nn.Module:
        return self.placed.get_submodule(str(node.target))

    def _compare(self, site: str, codes: Tensor) -> Tensor | None:
        """The referee's codes against the simulation's, which it goes on with."""
        error = self.errors.get(("activation", site))
        calls = (
            n for n in self.rounded.env if n.meta.get("site") == site and "quantizes" in n.meta
        )
        call = next(calls, None)
        if error is None or call is None:
            return None
        quantizer = quantizer_of(self.placed, call)
        scale, _ = quantizer.parameters_()
        simulated = quantizer.codes(self.rounded.env[call]).to(torch.int32)
        error.formula += _energy((codes - simulated).double() * float(scale))
        return simulated


def measure_alone(
    split: ErrorSplit,
    placed: Network,
    reference: Network,
    batches: Batches,
    *,
    most: int = 64,
) -> None:
    """Fill in :attr:`SiteError.alone` for the sites that add most: what each costs the outputs by itself.

    The float network runs once; at each of these sites a copy of the values at hand goes on with the site's own error
    and is compared at the outputs.

    Args:
        split: What :func:`split_errors` found.
        placed: The placed network.
        reference: The float network.
        batches: A few samples of the data.
        most: So many sites.
    """
    frozen = frozen_copy(placed)
    loud = sorted(split.sites, key=lambda e: -e.relative(e.own))[:most]
    wanted: dict[str, list[tuple[SiteError, nn.Module]]] = {}
    for error in loud:
        name = error.site.quantizer if error.site.role == "activation" else error.site.name
        module = frozen.get_submodule(str(name))
        wanted.setdefault(error.site.node, []).append((error, module))
    gone: dict[int, float] = {id(error): 0.0 for error in loud}
    energy = 0.0
    with torch.no_grad(), stage(frozen, "simulate"):
        for inputs in track(batches, "measuring sites alone"):
            energy += _alone(reference, list(inputs), wanted, gone)
    for error in loud:
        error.alone = math.sqrt(gone[id(error)] / energy) if energy > 0 else None


def _alone(
    reference: Network,
    inputs: list[Tensor],
    wanted: dict[str, list[tuple[SiteError, nn.Module]]],
    gone: dict[int, float],
) -> float:
    exact = [t.double() for t in reference.call_flat(inputs)]
    lane = fx.Interpreter(reference)
    lane.args_iter = iter(inputs)
    nodes = list(reference.graph.nodes)
    uses = {n: len(n.users) for n in nodes}
    for place, node in enumerate(nodes):
        if node.op == "output":
            break
        lane.env[node] = lane.run_node(node)
        for error, module in wanted.get(node.name, ()):
            if error.site.role == "activation":
                value = module(lane.env[node])
            else:
                args, kwargs = lane.fetch_args_kwargs_from_env(node)
                value = module(*args, **kwargs)
            outputs = _continued(reference, {**lane.env, node: value}, nodes[place:], uses)
            gone[id(error)] += sum(
                _energy(o.double() - e) for o, e in zip(outputs, exact, strict=True)
            )
        _release(node, uses, [lane.env])
    return sum(map(_energy, exact))


def _continued(
    reference: Network, env: dict[Node, Any], nodes: Sequence[Node], uses: dict[Node, int]
) -> list[Tensor]:
    """The outputs of the float network from here on; the first node is given."""
    lane, left = fx.Interpreter(reference), dict(uses)
    lane.env = env
    _release(nodes[0], left, [lane.env])
    for node in nodes[1:]:
        if node.op == "output":
            return _leaves(node, lane.env)
        # Every input that is read further on was read when the float network ran.
        if node.op == "placeholder":
            continue
        lane.env[node] = lane.run_node(node)
        _release(node, left, [lane.env])
    return []


def clipped_weight(layer: Treated) -> Tensor | None:
    """The weight cut to what its grid holds, where that cuts anything."""
    fmt = get_format(str(layer.treatment.weight))
    scale, zero_point = layer.grid_scale, layer.grid_zero_point
    granularity = layer.treatment.granularity
    if fmt.kind == "float" or scale is None or zero_point is None:
        return None
    if isinstance(granularity, PerGroup):
        return None
    shape = [1] * layer.weight.dim()
    if isinstance(granularity, PerChannel) and scale.dim():
        shape[granularity.axis] = -1
    zero = zero_point.double()
    low = ((fmt.qmin - zero) * scale.double()).float().reshape(shape)
    high = ((fmt.qmax - zero) * scale.double()).float().reshape(shape)
    weight = layer.weight.detach()
    clipped = weight.clamp(low, high)
    return None if torch.equal(clipped, weight) else clipped


def _energy(x: Any) -> float:
    return float(x.double().square().sum()) if isinstance(x, Tensor) else 0.0


def _leaves(node: Node, env: dict[Node, Any]) -> list[Tensor]:
    given = fx.node.map_arg(node.args[0], lambda n: env[n])
    return [t for t in torch.utils._pytree.tree_leaves(given) if isinstance(t, Tensor)]


def _release(node: Node | None, uses: dict[Node, int], lanes: Sequence[dict[Node, Any]]) -> None:
    for source in node.all_input_nodes if node is not None else ():
        uses[source] -= 1
        if uses[source] == 0:
            for env in lanes:
                env.pop(source, None)


__all__ = ["PARTS", "ErrorSplit", "SiteError", "measure_alone", "split_errors"]
