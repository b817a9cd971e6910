"""Why plain static INT8 costs what it costs, for a network that something else was chosen for."""

from __future__ import annotations

from dataclasses import dataclass

from kompakt.errors import SchemeError
from kompakt.measuring.sites import diagnose, site_rows
from kompakt.network.layers import layers
from kompakt.observe import calibrate
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.search.candidates import Candidate, static
from kompakt.search.ranking import RANKING_SAMPLES, float_outputs, output_error
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench

SENTENCES = 3
"""How many sites are named."""


@dataclass(frozen=True, kw_only=True)
class StaticDiagnosis:
    """What a simulation of plain static INT8 shows.

    Attributes:
        candidate: What was simulated.
        error: Simulated relative error of the outputs.
        summary: The error in words.
        sentences: The same, and where the error arises, worst first.
    """

    candidate: Candidate
    error: float
    summary: str
    sentences: list[str]


def diagnose_static(bench: Workbench, keep_float: tuple[str, ...]) -> StaticDiagnosis | None:
    """Simulate plain static INT8 on the few samples at hand; no file is written and no other data read.

    Returns:
        None where the network has no static layer, or there are no samples.
    """
    samples = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
    candidate = static("mse", keep_float)
    try:
        placed = place(bench.prepared, candidate.scheme, bench.rules)
    except SchemeError:
        return None
    if not samples or not plan_of(placed).taps:
        return None
    with bench.clock.stage("diagnose"):
        seen = calibrate(bench.prepared, plan_of(placed).taps, (b.inputs for b in bench.samples))
        set_ranges_(placed, seen, "mse")
        error = output_error(placed, float_outputs(bench.prepared, samples), samples)
        facts = {row.name: row for row in layers(bench.prepared)}
        causes = diagnose(site_rows(placed, facts, seen))[:SENTENCES]
    count = sum(batch.size for batch in samples)
    summary = f"simulated on {count} calibration samples, its outputs are off by {error:.1%}"
    whole = f"plain static INT8 was not chosen; {summary}"
    return StaticDiagnosis(
        candidate=candidate,
        error=error,
        summary=summary,
        sentences=[whole, *(f"in plain static INT8, {cause}" for cause in causes)],
    )
