"""What a runtime can execute, as data: placement reads it, targets fill it in.

Kinds are those of :func:`kompakt.quantize.kinds.placing_kind`. Adding a runtime means writing one :class:`Rules`
value, never another placement algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One runtime's rules.

    Attributes:
        runtime: Its name, for messages.
        static_layers: Kinds with weights that have an integer kernel for calibrated activations.
        dynamic_layers: Kinds with weights that have a kernel for activations quantized at run time.
        weight_only_layers: Kinds whose weights may be stored in few bits while they compute in float.
        grouped_layers: Kinds that accept one scale per group of weights.
        group_sizes: Input features in one such group.
        whole_groups: Whether groups must divide the input features; elsewhere the last one may be smaller.
        integer_operators: Kinds without weights that have an integer kernel.
        float_output_layers: Kinds whose integer kernel may hand out float, so that the output needs no
            quantizer.
        pass_through: Kinds that move codes without computing: output and input share one quantizer.
        shared_inputs: Kinds whose inputs and output share one quantizer.
        fused_activations: For each kind, the activation kinds its kernel absorbs; none is quantized between.
        summing_layers: Kinds whose kernel adds another tensor before it rounds: what they hand to an addition is
            not quantized.
        activation8: The 8-bit activation format its kernels are fastest in.
        activation16: The 16-bit activation format.
        dynamic_activation: The format of activations quantized at run time.
        activation_formats: Every activation format it can execute.
        weight_formats: For each treatment mode, the weight formats it can execute.
        rounding: The name of its quantization formula in ``kompakt.numerics.rounding``.
        arithmetic: How its kernels scale sums to codes, by its name in ``kompakt.quantize.arithmetic``.
        symmetric_activations: Activation formats whose zero point has to be 0.
        fixed_outputs: For kinds whose output has a scale of its own, (scale, zero point) by activation format.
        pair_sums: Kinds whose kernels, on x86 without VNNI, add two products in 16 bits, where they can saturate
            (see :mod:`kompakt.quantize.saturation`).
        avoid_saturation: Whether files are also for such processors.
        reasons: For kinds that stay float, why.
    """

    runtime: str
    static_layers: frozenset[str]
    dynamic_layers: frozenset[str]
    weight_only_layers: frozenset[str]
    grouped_layers: frozenset[str]
    group_sizes: frozenset[int]
    integer_operators: frozenset[str]
    float_output_layers: frozenset[str]
    pass_through: frozenset[str]
    shared_inputs: frozenset[str]
    fused_activations: Mapping[str, frozenset[str]]
    activation8: str
    activation16: str
    dynamic_activation: str
    activation_formats: frozenset[str]
    weight_formats: Mapping[str, frozenset[str]]
    rounding: str
    summing_layers: frozenset[str] = frozenset()
    whole_groups: bool = False
    arithmetic: str = "float32"
    symmetric_activations: frozenset[str] = frozenset()
    fixed_outputs: Mapping[str, Mapping[str, tuple[float, int]]] = field(default_factory=dict)
    pair_sums: frozenset[str] = frozenset()
    avoid_saturation: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)

    def activation_format(self, asked: str) -> str:
        """The format a scheme's ``auto8`` / ``auto16`` (or explicit format) means here."""
        return {"auto8": self.activation8, "auto16": self.activation16}.get(asked, asked)

    def why_float(self, kind: str) -> str:
        """Why an operator of this kind is left in float, in a short sentence."""
        return self.reasons.get(kind, f"{self.runtime} has no integer kernel for {kind}")
