"""Linear layers that read one tensor: what is done to its channels is undone in all of their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.numerics.affine import choose_qparams, dequantize, quantize
from kompakt.numerics.formats import get_format
from kompakt.quantize.decide import decide
from kompakt.quantize.layers import weight_parameters
from kompakt.quantize.rules import Rules
from kompakt.schemes import Mode, Scheme, Treatment

ROWS = 1024
"""Rows of activations that simulated errors are found on."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Linear layers with weights of their own that read one tensor and round it.

    Attributes:
        source: The node that makes the tensor.
        calls: The layers' calls.
        treatment: That of the first layer.
    """

    source: Node
    calls: tuple[Node, ...]
    treatment: Treatment

    @property
    def alone(self) -> bool:
        """Whether nothing else reads the tensor."""
        return set(self.source.users) == set(self.calls)


def linear_groups(
    network: Network,
    scheme: Scheme,
    rules: Rules,
    modes: Collection[Mode] = ("static", "dynamic"),
) -> dict[Node, Group]:
    """The groups whose layers a scheme treats in one of these modes, by the node that makes their tensor.

    Args:
        network: An inference-form network.
        scheme: What to do to which layers.
        rules: What the runtime can execute.
        modes: By default those that compute in integers.

    Raises:
        SchemeError: See :func:`kompakt.quantize.decide.decide`.
        TargetError: K400 when the runtime cannot execute a format the scheme asks for.
    """
    treatments = decide(network, scheme, rules).treatments
    owners = parameter_owners(network)
    called = Counter(str(n.target) for n in network.graph.nodes if n.op == "call_module")
    calls: dict[Node, list[Node]] = {}
    for node, treatment in treatments.items():
        source = node.args[0] if node.args else None
        if kind_of(node) != "linear" or treatment.mode not in modes:
            continue
        weight = network.get_submodule(str(node.target)).weight
        if isinstance(source, Node) and called[str(node.target)] == owners[id(weight)] == 1:
            calls.setdefault(source, []).append(node)
    return {
        source: Group(source=source, calls=tuple(nodes), treatment=treatments[nodes[0]])
        for source, nodes in calls.items()
    }


def parameter_owners(network: Network) -> Counter[int]:
    """How many places hold each parameter, by its ``id``."""
    return Counter(
        id(parameter)
        for module in nn.Module.modules(network)
        for parameter in module.parameters(recurse=False)
    )


def weights_of(network: Network, group: Group) -> list[Tensor]:
    """The layers' weights, float32 (O, I) each."""
    return [network.get_submodule(str(call.target)).weight.detach() for call in group.calls]  # type: ignore[operator]


def rounded_weight(weight: Tensor, treatment: Treatment) -> Tensor:
    """A weight as the layer would compute with it; same shape."""
    fmt, granularity = get_format(str(treatment.weight)), treatment.granularity
    scale, zero_point = weight_parameters(weight, treatment)
    codes = quantize(weight, scale, zero_point, fmt, granularity)
    return dequantize(codes, scale, zero_point, granularity)


def rounded_input(x: Tensor, low: Tensor, high: Tensor, group: Group, rules: Rules) -> Tensor:
    """Activations rounded with the range [low, high], as the layers of a group would be given them."""
    dynamic = group.treatment.mode == "dynamic"
    asked = str(group.treatment.activation)
    name = rules.dynamic_activation if dynamic else rules.activation_format(asked)
    symmetric = not dynamic and name in rules.symmetric_activations
    scale, zero_point = choose_qparams(low, high, get_format(name), symmetric=symmetric)
    return dequantize(quantize(x, scale, zero_point, get_format(name)), scale, zero_point)


def rows_of(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Activations of every other sample, to find ranges on, and of the others, to judge them on: (rows, C) each.

    A single sample is both.
    """
    samples = [sample.reshape(-1, sample.shape[-1]) for value in values for sample in _split(value)]
    found, judged = samples[::2], samples[1::2] or samples
    return torch.cat(found), _few(torch.cat(judged))


def _split(value: Tensor) -> list[Tensor]:
    return list(value) if value.dim() > 2 else list(torch.split(value, 1))


def _few(rows: Tensor) -> Tensor:
    step = max(1, -(-len(rows) // ROWS))
    return rows[::step]


__all__ = [
    "Group",
    "linear_groups",
    "parameter_owners",
    "rounded_input",
    "rounded_weight",
    "rows_of",
    "weights_of",
]
