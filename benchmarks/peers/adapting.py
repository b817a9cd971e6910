"""What every adapter does alike. Runs in the peers' environments: only numpy is there for sure."""

from __future__ import annotations

import json
import time
from importlib import metadata
from types import TracebackType

import numpy as np


def samples(path: str) -> list[dict[str, np.ndarray]]:
    """The calibration samples one by one, as model inputs by name."""
    with np.load(path) as file:
        arrays = dict(file)
    count = len(next(iter(arrays.values())))
    return [{name: a[i : i + 1] for name, a in arrays.items()} for i in range(count)]


class Clock:
    """CPU and wall seconds of a ``with`` block."""

    def __enter__(self) -> Clock:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self.wall, time.process_time() - self.cpu


def adapted(clock: Clock, *packages: str) -> None:
    """Print what the run cost and the versions it was made with, as the last line of output."""
    versions = {name: metadata.version(name) for name in packages}
    print("\n" + json.dumps({"cpu_s": clock.cpu_s, "wall_s": clock.wall_s, "versions": versions}))
