"""Whether there is enough calibration data, and what more of it would bring."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from kompakt.errors import SchemeError
from kompakt.measuring.data import Batch
from kompakt.observe.statistics import EdgeStatistics
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.place import plan_of
from kompakt.search.candidates import static
from kompakt.search.ranking import float_outputs, output_error
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench, method_batches

COMPARED = 16
"""Samples in each of the halves between which the output error is compared."""
WIDENS = 0.05
"""Share by which a range would still widen that counts."""
GAP = 0.15
"""Share by which the error on other samples exceeds that on the same ones that counts."""
FEW = 8


def enough_data(bench: Workbench) -> list[str]:
    """Say what more calibration samples would bring, in sentences.

    Two things are looked at: how much the ranges grew while the second half of the samples was seen (no pass over the
    data), and how much larger the output error is on samples that biases were not corrected on (two short passes).

    Args:
        bench: A workbench with calibration data.

    Returns:
        One or two sentences; none where no range is calibrated.
    """
    if not bench.has_data:
        return []
    try:
        plan = plan_of(bench.place(static("minmax")))
    except SchemeError:
        return []
    seen = bench.calibrated(plan.taps)
    if seen.samples < 2:
        return [
            "one calibration sample tells nothing about how others differ: the ranges are a guess, "
            f"and {FEW} samples would already tell a lot"
        ]
    return [_about_ranges(seen.statistics, seen.samples), *_about_biases(bench)]


def expected_growth(statistics: EdgeStatistics) -> float:
    """By what share the largest magnitude is expected to grow from half of the samples to all of them.

    The same share is a guess of what twice as many would add. Exact for the samples at hand: of n samples in random
    order, the i-th largest is the largest of the first half with a chance that halves (nearly) with every i.
    """
    values = np.sort(statistics.sample_absmax.astype(np.float64))[::-1]
    count, half = len(values), len(values) // 2
    if half < 1 or values[0] <= 0:
        return 0.0
    expected, left = 0.0, 1.0
    for i, value in enumerate(values):
        # The chance that it is in the half, none of the larger ones being there.
        chance = half / (count - i) if i < count - half else 1.0
        expected += left * chance * value
        left *= 1 - chance
    return float(values[0] / expected - 1) if expected > 0 else 0.0


def _about_ranges(found: Mapping[str, EdgeStatistics], samples: int) -> str:
    growth = {site: expected_growth(s) for site, s in found.items()}
    moving = sorted((g, site) for site, g in growth.items() if g > WIDENS)
    if not moving:
        most = max(growth.values(), default=0.0)
        return (
            f"{samples} calibration samples are enough for the ranges: twice as many would widen none "
            f"by more than {max(most, 0.001):.1%}"
        )
    largest, site = moving[-1]
    return (
        f"{samples} calibration samples: {len(moving)} of {len(growth)} ranges still grow; twice as many samples "
        f"would widen that of {site} by about {largest:.0%}"
    )


def _about_biases(bench: Workbench) -> list[str]:
    """What biases corrected on some samples leave on the same ones and on others."""
    rows = spread_rows(bench.samples, 2 * COMPARED, bench.prepared.input_specs)
    ones, others = _halves(rows, bench)
    if not ones or not others:
        return []
    placed = copy.deepcopy(bench.place(static("minmax")))
    correct_biases_(placed, bench.prepared, method_batches(ones))
    same = output_error(placed, float_outputs(bench.prepared, ones), ones)
    unseen = output_error(placed, float_outputs(bench.prepared, others), others)
    counts = [sum(batch.size for batch in half) for half in (ones, others)]
    measured = (
        f"biases corrected on {counts[0]} samples leave an output error of {same:.3g} there and of {unseen:.3g} on "
        f"{counts[1]} others"
    )
    if unseen > same * (1 + GAP):
        return [f"{measured}: more samples would bring something"]
    return [f"{measured}: more samples would bring little"]


def _halves(rows: Sequence[Batch], bench: Workbench) -> tuple[list[Batch], list[Batch]]:
    """Every other row, and the rest; one row a batch where the network takes any number."""
    singles: list[Batch] = []
    symbol = bench.prepared.input_specs[0].shape[0] if bench.prepared.input_specs[0].shape else None
    for batch in rows:
        if not isinstance(symbol, str) or batch.size == 1:
            singles.append(batch)
            continue
        for row in range(batch.size):
            inputs = {
                name: t[row : row + 1] if t.dim() and t.shape[0] == batch.size else t
                for name, t in batch.inputs.items()
            }
            singles.append(Batch(inputs, None, 1))
    return singles[::2], singles[1::2]


__all__ = ["enough_data", "expected_growth"]
