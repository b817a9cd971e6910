"""What a parity check accepts, and what it found; :mod:`kompakt.measuring.parity` does the checking."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kompakt.quantize.saturation import PairSums
from kompakt.targets.target import Against

INSTRUCTION_SETS = ("x86-vnni", "x86", "arm")
"""Families of processors whose integer kernels differ in when they saturate."""
Fed = Literal["integer", "table", "float"]
Verdict = Literal["exact", "within tolerance", "failed"]


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """What a certificate accepts.

    Attributes:
        integer_share: Share of codes that may differ where an integer kernel feeds the quantizer.
        integer_step: By how many codes such a code may differ.
        float_share: The same where a float operator feeds it (two runtimes' exponentials differ in the last bit).
        table_share: The same where the runtime looks results up in a table of all codes: one entry that rounds the
            other way differs wherever it is used.
        float_step: By how many codes such a code may differ; one code alone may do so whatever its share.
        wide_step: The same for formats of more than 8 bits, whose steps are as small as the rounding of a float
            kernel; any share of those may differ by so much.
        output_error: Relative error ‖runtime − referee‖ / ‖referee‖ of the outputs and of the float inputs of dynamic
            layers, where the referee was given the runtime's own values at every site before.
        probe_error: Relative error of the outputs of the file with visible codes, against the file itself.
        layer_error: Relative error of the output of a dynamic layer that is given the runtime's own input, in its
            worst channel, against the sizes of what its kernel adds up.
    """

    integer_share: float = 0.0
    integer_step: int = 1
    float_share: float = 1e-3
    table_share: float = 0.05
    float_step: int = 1
    wide_step: int = 2
    output_error: float = 1e-5
    probe_error: float = 1e-5
    layer_error: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class SiteParity:
    """How one quantizer's codes compare."""

    site: str
    fed_by: Fed
    bits: int = 8
    codes: int = 0
    differing: int = 0
    largest: int = 0

    def add(self, ours: NDArray[Any], theirs: NDArray[Any]) -> SiteParity:
        """The same with one more comparison of equally shaped code arrays."""
        different = ours.astype(theirs.dtype) != theirs
        count = int(np.count_nonzero(different))
        gap = np.abs(ours[different].astype(np.int64) - theirs[different]) if count else np.zeros(1)
        return replace(
            self,
            codes=self.codes + ours.size,
            differing=self.differing + count,
            largest=max(self.largest, int(gap.max())),
        )

    def within(self, tolerances: Tolerances) -> bool:
        """Whether it is acceptable."""
        share = self.differing / max(1, self.codes)
        if self.bits > 8:
            return self.largest <= tolerances.wide_step
        if self.fed_by == "integer":
            near = self.differing == 0 or self.largest <= tolerances.integer_step
            return near and share <= tolerances.integer_share
        limit = tolerances.table_share if self.fed_by == "table" else tolerances.float_share
        few = share <= limit or self.differing <= 1
        return few and self.largest <= tolerances.float_step


@dataclass(frozen=True, kw_only=True)
class LayerParity:
    """How one dynamic layer compares, given the runtime's own values.

    Attributes:
        site: The layer.
        kernel: The runtime's operator that makes its output.
        values: Output values compared.
        differing: Output values that are not equal.
        output_error: See :attr:`Tolerances.layer_error`; the worst over all batches.
        input_error: Relative error of its float input, which float operators make of the sites before it; the worst
            over all batches.
    """

    site: str
    kernel: str = ""
    values: int = 0
    differing: int = 0
    output_error: float = 0.0
    input_error: float = 0.0

    def add(
        self,
        ours: NDArray[Any],
        theirs: NDArray[Any],
        sizes: NDArray[Any],
        input_error: float,
    ) -> LayerParity:
        """The same with one more comparison.

        Args:
            ours: The referee's output, shape (..., O).
            theirs: The runtime's, same shape.
            sizes: |product| + |bias|, same shape.
            input_error: Relative error of the input.
        """
        channels = ours.shape[-1]
        gap = theirs.astype(np.float64) - ours
        errors = np.linalg.norm(gap.reshape(-1, channels), axis=0)
        scale = np.linalg.norm(sizes.astype(np.float64).reshape(-1, channels), axis=0)
        relative = np.where(errors > 0, errors / np.maximum(scale, 1e-300), 0.0)
        return replace(
            self,
            values=self.values + ours.size,
            differing=self.differing + int(np.count_nonzero(gap)),
            output_error=max(self.output_error, float(relative.max())),
            input_error=max(self.input_error, input_error),
        )

    def within(self, tolerances: Tolerances) -> bool:
        """Whether it is acceptable; what no value was compared of is not."""
        return (
            self.values > 0
            and self.output_error <= tolerances.layer_error
            and self.input_error <= tolerances.output_error
        )


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """How the outputs compare.

    Attributes:
        error2: Sum of squared differences.
        norm2: Sum of squares of the referee's outputs.
        largest: The largest difference of two values.
        differing: Values that are not equal.
        values: Values compared.
    """

    error2: float = 0.0
    norm2: float = 0.0
    largest: float = 0.0
    differing: int = 0
    values: int = 0

    def add(self, ours: NDArray[Any], theirs: NDArray[Any]) -> OutputParity:
        """The same with one more comparison of equally shaped arrays."""
        expected, got = ours.astype(np.float64), theirs.astype(np.float64)
        gap = np.abs(got - expected)
        return OutputParity(
            error2=self.error2 + float(np.square(gap).sum()),
            norm2=self.norm2 + float(np.square(expected).sum()),
            largest=max(self.largest, float(gap.max(initial=0.0))),
            differing=self.differing + int(np.count_nonzero(got != expected)),
            values=self.values + got.size,
        )

    @property
    def relative_error(self) -> float:
        """‖runtime − referee‖ / ‖referee‖."""
        return float(np.sqrt(self.error2) / np.sqrt(max(self.norm2, 1e-300)))


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The outcome of a parity check.

    Attributes:
        verdict: ``exact`` (every code, and every output of a dynamic layer, equal), ``within tolerance`` or
            ``failed``.
        against: How the file was compared: see :class:`kompakt.targets.target.Parity`.
        samples: Samples compared.
        rows: One per quantizer, in graph order: codes where the referee is given the runtime's own at every site.
        layers: One per layer that finds its range while it runs, given the runtime's own input.
        free_running_differing: Codes that differ when the referee runs freely, over all quantizers.
        free_running: The outputs when the referee runs freely, from the inputs alone. There is no limit on it: one
            code that rounds the other way moves others behind it.
        forced: The outputs when the referee is given the runtime's own values at every site.
        probe_agrees: Whether the file with its codes made visible gives the same outputs as the file that ships, to
            the tolerance for outputs.
        probe_operators: How many more (or, negative, fewer) operators of each type the runtime executes when they
            are made visible; empty when that changes nothing.
        unfused: Sites meant to come out of integer kernels that the runtime computes in float on this machine.
        first_difference: The first site that is not acceptable.
        tolerances: What was accepted.
        operators: The operators the runtime executes, counted.
        pair_sums: Layers whose sums can saturate on x86 without VNNI; None where that was not looked at.
    """

    verdict: Verdict
    against: Against = "integers"
    samples: int
    rows: tuple[SiteParity, ...]
    layers: tuple[LayerParity, ...] = ()
    free_running_differing: int
    free_running: OutputParity
    forced: OutputParity
    probe_agrees: bool
    probe_operators: dict[str, int] = field(default_factory=dict)
    first_difference: str | None
    tolerances: Tolerances
    operators: dict[str, int] = field(default_factory=dict)
    unfused: tuple[str, ...] = ()
    pair_sums: tuple[PairSums, ...] | None = None

    @property
    def exact_on(self) -> list[str] | None:
        """The instruction sets on which no integer sum of the file saturates; None where that was not looked at.

        On x86 without VNNI that is proven by the weights, or else seen on the samples.
        """
        if self.pair_sums is None or not (self.rows or self.layers):
            return None
        if self.verdict == "failed":
            return []
        at_risk = any(found.at_risk for found in self.pair_sums)
        return [name for name in INSTRUCTION_SETS if name != "x86" or not at_risk]

    def to_json(self) -> dict[str, Any]:
        """The ``parity`` object of a record."""
        return {
            "verdict": self.verdict,
            "against": self.against,
            "samples": self.samples,
            "quantizers": len(self.rows),
            "differing_quantizers": sum(r.differing > 0 for r in self.rows),
            "codes": sum(r.codes for r in self.rows),
            "differing_codes": sum(r.differing for r in self.rows),
            "free_running_differing": self.free_running_differing,
            "largest_code_difference": max((r.largest for r in self.rows), default=0),
            "dynamic_layers": len(self.layers),
            "differing_dynamic_layers": sum(r.differing > 0 for r in self.layers),
            "largest_layer_error": max((r.output_error for r in self.layers), default=None),
            "largest_layer_input_error": max((r.input_error for r in self.layers), default=None),
            **_outputs("free_running", self.free_running),
            **_outputs("forced", self.forced),
            "output_values": self.forced.values,
            "probe_agrees": self.probe_agrees,
            "probe_operators": self.probe_operators,
            "tolerances": asdict(self.tolerances),
            "first_difference": self.first_difference,
            "rows": [asdict(r) for r in self.rows],
            "layers": [asdict(r) for r in self.layers],
            "fused_operators": self.operators,
            "unfused": list(self.unfused),
            "exact_on": self.exact_on,
            "pair_sums": None if self.pair_sums is None else [p.to_json() for p in self.pair_sums],
        }


def _outputs(how: str, found: OutputParity) -> dict[str, Any]:
    return {
        f"{how}_output_error": found.relative_error,
        f"{how}_output_largest": found.largest,
        f"{how}_output_differing": found.differing,
    }
