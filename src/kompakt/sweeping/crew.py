"""Who makes the trials: this process, several on this machine, or Ray's on many. All keep the same promises.

A crew is given plans by number and hands back a row for each, as they are finished. A worker that dies in the middle
of a trial takes nothing with it: the trial is given to another, twice at most; then its row says that it failed and
why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

ATTEMPTS = 3
"""A trial whose worker died is begun so many times in all."""

Task = tuple[int, Any]
"""A plan with its number."""
Make = Callable[[Any], dict[str, Any]]
"""Makes one trial: from a plan to its row."""


class Crew(Protocol):
    """Makes trials."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Make trials; yields the number and the row of each as it is finished.

        A row that only holds ``died`` tells why the trial's workers died, each time.

        Raises:
            KompaktError: What no trial would be spared.
        """

    def close(self) -> None:
        """Let all workers go."""


class Alone:
    """This process makes all trials itself.

    Args:
        make: Makes one trial.
    """

    def __init__(self, make: Make) -> None:
        self._make = make

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Make trials one after another."""
        for number, plan in tasks:
            yield number, self._make(plan)

    def close(self) -> None:
        """Nothing is to be let go."""
