"""Which layers cost accuracy in which format, without evaluating one after the other.

Where PyTorch can differentiate the network, one pass with gradients foretells the loss of every layer in every format
at once (:mod:`kompakt.search.signals`). Where a part of it is no operator of PyTorch, the network is run with random
halves of its layers rounded, and the share of each in the error of the outputs is found by least squares
(:mod:`kompakt.search.group_testing`). Either way the cost does not grow with the number of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape
from typing import Any

import torch
from torch.fx import Node

from kompakt.errors import KompaktError, UsageError
from kompakt.measuring.data import Batch
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.numerics.granularity import PerGroup
from kompakt.quantize.decide import Decision, decide
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.quantize.rules import Rules
from kompakt.schemes import FLOAT, Scheme, Treatment
from kompakt.search.candidates import Candidate
from kompakt.search.divergence import Loss, divergence, loss_for
from kompakt.search.group_testing import shares_by_groups
from kompakt.search.ranking import float_outputs
from kompakt.search.signals import DYNAMIC, Floats, Signals, collect_signals, weight_key
from kompakt.search.workbench import Workbench

CHOICES: dict[str, Treatment] = {
    "int8": Treatment(mode="static", weight="int8_narrow", activation="auto8"),
    "int16": Treatment(mode="static", weight="int8_narrow", activation="auto16"),
    "int4": Treatment(mode="static", weight="int4", activation="auto8"),
    "dynamic": Treatment(mode="dynamic", weight="int8_narrow", activation="uint8"),
    "weights int8": Treatment(
        mode="weight_only", weight="int8_narrow", granularity=PerGroup(1, 32)
    ),
    "weights int4": Treatment(mode="weight_only", weight="int4", granularity=PerGroup(1, 32)),
}
"""What may be done to a layer, by name; ``int16`` has 16-bit activations, and ``float`` is always possible."""
SENSITIVITY_SAMPLES = 128
LAYERS = frozenset({"conv", "conv_transpose", "linear", "embedding", "rnn"})
Place = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The loss to expect of every layer in every format.

    Attributes:
        network: The float network.
        rules: What the runtime can execute.
        choices: Treatments by name, without ``float``.
        layers: For each layer that can be treated, its choices, with what they come to there.
        loss: The loss that is foretold, see :mod:`kompakt.search.divergence`.
        samples: How many samples were used.
        passes: What it cost, in forward passes over these; a backward pass counts as two.
        signals: From gradients; None where there were none.
        shares: For each layer and choice the loss it adds, where gradients could not be had.
    """

    network: Network
    rules: Rules
    choices: Mapping[str, Treatment]
    layers: Mapping[str, Mapping[str, Treatment]]
    loss: Loss
    samples: int
    passes: int
    signals: Signals | None = None
    shares: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def of(self, layer: str, choice: str) -> float:
        """The loss to expect when this layer alone is treated."""
        if choice == "float":
            return 0.0
        if self.signals is None:
            return self.shares[layer, choice]
        return self.predicted(alone(layer, self.choices[choice]))

    def predicted(self, scheme: Scheme) -> float:
        """The loss to expect of a whole scheme, with errors that cancel seen to cancel."""
        decision = decide(self.network, scheme, self.rules)
        if self.signals is None:
            plan = self.plan_of(decision)
            return sum(self.shares.get(pair, 0.0) for pair in plan.items())
        return self.signals.predicted(sum(self._parts(decision).values(), start=0.0))

    def plan_of(self, decision: Decision) -> dict[str, str]:
        """The choice that a decision has made for each layer; ``float`` where it is none of them."""
        treated = {str(node.target): treatment for node, treatment in decision.treatments.items()}
        plan = {}
        for layer, given in self.layers.items():
            names = [name for name, treatment in given.items() if treatment == treated.get(layer)]
            plan[layer] = names[0] if names else "float"
        return plan

    def terms(self) -> Terms:
        """The losses as sums of independent terms, as an integer program wants them."""
        terms = Terms()
        for layer, names in self.layers.items():
            for name in names:
                if self.signals is None:
                    terms.layers[layer, name] = self.shares[layer, name]
                    continue
                scheme = alone(layer, self.choices[name])
                parts = self._parts(decide(self.network, scheme, self.rules))
                own = [v for key, v in parts.items() if key[0] == "weight"]
                terms.layers[layer, name] = sum(self.signals.predicted(v) for v in own)
                for key, signal in parts.items():
                    if key[0] == "edge":
                        terms.edges[key] = self.signals.predicted(signal)
                        terms.switched_by.setdefault(key, set()).add((layer, name))
        return terms

    def rows(self) -> list[dict[str, Any]]:
        """One row for each layer: the loss to expect by choice."""
        return [
            {"layer": layer, "loss": {name: self.of(layer, name) for name in names}}
            for layer, names in self.layers.items()
        ]

    def _parts(self, decision: Decision) -> dict[Place, Floats]:
        """The signals of all that a decision rounds."""
        assert self.signals is not None
        weights, edges = self.signals.weights, self.signals.edges
        found: dict[Place, Floats] = {}
        for node, treatment in decision.treatments.items():
            key = str(node.target), weight_key(treatment)
            if key in weights:
                found["weight", *key] = weights[key]
            source = node.args[0]
            if treatment.mode == "dynamic" and isinstance(source, Node):
                edge = source.name, node.name, DYNAMIC
                if edge in edges:
                    found["edge", *edge] = edges[edge]
        for node, name in decision.quantized.items():
            for reader in decision.rewired.get(node, ()):
                edge = node.name, reader.name, name
                if edge in edges:
                    found["edge", *edge] = edges[edge]
        return found


@dataclass
class Terms:
    """Losses that add up.

    Attributes:
        layers: Of the weights (or all) of a layer in a choice.
        edges: Of a tensor that is rounded.
        switched_by: For each such tensor, the layers and choices each of which makes it be rounded.
    """

    layers: dict[tuple[str, str], float] = field(default_factory=dict)
    edges: dict[Place, float] = field(default_factory=dict)
    switched_by: dict[Place, set[tuple[str, str]]] = field(default_factory=dict)


def alone(layer: str, treatment: Treatment) -> Scheme:
    """Everything in float but one layer."""
    return Scheme(name=f"{layer} alone", default=FLOAT).with_override(escape(layer), treatment)


def find_sensitivity(
    bench: Workbench,
    choices: Sequence[str],
    *,
    calibrator: str | Mapping[str, str] = "mse",
    metric: str | None = None,
    samples: int = SENSITIVITY_SAMPLES,
    gradients: bool = True,
    seed: int = 0,
) -> Sensitivity:
    """Foretell the loss of every layer in every format.

    Args:
        bench: Has the network and the calibration data.
        choices: Names of :data:`CHOICES`; those that the runtime cannot execute are left out.
        calibrator: Observer of the activation ranges.
        metric: What the network is judged by: it decides the loss.
        samples: How many calibration samples to use.
        gradients: False forbids them.
        seed: Of everything random.

    Raises:
        UsageError: K620 for a choice of another name, or none that the runtime can execute.
    """
    forms = _forms(bench, choices, calibrator)
    batches = bench.drawn(samples)
    with bench.clock.stage("sensitivity"):
        loss = loss_for(metric, float_outputs(bench.prepared, batches[:1])[0])
        found = Sensitivity(
            network=bench.prepared,
            rules=bench.rules,
            choices={name: CHOICES[name] for name in forms},
            layers=_layers(forms),
            loss=loss,
            samples=sum(batch.size for batch in batches),
            passes=0,
        )
        signals = None
        if gradients and differentiable(bench.prepared):
            signals = collect_signals(
                bench.prepared, list(forms.values()), batches, loss=loss, probes=1, seed=seed
            )
        if signals is not None and not signals.blind:
            return replace(found, signals=signals, passes=3 + signals.formats)
        shares, passes = shares_by_groups(bench.prepared, forms, batches, seed=seed)
    # Only the size of the error is found this way, for every loss.
    return replace(found, loss="relative", shares=shares, passes=passes)


def differentiable(network: Network) -> bool:
    """Whether PyTorch can differentiate all that comes behind a layer."""
    behind: set[Node] = set()
    for node in network.graph.nodes:
        later = not behind.isdisjoint(node.all_input_nodes)
        kind = kind_of(node)
        if later and kind == "opaque":
            return False
        if later or kind in LAYERS:
            behind.add(node)
    return True


def brute_force(
    bench: Workbench,
    sensitivity: Sensitivity,
    choice: str,
    batches: Sequence[Batch],
    *,
    calibrator: str = "mse",
) -> dict[str, float]:
    """The loss of each layer as it is when that layer alone is treated: one evaluation a layer.

    Args:
        bench: Has the network.
        sensitivity: Says which layers and which loss.
        choice: The treatment.
        batches: Samples.
        calibrator: Observer of the activation ranges.
    """
    reference = float_outputs(bench.prepared, batches)
    found = {}
    for layer, names in sensitivity.layers.items():
        if choice in names:
            scheme = alone(layer, sensitivity.choices[choice])
            candidate = Candidate(name=layer, level=2, scheme=scheme, calibrator=calibrator)
            found[layer] = mean_loss(bench.place(candidate), reference, batches, sensitivity.loss)
    return found


def mean_loss(
    network: Network,
    reference: Sequence[Sequence[torch.Tensor]],
    batches: Sequence[Batch],
    loss: Loss,
) -> float:
    """The loss of a simulated network in the mean over some samples."""
    rows = []
    with torch.no_grad():
        for expected, batch in zip(reference, batches, strict=True):
            ours = network.call_flat(list(batch.inputs.values()))
            rows.append(divergence(expected, ours, loss))
    return float(torch.cat(rows).mean())


def _forms(
    bench: Workbench, choices: Sequence[str], calibrator: str | Mapping[str, str]
) -> dict[str, Network]:
    """The network with every layer in one choice, for each choice the runtime has."""
    unknown = [name for name in choices if name not in CHOICES]
    forms, why = {}, f"there is no choice {', '.join(unknown)}" if unknown else ""
    for name in choices if not unknown else ():
        scheme = Scheme(name=name, default=CHOICES[name])
        try:
            placed = place(bench.prepared, scheme, bench.rules)
        except KompaktError as refused:
            why = refused.why or refused.what
            continue
        taps = plan_of(placed).taps
        if taps:
            set_ranges_(placed, bench.calibrated(taps), calibrator)
        forms[name] = placed
    if not forms:
        raise UsageError(
            "K620",
            f"the sensitivity to {', '.join(choices) or 'nothing'}",
            why=why,
            help=f"choose among {', '.join(CHOICES)}",
        )
    return forms


def _layers(forms: Mapping[str, Network]) -> dict[str, dict[str, Treatment]]:
    """The choices of each layer and what they come to there, each once, in graph order."""
    found: dict[str, dict[str, Treatment]] = {}
    for name, form in forms.items():
        for site in plan_of(form).sites:
            if site.role == "weight" and site.treatment and site.kind != "embedding":
                given = found.setdefault(site.name, {})
                if site.treatment not in given.values():
                    given[name] = site.treatment
    return found
