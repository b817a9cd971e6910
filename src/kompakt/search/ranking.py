"""Cheap comparisons on a few calibration samples: which calibrator, and which layers need dynamic ranges."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kompakt.measuring.data import Batch
from kompakt.network.network import Network
from kompakt.observe import OBSERVERS, expected_sqnr_db
from kompakt.progress import track
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.place import is_quantizer_call, plan_of, quantizer_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.schemes import Treatment
from kompakt.search.candidates import Candidate, static
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench, method_batches

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the linear layers that hybrid candidates compute with dynamic ranges."""
DYNAMIC = Treatment(mode="dynamic", weight="int8_narrow", activation="uint8")
RANKING_SAMPLES = 16
NOTICEABLE_ERROR = 0.05
"""Relative output error above which plain static quantization is worth improving on."""


def output_error(
    network: Network, reference: Sequence[list[Tensor]], batches: Sequence[Batch]
) -> float:
    """Relative error of a simulated network's outputs, ‖simulated − float‖ / ‖float‖."""
    error = norm = 0.0
    with torch.no_grad():
        for batch, expected in zip(batches, reference, strict=True):
            for ours, theirs in zip(
                network.call_flat(list(batch.inputs.values())), expected, strict=True
            ):
                error += float((ours.double() - theirs.double()).square().sum())
                norm += float(theirs.double().square().sum())
    return math.sqrt(error / max(norm, 1e-300))


def float_outputs(network: Network, batches: Sequence[Batch]) -> list[list[Tensor]]:
    """The float network's outputs, batch by batch."""
    with torch.no_grad():
        return [network.call_flat(list(batch.inputs.values())) for batch in batches]


def rank_calibrators(
    bench: Workbench, keep_float: tuple[str, ...]
) -> list[tuple[Candidate, float]]:
    """Static candidates, one for each calibrator, best first, with their simulated output error.

    The error is that of the network whose biases are corrected, for that is what is likely to ship: before the
    correction, shifted means hide the differences between ranges.
    """
    batches = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
    reference = float_outputs(bench.prepared, batches)
    placed = bench.place(static("minmax", keep_float))
    calibration = bench.calibrated(plan_of(placed).taps)
    ranked = []
    for name in track(list(OBSERVERS), "comparing calibrators"):
        trial = copy.deepcopy(placed)
        set_ranges_(trial, calibration, name)
        error = _corrected_error(bench, trial, reference, batches)
        ranked.append((static(name, keep_float), error))
    return sorted(ranked, key=lambda pair: pair[1])


def _corrected_error(
    bench: Workbench, placed: Network, reference: Sequence[list[Tensor]], batches: Sequence[Batch]
) -> float:
    """Simulated output error once the biases are corrected, in place."""
    correct_biases_(placed, bench.prepared, method_batches(batches))
    return output_error(placed, reference, batches)


def hybrids(bench: Workbench, plain: Candidate, error: float) -> list[tuple[Candidate, float]]:
    """Static candidates whose worst linear layers take dynamic ranges instead.

    Args:
        bench: The workbench.
        plain: The best plain static candidate.
        error: Its simulated output error, from :func:`rank_calibrators`.

    Returns:
        At most two, with their errors found in the same way: the cheapest one that halves the error, and the most
        accurate one. None when no one is better than ``plain``.
    """
    worst = layers_by_input_quality(bench, plain)
    if not worst or error < NOTICEABLE_ERROR:
        return []
    batches = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
    reference = float_outputs(bench.prepared, batches)
    found: list[tuple[Candidate, float]] = []
    for count in sorted({max(1, round(len(worst) * share)) for share in SHARES}):
        scheme = plain.scheme
        for layer in worst[:count]:
            scheme = scheme.with_override(layer, DYNAMIC)
        candidate = Candidate(
            name=f"{plain.name}, {count} of {len(worst)} layers dynamic",
            level=2,
            scheme=scheme,
            calibrator=plain.calibrator,
            why=f"the inputs of {count} layers have outliers no fixed range serves",
        )
        placed = bench.place(candidate)
        found.append((candidate, _corrected_error(bench, placed, reference, batches)))
    best = min(found, key=lambda pair: pair[1])
    if not best[1] < error:
        return []
    enough = next((pair for pair in found if pair[1] <= error / 2), best)
    return [enough] if enough is best else [enough, best]


def layers_by_input_quality(bench: Workbench, candidate: Candidate) -> list[str]:
    """Static linear layers, those whose quantized input loses most (lowest SQNR) first."""
    placed = bench.place(candidate)
    calibration = bench.calibration
    quality: dict[str, float] = {}
    for node in placed.graph.nodes:
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not is_quantizer_call(placed, source):
            continue
        layer = placed.get_submodule(str(node.target))
        treatment = getattr(layer, "treatment", None)
        dynamic = treatment is not None and isinstance(layer, torch.nn.Linear)
        if not dynamic or calibration is None:
            continue
        quantizer = quantizer_of(placed, source)  # type: ignore[arg-type]
        statistics = calibration.statistics[quantizer.site]
        low, high = quantizer.represented_range()
        quality[str(node.target)] = expected_sqnr_db(statistics, low, high, quantizer.format)
    return sorted(quality, key=quality.__getitem__)
