"""The course of a sweep: what the journal knows is taken from it, everything else is made, all of it is published."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kompakt.progress import note, track
from kompakt.search.journal import Journal
from kompakt.sweeping.crew import Crew
from kompakt.sweeping.plan import Plan
from kompakt.sweeping.proposals import Proposals, in_turn
from kompakt.sweeping.stage import Row, empty_row

PUBLISHED_EVERY_S = 2.0
FINAL = ("done", "refused", "parity failed")
"""Outcomes that another run would find again; a trial that ended otherwise is made again."""


class Course:
    """Makes the trials of a sweep.

    Args:
        journal: Finished trials.
        hire: Makes the crew, when the first trial has to be made.
        publish: Writes down what is known so far.
        share: Whether drops are shares, told in points.

    Attributes:
        rows: What each trial came to, by number.
        reused: How many of them were in the journal.
        planned: How many trials there are to be in all.
        searched: The search that proposes them; None where the whole space is tried.
    """

    def __init__(
        self, journal: Journal, hire: Callable[[], Crew], publish: Callable[[], str], *, share: bool
    ) -> None:
        self._journal, self._hire, self._publish, self._share = journal, hire, publish, share
        self._crew: Crew | None = None
        self._published = -PUBLISHED_EVERY_S
        self.rows: dict[int, Row] = {}
        self.reused = 0
        self._plans: list[Plan] = []
        self.planned = 0
        self.searched: str | None = None

    def close(self) -> None:
        """Let the crew go."""
        if self._crew is not None:
            self._crew.close()

    def try_all(self, plans: Sequence[Plan]) -> None:
        """Make a trial of each plan."""
        self.planned = len(plans)
        numbers = self._known(plans)
        if self.reused:
            note(f"{self.reused} of {len(plans)} trials are in {self._journal.path} already")
        for _ in track(self._made(numbers), "trials", len(numbers)):
            pass

    def search(self, searches: Sequence[Proposals], most: int) -> None:
        """Make trials of what several searches propose, generation by generation.

        Args:
            searches: One for each runtime.
            most: How many trials in all.
        """
        left = in_turn(len(searches), max(most - len(searches), 0))
        self.planned = most
        for _ in track(self._generations(searches, left), "trials", most):
            pass
        self.planned = len(self._plans)
        if self.reused:
            note(f"{self.reused} of {self.planned} trials were in {self._journal.path} already")

    def _generations(self, searches: Sequence[Proposals], left: list[int]) -> Iterator[int]:
        floats = self._known([search.untouched for search in searches])
        yield from range(len(searches) - len(floats))
        yield from self._made(floats)
        while any(left):
            proposed: list[tuple[int, Plan]] = []
            for index, search in enumerate(searches):
                plans = search.next_plans(left[index]) if left[index] else []
                left[index] = left[index] - len(plans) if plans else 0
                proposed += [(index, plan) for plan in plans]
            begin = len(self._plans)
            waiting = self._known([plan for _, plan in proposed])
            yield from range(len(proposed) - len(waiting))
            yield from self._made(waiting)
            # In the order of the proposals: which was finished first must not matter.
            for number, (index, plan) in enumerate(proposed, begin):
                searches[index].learn(plan, self.rows[number])

    def _known(self, plans: Sequence[Plan]) -> list[int]:
        """Number the plans, take what the journal has; returns the numbers of the others."""
        waiting = []
        for plan in plans:
            number = len(self._plans)
            self._plans.append(plan)
            row = self._journal.find(_identity(plan))
            if row is not None and row.get("outcome") in FINAL:
                self.rows[number] = row
                self.reused += 1
            else:
                waiting.append(number)
        return waiting

    def _made(self, numbers: Sequence[int]) -> Iterator[int]:
        if not numbers:
            return
        self._crew = self._crew or self._hire()
        for number, found in self._crew.run([(n, self._plans[n]) for n in numbers]):
            plan = self._plans[number]
            row = _died(plan, found["died"]) if "died" in found else found
            self._journal.append(_identity(plan), row)
            self.rows[number] = row
            note(f"{plan.name} on {plan.target}: {told(row, share=self._share)}")
            if time.monotonic() - self._published >= PUBLISHED_EVERY_S:
                note(self._publish(), task="best so far")
                self._published = time.monotonic()
            yield number


def _identity(plan: Plan) -> dict[str, Any]:
    """What a plan is found by: itself, and the version of its runtime."""
    return plan.to_json() | {"runtime": empty_row(plan)["runtime"]}


def _died(plan: Plan, reasons: Sequence[str]) -> Row:
    kinds = "; ".join(dict.fromkeys(reasons))
    return empty_row(plan) | {
        "why": f"its worker died {len(reasons)} times: {kinds}",
        "run": {"seconds": {}, "machine": "", "attempts": len(reasons)},
    }


def told(row: Mapping[str, Any], *, share: bool) -> str:
    """What a trial came to, in a line."""
    if row["outcome"] not in ("done", "parity failed"):
        return f"{row['outcome']}: {row['why']}"
    parts = []
    if row["drop"] is not None:
        parts.append(f"drop {row['drop'] * 100:.2f} points" if share else f"drop {row['drop']:.4g}")
    if row["timing"] is not None:
        parts.append(f"{row['timing']['speedup']:.2f}×")
    parts.append(f"{row['size_bytes']:,} bytes")
    return ", ".join([*parts, *([row["outcome"]] if row["outcome"] != "done" else [])])
