"""The surroundings of long work: who prints where, what can be imported, where progress shows."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from kompakt.cli.console import narration
from kompakt.cli.progress_bar import shown
from kompakt.escaping import rich_markup

if TYPE_CHECKING:
    from rich.console import Console

WARNING_LIMIT = 300


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
    from kompakt.measuring.imported import looks_imported

    typed = [name for name in names if name and not name.startswith("builtin:")]
    functions = [name.partition("?")[0].rpartition("@")[2] for name in typed]
    folder = os.getcwd() if any(map(looks_imported, functions)) else None
    console = narration(quiet=quiet)
    with (
        redirect_stdout(sys.stderr),
        shown(console),
        _warnings_on(console),
        _importing_from(folder),
    ):
        yield console


@contextmanager
def _warnings_on(console: Console) -> Iterator[None]:
    """Python's warnings as one line each; those meant for developers of libraries are dropped."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        told = f"  warning: {rich_markup(text, WARNING_LIMIT)}"
        console.print(told, style="dim", soft_wrap=True)

    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        yield


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
