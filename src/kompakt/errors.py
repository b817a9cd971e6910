"""Every error kompakt raises on purpose.

    KompaktError                 exit 1
    ├── UsageError               exit 2   the call itself does not make sense
    ├── CaptureError             exit 1   the model cannot be turned into a Network
    ├── DataError                exit 1   calibration, validation or example data is unusable
    ├── MetricError              exit 1   a metric is unknown or returned nonsense
    ├── NumericsError            exit 1   NaN, infinity, or a number no format can hold
    ├── SchemeError              exit 1   a scheme or a pattern that fits nothing
    ├── TargetError              exit 1   the runtime cannot do what was asked
    ├── ParityError              exit 3   the artifact does not compute what was simulated
    ├── BudgetError              exit 3   no candidate meets the budget
    ├── ArtifactError            exit 1   an artifact is damaged, foreign or unsafe
    └── OutputError              exit 1   the result cannot be written

An error says *what* was asked, *where*, *why* it cannot be and how to go on (*help*). Its code is stable:
``kompakt help K201`` prints the catalogue entry.
"""

from __future__ import annotations

from kompakt.error_catalogue import CATALOGUE


class KompaktError(Exception):
    """Root of all deliberate errors.

    Args:
        code: Stable catalogue code such as ``"K201"``.
        what: What was asked, with the user's own names and values.
        where: The site, file or argument concerned; empty when ``what`` names it.
        why: Why it cannot be.
        help: What to do, ideally something that can be typed.
    """

    exit_code = 1

    def __init__(
        self, code: str, what: str, *, where: str = "", why: str = "", help: str = ""
    ) -> None:
        if code not in CATALOGUE:
            raise ValueError(f"error code {code} is not in the catalogue")
        self.code, self.what, self.where, self.why = code, what, where, why
        self.help = help or CATALOGUE[code].remedy
        super().__init__(code, what)

    def __str__(self) -> str:
        """The whole message in up to four lines, plain text."""
        lines = [f"[{self.code}] {self.what}"]
        if self.where:
            lines.append(f"  at: {self.where}")
        if self.why:
            lines.append(f"  because: {self.why}")
        lines.append(f"  help: {self.help}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.code, self.what, self.where, self.why, self.help))


def _rebuild(
    kind: type[KompaktError], code: str, what: str, where: str, why: str, help: str
) -> KompaktError:
    return kind(code, what, where=where, why=why, help=help)


class UsageError(KompaktError):
    """The call itself does not make sense."""

    exit_code = 2


class CaptureError(KompaktError):
    """The model cannot be turned into a Network."""


class DataError(KompaktError):
    """Calibration, validation or example data is unusable."""


class MetricError(KompaktError):
    """A metric is unknown or returned nonsense."""


class NumericsError(KompaktError):
    """NaN, infinity, or a number no format can hold."""


class SchemeError(KompaktError):
    """A scheme or a pattern that fits nothing."""


class TargetError(KompaktError):
    """The runtime cannot do what was asked."""


class ParityError(KompaktError):
    """The artifact does not compute what was simulated."""

    exit_code = 3


class BudgetError(KompaktError):
    """No candidate meets the budget."""

    exit_code = 3


class ArtifactError(KompaktError):
    """An artifact is damaged, foreign or unsafe."""


class OutputError(KompaktError):
    """The result cannot be written."""
