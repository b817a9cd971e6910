"""Whether ``kompakt.diagnose`` names the faults that were planted in good models."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.grounds import Case, Ground
from benchmarks.planting import Planter
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe import calibrate
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.ranges import set_ranges_
from kompakt.search.diagnosing import Diagnosis
from kompakt.search.examination import Known, examine
from kompakt.targets import get_target


def diagnosis_of(ground: Ground, case: Case) -> Diagnosis:
    """Diagnose a case."""
    network = capture(case.model, ground.example)
    known = Known(
        scheme=case.scheme,
        target="onnxruntime",
        isa=case.isa,
        calibrator=case.calibrator,
        ranges=_grids(network, case) if case.ranges else {},
    )
    return examine(network, known, case.data, case.calibration, ground.samples)


def _grids(network: Network, case: Case) -> dict[str, tuple[float, int]]:
    """Scales and zero points of ranges that were stretched or cut by a factor."""
    prepared = inference_form(network)
    placed = place(prepared, case.scheme, get_target("onnxruntime").rules(case.isa))
    taps = plan_of(placed).taps
    set_ranges_(placed, calibrate(prepared, taps, case.calibration), case.calibrator)
    found = {}
    for site in plan_of(placed).quantized("activation"):
        if site.name in case.ranges:
            quantizer = placed.get_submodule(str(site.quantizer))
            assert isinstance(quantizer, Quantizer)
            scale, zero = quantizer.parameters_()
            found[site.name] = (float(scale) * case.ranges[site.name], int(zero))
    assert set(found) == set(case.ranges), case.ranges
    return found


def hit(found: Diagnosis, case: Case) -> bool:
    """Whether the right cause at the right place comes first."""
    if not found.causes or not found.causes[0].fault:
        return False
    first = found.causes[0].cause
    return first.code in case.codes and (not case.sites or first.site in case.sites)


FAULTS: tuple[str, ...] = (
    "outlier_channel", "uneven_channels", "weight_outlier", "weight_channel_outlier", "clipped", "too_wide",
    "gate_clipped", "shared_range", "coarse_weights", "nan_weights", "denormal_weights", "constant_calibration",
    "scaled_calibration", "shifted_calibration", "unlike_calibration", "few_samples",
    "wrong_everywhere", "saturation",
)  # fmt: skip


def faults_for(ground: Ground) -> list[str]:
    """The faults that can be planted in a model."""
    left = set(ground.without)
    if not ground.gates:
        left.add("gate_clipped")
    if not ground.branches:
        left.add("shared_range")
    return [name for name in FAULTS if name not in left]


def planted(ground: Ground, fault: str, seed: int, strength: float = 1.0) -> Case:
    """One variation of a fault."""
    with torch.no_grad():
        plant: Callable[[], Case] = getattr(Planter(ground, seed, strength), fault)
        return plant()


HARMFUL = 2.0
"""A fault multiplies the output error of the unchanged model by so much, or it is none."""
HARMLESS = ("nan_weights", "wrong_everywhere")
"""Faults of the float model itself: no comparison with it shows them."""


def judged(ground: Ground, fault: str, seed: int, clean: float) -> tuple[Case, Diagnosis]:
    """A variation that does harm, with its diagnosis: where it does none it is made stronger, then drawn anew.

    Args:
        ground: The model.
        fault: The fault.
        seed: Of the variation.
        clean: Output error of the unchanged model.
    """
    for again in range(4):
        for strength in (1.0, 2.0, 4.0):
            case = planted(ground, fault, seed + 100 * again, strength)
            found = diagnosis_of(ground, case)
            if fault in HARMLESS or (found.output_error or 1.0) >= HARMFUL * max(clean, 0.01):
                return case, found
    return case, found


__all__ = ["FAULTS", "diagnosis_of", "faults_for", "hit", "judged", "planted"]
