"""Cheap comparisons on a few calibration samples: which calibrator loses least."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kompakt.measuring.data import Batch
from kompakt.network.network import Network
from kompakt.observe import OBSERVERS
from kompakt.progress import track
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.place import plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.search.candidates import Candidate, static
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench, method_batches

RANKING_SAMPLES = 16


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
        error = corrected_error(trial, bench.prepared, reference, batches)
        ranked.append((static(name, keep_float), error))
    return sorted(ranked, key=lambda pair: pair[1])


def corrected_error(
    placed: Network,
    source: Network,
    reference: Sequence[list[Tensor]],
    batches: Sequence[Batch],
) -> float:
    """Simulated output error once the biases are corrected, in place.

    Args:
        placed: A placed network with ranges.
        source: The float network it was placed from.
        reference: The float network's outputs.
        batches: What they were found on.
    """
    correct_biases_(placed, source, method_batches(batches))
    return output_error(placed, reference, batches)
