"""The diagnosis of what a job chose, in a few seconds: fewer samples and fewer remedies than the command tries."""

from __future__ import annotations

from collections.abc import Iterable

from kompakt.errors import KompaktError
from kompakt.measuring.data import Batch, prepare
from kompakt.quantize.place import plan_of
from kompakt.search.diagnosing import Diagnosis, diagnose_subject
from kompakt.search.examination import two_parts
from kompakt.search.remedies import Subject
from kompakt.search.workbench import Build, Workbench

ROWS = 8
"""Rows of data to measure on."""
CANDIDATES = 2
"""Sites whose remedies are tried."""
MOST_ALONE = 16
"""Sites that are measured alone."""


def diagnose_build(
    bench: Workbench, build: Build, data: Iterable[Batch] | None
) -> Diagnosis | None:
    """Where the error of a built candidate arises, and what would help.

    Args:
        bench: What built it.
        build: The candidate.
        data: Data it was not calibrated with; calibration samples are used without.

    Returns:
        None where nothing is quantized, or there is too little data.
    """
    if not any(plan_of(build.placed).quantized()):
        return None
    network = bench.prepared
    try:
        rows = prepare(data if data is not None else list(bench.samples), network.input_specs)
        measured, fresh = two_parts(rows, network, ROWS)
        subject = Subject(
            placed=build.placed,
            reference=build.reference,
            scheme=build.candidate.scheme,
            rules=bench.rules,
            batches=measured,
            calibration=build.calibration,
            calibrator=build.candidate.calibrator or "mse",
            saturates=False,  # what saturates elsewhere was found before the file was written
            fresh=fresh,
            judges_calibration=data is not None,
        )
        return diagnose_subject(subject, candidates=CANDIDATES, most_alone=MOST_ALONE)
    except KompaktError:
        return None


__all__ = ["diagnose_build"]
