"""The parity certificate: whether the written file computes what was simulated.

For every quantizer the codes the runtime produces (read from the written file itself) are compared with those of the
integer referee, first running freely, then, for quantizers that differ, *teacher-forced*: each is fed the runtime's own
codes, so that a difference is charged to the site that makes it and not to all sites behind it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from kompakt.errors import DataError
from kompakt.measuring.data import Batch
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.progress import track
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.place import is_quantizer_call, quantizer_calls, quantizer_of
from kompakt.quantize.rules import Rules
from kompakt.targets.target import Arrays, Target, Written, as_arrays

Fed = Literal["integer", "table", "float"]
TABLE_KERNELS = frozenset({"QLinearSigmoid"})
"""Kernels that look up the result of each of 256 codes in a table made with float exponentials."""


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """What a certificate accepts.

    Attributes:
        integer_share: Share of codes that may differ where an integer kernel feeds the quantizer.
        float_share: The same where a float operator feeds it (two runtimes' exponentials differ in the last bit).
        table_share: The same where the runtime looks results up in a table of all codes: one entry that rounds the
            other way differs wherever it is used.
        float_step: By how many codes such a code may differ; one code alone may do so whatever its share.
        wide_step: The same for formats of more than 8 bits, whose steps are as small as the rounding of a float
            kernel; any share of those may differ by so much.
        output_error: Relative error of the outputs, ‖runtime − referee‖ / ‖referee‖.
    """

    integer_share: float = 0.0
    float_share: float = 1e-3
    table_share: float = 0.05
    float_step: int = 1
    wide_step: int = 2
    output_error: float = 1e-5


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
            return share <= tolerances.integer_share
        limit = tolerances.table_share if self.fed_by == "table" else tolerances.float_share
        few = share <= limit or self.differing <= 1
        return few and self.largest <= tolerances.float_step


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The outcome of a parity check.

    Attributes:
        verdict: ``exact`` (every code equal), ``within tolerance`` or ``failed``.
        samples: Samples compared.
        rows: One per quantizer, in graph order.
        free_running_differing: Codes that differ when the referee runs freely, over all quantizers.
        output_relative_error: ‖runtime − referee‖ / ‖referee‖ over all outputs.
        output_differing: Output values that are not equal.
        output_values: Output values compared.
        probe_agrees: Whether the file with its codes made visible gives the same outputs as the file that ships, to
            the tolerance for outputs.
        unfused: Sites meant to come out of integer kernels that the runtime computes in float on this machine.
        first_difference: The first site that is not acceptable.
        tolerances: What was accepted.
        operators: The operators the runtime executes, counted.
    """

    verdict: Literal["exact", "within tolerance", "failed"]
    samples: int
    rows: tuple[SiteParity, ...]
    free_running_differing: int
    output_relative_error: float
    output_differing: int
    output_values: int
    probe_agrees: bool
    first_difference: str | None
    tolerances: Tolerances
    operators: dict[str, int] = field(default_factory=dict)
    unfused: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The ``parity`` object of a record."""
        return {
            "verdict": self.verdict,
            "samples": self.samples,
            "quantizers": len(self.rows),
            "differing_quantizers": sum(r.differing > 0 for r in self.rows),
            "codes": sum(r.codes for r in self.rows),
            "differing_codes": sum(r.differing for r in self.rows),
            "free_running_differing": self.free_running_differing,
            "largest_code_difference": max((r.largest for r in self.rows), default=0),
            "output_relative_error": self.output_relative_error,
            "output_differing": self.output_differing,
            "output_values": self.output_values,
            "probe_agrees": self.probe_agrees,
            "tolerances": asdict(self.tolerances),
            "first_difference": self.first_difference,
            "rows": [asdict(r) for r in self.rows],
            "fused_operators": self.operators,
            "unfused": list(self.unfused),
        }


def certify(
    placed: Network,
    written: Written,
    target: Target,
    batches: Sequence[Batch],
    *,
    rules: Rules,
    tolerances: Tolerances | None = None,
) -> Certificate:
    """Compare a written file with the integer referee.

    Args:
        placed: The frozen network the file was written from.
        written: The files.
        target: The runtime.
        batches: The samples to compare on (inputs only).
        rules: The rules the network was placed by.
        tolerances: What to accept.

    Raises:
        DataError: K203 when there is no sample.
    """
    if not batches:
        raise DataError("K203", "a parity check without samples", why="there is nothing to compare")
    tolerances = tolerances or Tolerances()
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        path = written.save(Path(folder))
        shipped = target.load(path, written.options)
        values = list(written.codes.values())
        probe = target.probe(path, written.options, values)
        kernels = target.kernels(path, written.options, values)
        comparison = _Comparison(placed, written, rules, kernels)
        for batch in track(batches, "checking parity"):
            arrays = as_arrays(batch.inputs)
            comparison.compare(batch, shipped(arrays), probe(arrays))
        return comparison.certificate(tolerances, target.operators(path, written.options))


class _Comparison:
    """Accumulates one certificate over batches."""

    def __init__(
        self, placed: Network, written: Written, rules: Rules, kernels: dict[str, str]
    ) -> None:
        self.placed, self.written = placed, written
        calls = {s: n for s, n in quantizer_calls(placed).items() if s in written.codes}
        meant = {site: _fed_by(placed, call, rules) for site, call in calls.items()}
        kernel = {site: kernels.get(written.codes[site], "") for site in calls}
        self.free = {
            site: SiteParity(
                site=site,
                fed_by=_really_fed_by(meant[site], kernel[site], call),
                bits=quantizer_of(placed, call).format.bits,
            )
            for site, call in calls.items()
        }
        self.unfused = tuple(
            site for site, row in self.free.items() if meant[site] != "float" == row.fed_by
        )
        self.forced = dict(self.free)
        self.samples = 0
        self.error2 = self.norm2 = 0.0
        self.differing = self.values = 0
        self.probe_error2 = 0.0

    def compare(self, batch: Batch, shipped: Arrays, probed: Arrays) -> None:
        inputs = list(batch.inputs.values())
        self.samples += batch.size
        for name, values in shipped.items():
            gap = probed[name].astype(np.float64) - values
            self.probe_error2 += float(np.square(gap).sum())
        theirs = {site: probed[name] for site, name in self.written.codes.items()}

        def note_free(site: str, codes: Tensor) -> None:
            if site in theirs:
                self.free[site] = self.free[site].add(codes.numpy(), theirs[site])

        outputs = run_in_integers(self.placed, *inputs, on_codes=note_free)
        if any(row.differing for row in self.free.values()):
            outputs = self._compare_forced(inputs, theirs)
        else:
            self.forced = dict(self.free)
        self._compare_outputs(outputs, shipped)

    def _compare_forced(self, inputs: list[Tensor], theirs: Arrays) -> Any:
        def force(site: str, codes: Tensor) -> Tensor | None:
            if site not in theirs:
                return None
            self.forced[site] = self.forced[site].add(codes.numpy(), theirs[site])
            return torch.from_numpy(theirs[site].astype(np.int32))

        return run_in_integers(self.placed, *inputs, on_codes=force)

    def _compare_outputs(self, outputs: Any, shipped: Arrays) -> None:
        flat = [t for t in torch.utils._pytree.tree_leaves(outputs) if isinstance(t, Tensor)]
        for ours, theirs in zip(flat, shipped.values(), strict=True):
            expected, got = ours.numpy().astype(np.float64), theirs.astype(np.float64)
            self.error2 += float(np.square(got - expected).sum())
            self.norm2 += float(np.square(expected).sum())
            self.differing += int(np.count_nonzero(got != expected))
            self.values += got.size

    def certificate(self, tolerances: Tolerances, operators: dict[str, int]) -> Certificate:
        rows = tuple(self.forced.values())
        free = sum(r.differing for r in self.free.values())
        norm = float(np.sqrt(max(self.norm2, 1e-300)))
        error, probe_error = np.sqrt(self.error2) / norm, np.sqrt(self.probe_error2) / norm
        probe_agrees = bool(probe_error <= tolerances.output_error)
        bad = next((r.site for r in rows if not r.within(tolerances)), None)
        if bad is None and not error <= tolerances.output_error:
            bad = "output"
        if bad is None and not probe_agrees:
            bad = "the file with its codes made visible gives other outputs than the file itself"
        # Where nothing is quantized in the file's graph there are no codes to be equal, only outputs.
        exact = free == 0 and (bool(rows) or self.differing == 0) and probe_error == 0
        verdict: Literal["exact", "within tolerance", "failed"] = (
            "failed" if bad else "exact" if exact else "within tolerance"
        )
        return Certificate(
            verdict=verdict,
            samples=self.samples,
            rows=rows,
            free_running_differing=free,
            output_relative_error=float(error),
            output_differing=self.differing,
            output_values=self.values,
            probe_agrees=probe_agrees,
            first_difference=bad,
            tolerances=tolerances,
            operators=operators,
            unfused=self.unfused,
        )


def _really_fed_by(meant: Fed, kernel: str, call: Node) -> Fed:
    """What feeds a quantizer on this machine, from what should and the runtime's operator behind its codes."""
    if kernel in TABLE_KERNELS:
        return "table"
    source = call.args[0]
    assert isinstance(source, Node)
    return "float" if kernel == "QuantizeLinear" and kind_of(source) != "input" else meant


def _fed_by(placed: Network, call: Node, rules: Rules) -> Fed:
    """What should feed a quantizer: an integer kernel (or the caller, with exact floats), or a float operator."""
    source = call.args[0]
    assert isinstance(source, Node)
    if kind_of(source) == "input":
        return "integer"
    if quantizer_of(placed, call).format.bits > 8:
        return "float"
    integer = rules.static_layers | rules.integer_operators
    while kind_of(source) in {k for kinds in rules.fused_activations.values() for k in kinds}:
        source = source.args[0]
        assert isinstance(source, Node)
    fed = [a for a in source.all_input_nodes if is_quantizer_call(placed, a)]
    return "integer" if kind_of(source) in integer and fed else "float"
