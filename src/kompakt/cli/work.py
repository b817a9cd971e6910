"""The surroundings of long work: who prints where, what can be imported, where progress shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from kompakt.cli.console import narration
from kompakt.cli.progress_bar import shown

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def working(names: Iterable[str | None], *, quiet: bool = False) -> Iterator[Console]:
    """Do long work: narrate on stderr and keep stdout for the result.

    Whatever a user's function or a library prints meanwhile goes to stderr, so that a result on
    stdout stays one. The current folder can be imported from only while something the user typed
    names a function: a folder of downloaded files must not be able to slip in a module.

    Args:
        names: What the user typed as model, data and metric.
        quiet: No narration.

    Yields:
        The console of narration.
    """
    from kompakt.measure.imported import looks_imported

    named = [name.partition("?")[0].rpartition("@")[2] for name in names if name]
    folder = os.getcwd() if any(map(looks_imported, named)) else None
    console = narration(quiet=quiet)
    with redirect_stdout(sys.stderr), shown(console), _importing_from(folder):
        yield console


@contextmanager
def _importing_from(folder: str | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
