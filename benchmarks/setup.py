"""What every benchmark is given: where the data is, how much of it to use, and the seed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNSET = (
    "skipped: KOMPAKT_ASSETS is not set. The benchmarks need a folder of real models and data; "
    "docs/benchmarks.md says what is in it."
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How to run the benchmarks.

    Attributes:
        assets: The folder of real models and data.
        cache: Where decoded images are kept between runs.
        scratch: Where artifacts go.
        quick: Whether to use little data: shows that everything works, proves nothing.
        seed: Of everything random.
    """

    assets: Path
    cache: Path
    scratch: Path
    quick: bool = False
    seed: int = 0

    def some(self, count: int, quick: int) -> slice:
        """The first ``count`` samples, or the first ``quick`` when little is to be used."""
        return slice(quick if self.quick else count)


def assets_folder(variables: Mapping[str, str]) -> Path | None:
    """The folder ``KOMPAKT_ASSETS`` names, or None."""
    folder = variables.get("KOMPAKT_ASSETS", "")
    return Path(folder) if folder and Path(folder).is_dir() else None


def cache_folder(variables: Mapping[str, str]) -> Path:
    """``KOMPAKT_CACHE``, or a folder below the user's cache."""
    folder = variables.get("KOMPAKT_CACHE", "")
    return Path(folder) if folder else Path.home() / ".cache" / "kompakt-bench"


def one_thread() -> None:
    """Let every library compute on one thread and none of them spin while idle.

    Must be called before torch is imported.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OMP_WAIT_POLICY"] = "passive"
