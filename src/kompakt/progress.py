"""One stream of progress events; whoever wants to show them listens.

Work announces itself with :func:`track` and :func:`note`. Nothing is printed here: the console, a journal
or a web page installs a listener with :func:`listening`. The logger ``kompakt`` gets all of it, too: notes
(each candidate that was tried) at level INFO, the beginning of a task at DEBUG.

>>> import logging
>>> logging.getLogger("kompakt").setLevel(logging.INFO)  # with logging.basicConfig(), shows each trial
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")
LOGGER = logging.getLogger("kompakt")
LOGGER.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Event:
    """Something happened in a task.

    Attributes:
        kind: ``start``, ``advance``, ``end`` or ``note``.
        task: What is being done, in words.
        done: Steps finished so far.
        total: Steps in all, or ``None`` when unknown.
        message: Free text of a ``note``.
    """

    kind: Literal["start", "advance", "end", "note"]
    task: str
    done: int = 0
    total: int | None = None
    message: str = ""


Listener = Callable[[Event], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("kompakt_listeners", default=())


def _emit(event: Event) -> None:
    for listener in _listeners.get():
        listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every event raised inside the ``with`` block to ``listener`` too."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def track(items: Iterable[T], task: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` unchanged, raising one event for each.

    Args:
        items: What to iterate over.
        task: What is being done, in words.
        total: How many items there are; taken from ``len(items)`` when it has one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    done = 0
    LOGGER.debug("%s", task)
    _emit(Event("start", task, 0, total))
    try:
        for item in items:
            yield item
            done += 1
            _emit(Event("advance", task, done, total))
    finally:
        _emit(Event("end", task, done, total))


def note(message: str, task: str = "") -> None:
    """Say something worth reading while the work goes on."""
    LOGGER.info("%s", f"{task}: {message}" if task else message)
    _emit(Event("note", task, message=message))
