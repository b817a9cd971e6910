"""Comparing a replay of the golden pack with what it must give.

Run :attr:`GoldenPack.batches` in the same batches through a second
:class:`~kompakt.artifact.golden.GoldenBuilder` and compare the two packs. The first quantizer that
differs is the cause; what follows it differs because its input does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kompakt.artifact.golden import Array, GoldenPack


@dataclass(frozen=True, kw_only=True)
class SiteDifference:
    """A quantizer whose codes differ.

    Attributes:
        site: Its name.
        samples: How many samples differ.
        codes: How many codes of the first sample differ; ``None`` when those were not stored.
        largest: The largest difference among them.
    """

    site: str
    samples: int
    codes: int | None
    largest: int | None


@dataclass(frozen=True, kw_only=True)
class GoldenComparison:
    """What a replay gave.

    Attributes:
        sites: How many quantizers were compared.
        differences: Those that differ, in network order: the first is the cause.
        missing: Sites that only one of the two packs has.
        output_relative_error: Largest over the outputs of ‖found − expected‖ / ‖expected‖; infinite
            when an output is missing or has another shape.
        outputs_equal: Whether every output has the expected bits.
        output_tolerance: The relative error of the outputs that is accepted.
    """

    sites: int
    differences: tuple[SiteDifference, ...]
    missing: tuple[str, ...]
    output_relative_error: float
    outputs_equal: bool
    output_tolerance: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether every code and every output is as expected."""
        return self.outputs_equal and not self.differences and not self.missing

    @property
    def agrees(self) -> bool:
        """Whether every code is as expected and every output to the tolerance.

        Float operators give other last bits on other processors; integer codes do not.
        """
        same_codes = not self.differences and not self.missing
        close = self.outputs_equal or self.output_relative_error <= self.output_tolerance
        return same_codes and close


def compare_golden(
    expected: GoldenPack, found: GoldenPack, output_tolerance: float = 0.0
) -> GoldenComparison:
    """Compare a replay with the pack it replays; both must have been run in the same batches.

    Args:
        expected: What it must give.
        found: What it gave.
        output_tolerance: The relative error of the outputs that is accepted.
    """
    shared = [site for site in expected.digests if site in found.digests]
    differences = [_site_difference(site, expected, found) for site in shared]
    missing = [site for site in (*expected.digests, *found.digests) if site not in shared]
    errors, equal = [0.0], len(expected.batches) == len(found.batches)
    for wanted, given in zip(expected.batches, found.batches, strict=False):
        for name, array in wanted.outputs.items():
            other = given.outputs.get(name)
            errors.append(_relative_error(array, other))
            equal = equal and other is not None and _same_bits(array, other)
    return GoldenComparison(
        sites=len(shared),
        differences=tuple(difference for difference in differences if difference),
        missing=tuple(missing),
        output_relative_error=max(errors)
        if len(expected.batches) == len(found.batches)
        else np.inf,
        outputs_equal=equal,
        output_tolerance=output_tolerance,
    )


def _site_difference(site: str, expected: GoldenPack, found: GoldenPack) -> SiteDifference | None:
    wanted, given = expected.digests[site], found.digests[site]
    if wanted.shape != given.shape:
        return SiteDifference(site=site, samples=len(wanted), codes=None, largest=None)
    samples = int((wanted != given).any(axis=1).sum())
    if not samples:
        return None
    first, other = expected.codes.get(site), found.codes.get(site)
    if first is None or other is None or first.shape != other.shape:
        return SiteDifference(site=site, samples=samples, codes=None, largest=None)
    gap = np.abs(first.astype(np.int64) - other.astype(np.int64))
    return SiteDifference(
        site=site, samples=samples, codes=int((gap != 0).sum()), largest=int(gap.max(initial=0))
    )


def _same_bits(wanted: Array, given: Array) -> bool:
    same_form = wanted.dtype == given.dtype and wanted.shape == given.shape
    return same_form and wanted.tobytes() == given.tobytes()


def _relative_error(wanted: Array, given: Array | None) -> float:
    if given is None or wanted.shape != given.shape:
        return float("inf")
    if _same_bits(wanted, given):
        return 0.0
    reference = wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity − infinity is caught below
        gap = np.linalg.norm((given.astype(np.float64) - reference).ravel())
    if gap == 0:
        return 0.0
    size = np.linalg.norm(reference.ravel())
    return float(gap / size) if size > 0 and np.isfinite(gap) else float("inf")
