"""Quantizing a network: placing quantizers by a runtime's rules, giving them ranges, and methods that improve them.

:data:`METHODS` is the registry of methods: those that work on the float network give back a changed copy that computes
the same function; those that work on the placed network edit it in place.
"""

from __future__ import annotations

from kompakt.quantize.activation_aware_scaling import scale_by_activations
from kompakt.quantize.adaround import adaround_
from kompakt.quantize.analytic_bias_correction import correct_biases_analytically_
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.equalization import equalize
from kompakt.quantize.gptq import compensate_
from kompakt.quantize.method import Batches, Method
from kompakt.quantize.outlier_splitting import split_outliers
from kompakt.quantize.range_refinement import refine_ranges_
from kompakt.quantize.reconstruction import reconstruct_
from kompakt.quantize.smoothing import smooth
from kompakt.quantize.weight_ranges import search_weight_ranges_

METHODS: dict[str, Method] = {
    "equalize": Method(run=equalize, works_on="float", samples=128),
    "split_outliers": Method(run=split_outliers, works_on="float", samples=64),
    "smooth": Method(run=smooth, works_on="float", samples=64),
    "awq": Method(run=scale_by_activations, works_on="float", samples=64),
    "refine_ranges": Method(run=refine_ranges_, works_on="placed", samples=16),
    "analytic_bias_correction": Method(
        run=correct_biases_analytically_, works_on="placed", samples=0
    ),
    "weight_ranges": Method(run=search_weight_ranges_, works_on="placed", samples=0),
    "gptq": Method(run=compensate_, works_on="placed", samples=128),
    "adaround": Method(run=adaround_, works_on="placed", samples=512),
    "reconstruction": Method(run=reconstruct_, works_on="placed", samples=512),
    "bias_correction": Method(run=correct_biases_, works_on="placed", samples=64),
}

__all__ = ["METHODS", "Batches", "Method"]
