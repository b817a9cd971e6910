"""The parity certificate: whether the written file computes what was simulated.

For every quantizer the codes the runtime produces (read from the written file itself) are compared with those of the
integer referee, first running freely, then, for quantizers that differ, *teacher-forced*: each is fed the runtime's own
codes, so that a difference is charged to the site that makes it and not to all sites behind it. A layer that finds its
range while it runs has no codes to read; it is given the runtime's own float input, and its float output is compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from kompakt.errors import DataError
from kompakt.measuring.certificate import (
    Certificate,
    Fed,
    LayerParity,
    OutputParity,
    SiteParity,
    Tolerances,
    Verdict,
)
from kompakt.measuring.data import Batch
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.progress import track
from kompakt.quantize.forcing import dynamic_output, run_forced
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import is_quantizer_call, quantizer_calls, quantizer_of
from kompakt.quantize.rules import Rules
from kompakt.quantize.saturation import PairSumWatch
from kompakt.targets.target import Against, Arrays, LayerValues, Target, Written, as_arrays

TABLE_KERNELS = frozenset({"QLinearSigmoid"})
"""Kernels that look up the result of each of 256 codes in a table made with float exponentials."""


def certify(
    placed: Network,
    written: Written,
    target: Target,
    batches: Sequence[Batch],
    *,
    rules: Rules,
    tolerances: Tolerances | None = None,
    watch: PairSumWatch | None = None,
) -> Certificate:
    """Compare a written file with the integer referee.

    Args:
        placed: The frozen network the file was written from.
        written: The files.
        target: The runtime.
        batches: The samples to compare on (inputs only).
        rules: The rules the network was placed by.
        tolerances: What to accept.
        watch: Looks at the codes that layers read, on the way; what it found goes into the certificate.

    Raises:
        DataError: K203 when there is no sample.
    """
    if not batches:
        raise DataError("K203", "a parity check without samples", why="there is nothing to compare")
    hidden = bool(_dynamic_calls(placed)) and not written.dynamic and target.parity.dynamic_error
    against: Against = "outputs" if hidden else target.parity.against
    tolerances = tolerances or tolerances_of(target, placed, rules)
    if hidden:
        tolerances = replace(tolerances, output_error=float(hidden))
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        path = written.save(Path(folder))
        shipped = target.load(path, written.options)
        named = path, written.options, written.visible
        probe = target.probe(*named) if target.probe is not None else shipped
        kernels = target.kernels(*named) if target.kernels is not None else {}
        comparison = _Comparison(placed, written, rules, kernels, against)
        comparison.watch = watch
        for batch in track(batches, "checking parity"):
            arrays = as_arrays(batch.inputs)
            # An input that feeds a layer directly is its own visible value.
            comparison.compare(batch, shipped(arrays), {**arrays, **probe(arrays)})
        operators = target.operators(path, written.options)
        probed = target.operators(*named) if target.probe is not None else operators
        found = comparison.certificate(tolerances, operators, _changed(operators, probed))
        return found if watch is None else replace(found, pair_sums=tuple(watch.found))


def tolerances_of(target: Target, placed: Network, rules: Rules) -> Tolerances:
    """What is accepted of a target's file of this network."""
    parity = target.parity
    if parity.against == "integers":
        return Tolerances()
    calls = quantizer_calls(placed).values()
    integers = all(_fed_by(placed, call, rules) == "integer" for call in calls)
    whole = integers and parity.integer_error is not None
    error = parity.integer_error if whole else parity.output_error
    assert error is not None
    return Tolerances(
        integer_share=parity.share,
        integer_step=parity.step,
        float_share=max(parity.share, Tolerances.float_share),
        float_step=max(parity.step, Tolerances.float_step),
        output_error=error,
        probe_error=error if parity.probe_error is None else parity.probe_error,
    )


def _changed(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    gaps = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in sorted({*before, *after})}
    return {kind: gap for kind, gap in gaps.items() if gap}


class _Comparison:
    """Accumulates one certificate over batches."""

    def __init__(
        self,
        placed: Network,
        written: Written,
        rules: Rules,
        kernels: dict[str, str],
        against: Against,
    ) -> None:
        self.placed, self.written, self.against = placed, written, against
        shown = written.codes if against != "outputs" else {}
        calls = {s: n for s, n in quantizer_calls(placed).items() if s in shown}
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
        self.layers = {
            path: LayerParity(site=path, kernel=_kernel(written.dynamic.get(path, ()), kernels))
            for path in (_dynamic_calls(placed) if against != "outputs" else ())
        }
        self.watch: PairSumWatch | None = None
        self.samples = 0
        self.free_output = self.forced_output = self.probe_output = OutputParity()

    def compare(self, batch: Batch, shipped: Arrays, probed: Arrays) -> None:
        inputs = list(batch.inputs.values())
        self.samples += batch.size
        for name, values in shipped.items():
            self.probe_output = self.probe_output.add(values, probed[name])

        def note_free(site: str, codes: Tensor) -> None:
            if site in self.free:
                theirs = probed[self.written.codes[site]]
                self.free[site] = self.free[site].add(codes.numpy(), theirs)

        watch = self.watch
        look = None if watch is None or not watch.needs_data else watch.observe
        run = run_in_integers(self.placed, *inputs, on_codes=note_free, on_input=look)
        outputs = _tensors(run)
        if watch is not None:
            watch.count(batch.size)
        self.free_output = _added(self.free_output, outputs, shipped)
        if self.layers or any(row.differing for row in self.free.values()):
            outputs = self._forced_outputs(inputs, probed)
        else:
            self.forced = dict(self.free)
        # The referee was given the codes of the file with visible codes: its outputs are the ones to equal.
        visible = {name: probed[name] for name in shipped}
        self.forced_output = _added(self.forced_output, outputs, visible)

    def _forced_outputs(self, inputs: list[Tensor], probed: Arrays) -> list[Tensor]:
        def force(site: str, codes: Tensor) -> Tensor | None:
            if site not in self.free:
                return None
            theirs = probed[self.written.codes[site]]
            self.forced[site] = self.forced[site].add(codes.numpy(), theirs)
            return torch.from_numpy(theirs.astype(np.int32))

        def force_layer(path: str, call: int, x: Tensor) -> Tensor | None:
            calls = self.written.dynamic.get(path, ())
            if not calls:
                return None
            # Calls on the same input are one call in the file.
            at = calls[min(call, len(calls) - 1)]
            given, got = torch.from_numpy(probed[at.input]), probed[at.output]
            ours, sizes = dynamic_output(self.placed, path, given)
            before = OutputParity().add(x.numpy(), probed[at.input]).relative_error
            row = self.layers[path]
            self.layers[path] = row.add(ours.numpy(), got, sizes.numpy(), before)
            return torch.from_numpy(got)

        return _tensors(run_forced(self.placed, *inputs, on_codes=force, on_dynamic=force_layer))

    def certificate(
        self, tolerances: Tolerances, operators: dict[str, int], changed: dict[str, int]
    ) -> Certificate:
        rows, layers = tuple(self.forced.values()), tuple(self.layers.values())
        free = sum(r.differing for r in self.free.values())
        probe_agrees = self.probe_output.relative_error <= tolerances.probe_error
        bad = self._first_bad(tolerances)
        if bad is None and not probe_agrees:
            bad = "the file with its codes made visible gives other outputs than the file itself"
        # Where no site has codes, equal outputs are what is left to be equal.
        equal = self.free_output.differing == 0 if layers or not rows else True
        exact = free == 0 and equal and self.probe_output.error2 == 0
        exact = exact and not any(row.differing for row in layers)
        verdict: Verdict = "failed" if bad else "exact" if exact else "within tolerance"
        return Certificate(
            verdict=verdict,
            against=self.against,
            samples=self.samples,
            rows=rows,
            layers=layers,
            free_running_differing=free,
            free_running=self.free_output,
            forced=self.forced_output,
            probe_agrees=probe_agrees,
            probe_operators=changed,
            first_difference=bad,
            tolerances=tolerances,
            operators=operators,
            unfused=self.unfused,
        )

    def _first_bad(self, tolerances: Tolerances) -> str | None:
        """The first site, in graph order, that is not acceptable; ``output`` when only the outputs are not."""
        rows = {
            **{call: self.forced.get(site) for site, call in quantizer_calls(self.placed).items()},
            **{n: self.layers.get(path) for path, n in _dynamic_calls(self.placed).items()},
        }
        for node in self.placed.graph.nodes:
            row = rows.get(node)
            if row is not None and not row.within(tolerances):
                return row.site
        return None if self.forced_output.relative_error <= tolerances.output_error else "output"


def _tensors(outputs: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(outputs) if isinstance(t, Tensor)]


def _added(found: OutputParity, outputs: list[Tensor], shipped: Arrays) -> OutputParity:
    for ours, theirs in zip(outputs, shipped.values(), strict=True):
        found = found.add(ours.numpy(), theirs)
    return found


def _dynamic_calls(placed: Network) -> dict[str, Node]:
    """The first call of each layer that finds its range while it runs, by path, in graph order."""
    found: dict[str, Node] = {}
    for node in placed.graph.nodes:
        layer = placed.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, Treated) and layer.treatment.mode == "dynamic":
            found.setdefault(str(node.target), node)
    return found


def _kernel(calls: Sequence[LayerValues], kernels: dict[str, str]) -> str:
    return kernels.get(calls[0].output, "") if calls else ""


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


__all__ = [
    "Certificate",
    "LayerParity",
    "OutputParity",
    "SiteParity",
    "Tolerances",
    "certify",
]
