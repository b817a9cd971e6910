"""What calibration found: statistics of every site and scalars of every input; mergeable."""

from __future__ import annotations

from dataclasses import dataclass, field

from kompakt.errors import DataError
from kompakt.observe.input_scalars import InputScalars
from kompakt.observe.statistics import EdgeStatistics


@dataclass(kw_only=True)
class Calibration:
    """What one pass (or several, merged) over calibration data found.

    Attributes:
        statistics: Statistics of every observed site.
        inputs: Scalars per sample of every input.
        samples: Samples seen.
        batches: Batches seen.
    """

    statistics: dict[str, EdgeStatistics] = field(default_factory=dict)
    inputs: dict[str, InputScalars] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0

    def merge(self, later: Calibration) -> Calibration:
        """A new calibration, as if ``later``'s data had followed this one's.

        Raises:
            DataError: K336 when the two did not observe the same sites and inputs.
        """
        for what, mine, others in (
            ("sites", set(self.statistics), set(later.statistics)),
            ("inputs", set(self.inputs), set(later.inputs)),
        ):
            if mine != others:
                raise DataError(
                    "K336",
                    "merging two calibrations",
                    why=f"only one of them has the {what} {', '.join(sorted(mine ^ others))}",
                )
        return Calibration(
            statistics={s: e.merge(later.statistics[s]) for s, e in self.statistics.items()},
            inputs={n: v.extend(later.inputs[n]) for n, v in self.inputs.items()},
            samples=self.samples + later.samples,
            batches=self.batches + later.batches,
        )
