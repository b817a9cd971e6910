"""Whether a layer can have the treatment a scheme asks for, under a runtime's rules."""

from __future__ import annotations

from torch import nn

from kompakt.errors import TargetError
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerChannel, PerGroup, PerTensor
from kompakt.quantize.layers import TREATED
from kompakt.quantize.rules import Rules
from kompakt.schemes import FLOAT, Treatment


def possible_treatment(
    layer: nn.Module, kind: str, treatment: Treatment, rules: Rules
) -> tuple[Treatment, str | None]:
    """The treatment as this layer can have it, or the reason it stays float.

    Args:
        layer: The layer.
        kind: Its kind.
        treatment: What the scheme asks for.
        rules: What the runtime can execute.

    Raises:
        TargetError: K400 when the runtime has no kernel for the formats or the granularity asked for.
    """
    if treatment.mode == "float":
        return FLOAT, "the scheme leaves it in float"
    allowed = {
        "static": rules.static_layers,
        "dynamic": rules.dynamic_layers,
        "weight_only": rules.weight_only_layers,
    }[treatment.mode]
    if kind not in allowed or not isinstance(layer, tuple(TREATED)):
        special = f"{kind}:{treatment.mode}"
        return FLOAT, rules.why_float(special if special in rules.reasons else kind)
    _check_weights(treatment, rules)
    _check_activations(treatment, rules)
    granularity = treatment.granularity
    if isinstance(granularity, PerGroup):
        inputs = layer.in_features if isinstance(layer, nn.Linear) else 0
        if kind not in rules.grouped_layers or (rules.whole_groups and inputs % granularity.size):
            return _ungrouped(treatment), None
    return treatment, None


def _check_weights(treatment: Treatment, rules: Rules) -> None:
    formats = rules.weight_formats[treatment.mode]
    if treatment.weight not in formats:
        raise _no_kernel(
            f"{treatment.mode} weights in {treatment.weight}", rules, ", ".join(sorted(formats))
        )
    granularity = treatment.granularity
    fmt = get_format(str(treatment.weight))
    if fmt.kind == "float" and not fmt.is_small_float:
        return
    if treatment.mode == "weight_only":
        fits = isinstance(granularity, PerTensor | PerChannel) or (
            isinstance(granularity, PerGroup)
            and granularity.axis in (1, -1)
            and granularity.size in rules.group_sizes
        )
        sizes = ", ".join(map(str, sorted(rules.group_sizes)))
        executes = f"one scale per tensor, per channel, or per group of {sizes} input features"
    else:
        fits = granularity in (PerTensor(), PerChannel(0))
        executes = "one scale per tensor or per output channel"
    if not fits:
        raise _no_kernel(f"{treatment.mode} weights with {granularity}", rules, executes)
    if treatment.mode == "dynamic" and not treatment.symmetric_weight:
        raise _no_kernel("dynamic weights with a zero point", rules, "symmetric weights there")


def _check_activations(treatment: Treatment, rules: Rules) -> None:
    asked = treatment.activation
    if treatment.mode == "dynamic" and asked not in ("auto8", rules.dynamic_activation):
        raise _no_kernel(f"dynamic activations in {asked}", rules, rules.dynamic_activation)
    if treatment.mode == "static":
        formats = rules.activation_formats
        if rules.activation_format(str(asked)) not in formats:
            raise _no_kernel(f"activations in {asked}", rules, ", ".join(sorted(formats)))
        kinds = [get_format(rules.activation_format(str(asked))), get_format(str(treatment.weight))]
        if kinds[0].is_small_float != kinds[1].is_small_float:
            what = f"{treatment.weight} weights with activations in {asked}"
            raise _no_kernel(what, rules, "integers with integers and floats with floats")


def _no_kernel(what: str, rules: Rules, executes: str) -> TargetError:
    return TargetError(
        "K400",
        f"{what} for {rules.runtime}",
        why="it has no kernel for them",
        help=f"it executes {executes}",
    )


def _ungrouped(treatment: Treatment) -> Treatment:
    """Groups make no sense for a convolution's kernels: one scale per channel instead, in 8 bits."""
    weight = {"int4": "int8_narrow", "uint4": "uint8"}.get(
        str(treatment.weight), str(treatment.weight)
    )
    return Treatment(
        mode=treatment.mode,
        weight=weight,
        activation=treatment.activation,
        symmetric_weight=treatment.symmetric_weight,
    )
