"""What a ladder remembers of its trials, so that one that was killed goes on where it was.

A trial that is found in the journal brings back its figures, its interval and its verdict; its file is written again
only when somebody looks at it, which is the winner's, and it comes out the same byte for byte.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, cast

import numpy as np

from kompakt.measuring.comparison import Comparison
from kompakt.measuring.data import Batch
from kompakt.measuring.latency import LatencyComparison, LatencySummary
from kompakt.search.candidates import Candidate
from kompakt.search.journal import Journal
from kompakt.search.trial import Trial
from kompakt.search.workbench import Build, Workbench

_PLAIN = ("metric", "output_error", "least_drop", "samples", "seconds", "outcome", "why")


class Memory:
    """The trials of one runtime in a journal.

    Args:
        journal: The journal of the whole job.
        bench: Builds the files that are looked at.
    """

    def __init__(self, journal: Journal, bench: Workbench) -> None:
        self._journal, self._bench = journal, bench

    def recall(self, candidate: Candidate) -> Trial | None:
        """A trial that was finished before, or None."""
        row = self._journal.find(self._identity(candidate))
        if row is None:
            return None
        trial = Trial(candidate=candidate, **{name: _read(row[name]) for name in _PLAIN})
        trial.over = list(row["over"])
        trial.comparison = _comparison(row["comparison"])
        trial.latency = _latency(row["latency"])
        if row["size_bytes"] is not None:
            made = _Later(lambda: self._bench.build(candidate))
            size = _Known(_Later(lambda: made().written), size_bytes=row["size_bytes"])
            trial.build = cast("Build", _Known(made, written=size))
        return trial

    def keep(self, trial: Trial) -> None:
        """Put a finished trial into the journal."""
        row: dict[str, Any] = {name: _writable(getattr(trial, name)) for name in _PLAIN}
        for name, found in (("comparison", trial.comparison), ("latency", trial.latency)):
            row[name] = None if found is None else _writable(asdict(found))
        row["over"] = list(trial.over)
        row["size_bytes"] = None if trial.build is None else trial.build.written.size_bytes
        self._journal.append(self._identity(trial.candidate), row)

    def _identity(self, candidate: Candidate) -> dict[str, Any]:
        calibrator = candidate.calibrator
        return {
            "target": self._bench.target.name,
            "runtime": self._bench.target.version(),
            "scheme": candidate.scheme.to_json(),
            "calibrator": dict(calibrator) if isinstance(calibrator, Mapping) else calibrator,
            "methods": list(candidate.methods),
        }


def fingerprint_of(data: Iterable[Batch] | None) -> str | None:
    """A hash of all that some data holds; reads it once."""
    if data is None:
        return None
    found = hashlib.sha256()
    for batch in data:
        arrays = {**batch.arrays(), "labels": batch.label_arrays(), "groups": batch.groups}
        for name, values in arrays.items():
            plain = isinstance(values, np.ndarray) and not values.dtype.hasobject
            form = f"{values.dtype}{values.shape}" if isinstance(values, np.ndarray) else ""
            found.update(f"{name}:{form}:".encode())
            found.update(np.ascontiguousarray(values).tobytes() if plain else repr(values).encode())
    return found.hexdigest()


class _Later:
    """Something that is made when it is first asked for."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __call__(self) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made


class _Known:
    """Stands for something of which a little is known; all else is looked up in the thing itself, made for it then."""

    def __init__(self, made: _Later, **known: Any) -> None:
        self.__dict__.update(known)
        self.__dict__["_later"] = made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._later(), name)


def _writable(value: Any) -> Any:
    """Plain values; a number that is not finite as a text, which JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if isinstance(value, dict):
        return {key: _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value


def _read(value: Any) -> Any:
    """The opposite; what was a pair is a pair again."""
    if isinstance(value, dict):
        return float(value["number"]) if list(value) == ["number"] else value
    return tuple(map(_read, value)) if isinstance(value, list) else value


def _comparison(row: Mapping[str, Any] | None) -> Comparison | None:
    return None if row is None else Comparison(**{key: _read(item) for key, item in row.items()})


def _latency(row: Mapping[str, Any] | None) -> LatencyComparison | None:
    if row is None:
        return None
    found = {key: _read(item) for key, item in row.items()}
    for name in ("baseline", "candidate"):
        found[name] = LatencySummary(**{key: _read(item) for key, item in row[name].items()})
    return LatencyComparison(**found)
