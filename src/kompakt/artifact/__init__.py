"""The directory that ships: model files, manifest, calibration sketch, golden pack, report.

A directory is written whole or not at all (:func:`write_artifact`), and opened only when every byte
is the one that was written (:func:`open_artifact`, :func:`verify`).
"""

from kompakt.artifact.arrays import arrays_from_bytes, arrays_to_bytes
from kompakt.artifact.golden import (
    GoldenBatch,
    GoldenBuilder,
    GoldenPack,
    golden_samples,
)
from kompakt.artifact.output import OutputClaim, claim_output
from kompakt.artifact.reading import Artifact, open_artifact
from kompakt.artifact.replay import GoldenComparison, SiteDifference, compare_golden
from kompakt.artifact.verify import Problem, VerifyReport, verify
from kompakt.artifact.writing import write_artifact

__all__ = [
    "Artifact",
    "GoldenBatch",
    "GoldenBuilder",
    "GoldenComparison",
    "GoldenPack",
    "OutputClaim",
    "Problem",
    "SiteDifference",
    "VerifyReport",
    "arrays_from_bytes",
    "arrays_to_bytes",
    "claim_output",
    "compare_golden",
    "golden_samples",
    "open_artifact",
    "verify",
    "write_artifact",
]
