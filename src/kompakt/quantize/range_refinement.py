"""Range refinement: every activation gets the range with which the layers that read it err least.

What it does
    Each calibrator is right somewhere: min-max where rare large values decide, others where they do not. Here every
    range is tried on what it is for: the layers that read the tensor are run on it, rounded, and their outputs are
    compared with those of the unrounded tensor. The range that was there, those of all calibrators and some narrower
    ones compete. In the end the network with the new ranges, its biases corrected, must be closer to the float one, or
    the old ones stay.
When to use
    Static schemes, behind any calibrator; most where tensors differ in kind, as in transformers. Costs no speed.
Cost
    Two passes over a few dozen samples; in the second every layer runs once for each range, about ten times. Then
    biases are corrected two or three times, to see what remains.
Formula
    r* = argmin_r Σ_l ‖f_l(Q_r(x)) − f_l(x)‖² / ‖f_l(x)‖² over the samples, l the operators that read x, with the
    weights as the float network has them.
Limits
    Ranges are judged one tensor at a time, so what two errors do together is only seen by the check at the end. The
    same samples choose and check. Tensors that share a quantizer get one range. Quantizers whose scale the runtime
    fixes stay.
Reference
    Nagel et al., A White Paper on Neural Network Quantization, arXiv:2106.08295, section 3.1 (ranges by the error of
    the tensor itself, or of the network's output).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.numerics.affine import choose_qparams
from kompakt.observe import OBSERVERS, Calibration, calibrate
from kompakt.progress import note
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.method import Batches
from kompakt.quantize.place import calls_by_quantizer, is_quantizer_call, plan_of, quantizer_of
from kompakt.quantize.quantizer import Quantizer, stage

CLIPS = (0.9, 0.8, 0.65, 0.5)
"""Shares of the widest range that are tried besides."""
GAIN = 0.99
"""A range replaces the one that was there when its error is below this share of it."""
GREAT_GAIN = 0.8
"""Those below this share are also tried alone."""

Parameters = tuple[Tensor, Tensor]
"""Scale and zero point."""


def refine_ranges_(placed: Network, reference: Network, batches: Batches) -> int:
    """Give activations the ranges their readers err least with, in place.

    Args:
        placed: A placed network whose quantizers have ranges; not yet frozen.
        reference: The float network it was placed from.
        batches: A few dozen samples.

    Returns:
        How many quantizers got another range.
    """
    paths = calls_by_quantizer(placed)
    movable = {path: _quantizer(placed, path) for path in paths}
    movable = {path: q for path, q in movable.items() if q.calibrated and not q.fixed}
    if not batches or not movable:
        return 0
    names = [spec.name for spec in placed.input_specs]
    with torch.no_grad():
        with stage(placed, "off"):
            data = (dict(zip(names, inputs, strict=True)) for inputs in batches)
            seen = calibrate(placed, plan_of(placed).taps, data)
        tried = {
            path: _candidates(quantizer, paths[path], seen) for path, quantizer in movable.items()
        }
        best = _best(placed, tried, batches)
        return _keep_if_better(placed, reference, batches, movable, best)


def _quantizer(placed: Network, path: str) -> Quantizer:
    found = placed.get_submodule(path)
    assert isinstance(found, Quantizer)
    return found


def _candidates(quantizer: Quantizer, sites: list[str], seen: Calibration) -> list[Parameters]:
    """Different parameters to try, those that are there first."""
    known = [seen.statistics[site] for site in dict.fromkeys(sites) if site in seen.statistics]
    ranges: list[tuple[float, float]] = []
    for observer in OBSERVERS.values():
        found = [observer.range(s, quantizer.format, quantizer.symmetric) for s in known]
        if found:
            ranges.append((min(low for low, _ in found), max(high for _, high in found)))
    widest = (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else (0, 0)
    ranges += [(share * widest[0], share * widest[1]) for share in CLIPS]
    tried = [quantizer.parameters_()]
    for low, high in ranges:
        scale, zero_point = choose_qparams(
            torch.tensor(low, dtype=torch.float32),
            torch.tensor(high, dtype=torch.float32),
            quantizer.format,
            symmetric=quantizer.symmetric,
        )
        if not any(torch.equal(scale, s) and int(zero_point) == int(z) for s, z in tried):
            tried.append((scale, zero_point))
    return tried


def _best(
    placed: Network, tried: dict[str, list[Parameters]], batches: Batches
) -> dict[str, tuple[float, Parameters]]:
    """For each quantizer that has something better than what is there: the share of the error left, and the best."""
    trial = _Trial(placed, tried)
    with stage(placed, "off"):
        for inputs in batches:
            trial.run(*inputs, enable_io_processing=False)
    better = {}
    for path, errors in trial.errors.items():
        least = int(errors.argmin())
        if float(errors[least]) < GAIN * float(errors[0]):
            better[path] = float(errors[least] / errors[0]), tried[path][least]
    return better


class _Trial(fx.Interpreter):
    """Runs the float network and, for every reader of a quantized tensor, what each range makes of its output."""

    def __init__(self, placed: Network, tried: dict[str, list[Parameters]]) -> None:
        super().__init__(placed)
        self.network, self.tried = placed, tried
        self.errors = {
            path: torch.zeros(len(found), dtype=torch.float64) for path, found in tried.items()
        }

    def run_node(self, n: Node) -> Any:
        """Run one node, then once more for every range of every input it reads."""
        result = super().run_node(n)
        if n.op not in ("call_module", "call_function") or not _floating(result):
            return result
        if is_quantizer_call(self.network, n):
            return result
        for source in n.all_input_nodes:
            path = str(source.target)
            if is_quantizer_call(self.network, source) and path in self.tried:
                self.errors[path] += self._errors(n, source, path, result)
        return result

    def _errors(self, node: Node, source: Node, path: str, exact: Tensor) -> Tensor:
        x = self.env[source]
        quantizer = quantizer_of(self.network, source)
        norm = max(float(exact.double().square().sum()), 1e-300)
        errors = []
        for scale, zero_point in self.tried[path]:
            self.env[source] = _rounded(quantizer, x, scale, zero_point)
            other = super().run_node(node)
            errors.append(float((other - exact).double().square().sum()) / norm)
        self.env[source] = x
        return torch.tensor(errors, dtype=torch.float64)


def _floating(result: Any) -> bool:
    return isinstance(result, Tensor) and result.is_floating_point()


def _rounded(quantizer: Quantizer, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    fmt = quantizer.format
    result: Tensor = torch.ops.kompakt.qdq(
        x,
        scale,
        zero_point.to(fmt.torch_dtype),
        int(fmt.qmin),
        int(fmt.qmax),
        quantizer.axis,
        quantizer.rounding,
    )
    return result


def _keep_if_better(
    placed: Network,
    reference: Network,
    batches: Batches,
    movable: dict[str, Quantizer],
    gains: dict[str, tuple[float, Parameters]],
) -> int:
    """Use the new ranges, or those that promise most, where the network's outputs come closer; returns how many."""
    before = {path: movable[path].parameters_() for path in gains}
    least, chosen = _output_error(placed, reference, batches), dict[str, Parameters]()
    for share in (1.0, GREAT_GAIN):
        some = {path: found for path, (gain, found) in gains.items() if gain < share}
        if not some or some.keys() == chosen.keys():
            continue
        _set(movable, before | some)
        error = _output_error(placed, reference, batches)
        note(f"output error {error:.4g} with {len(some)} other ranges", "refining ranges")
        if error < least:
            least, chosen = error, some
    _set(movable, before | chosen)
    return len(chosen)


def _set(movable: dict[str, Quantizer], found: dict[str, Parameters]) -> None:
    for path, (scale, zero_point) in found.items():
        movable[path].set_parameters(scale, zero_point)


def _output_error(placed: Network, reference: Network, batches: Batches) -> float:
    """Relative error of the outputs once biases are corrected: what they can give back does not count."""
    corrected = copy.deepcopy(placed)
    correct_biases_(corrected, reference, batches)
    total = norm = 0.0
    with stage(corrected, "simulate"):
        for inputs in batches:
            pairs = zip(corrected.call_flat(inputs), reference.call_flat(inputs), strict=True)
            for ours, exact in pairs:
                if _floating(exact):
                    total += float((ours - exact).double().square().sum())
                    norm += float(exact.double().square().sum())
    return math.sqrt(total / max(norm, 1e-300))


__all__ = ["refine_ranges_"]
