"""Progress on stderr: a bar with the time left for every task over two seconds, and the notes.

There is no refreshing thread: bars move only when the work reports a step, so that they never
disturb a latency measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kompakt.escaping import rich_markup
from kompakt.progress import Event, listening

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

LONG_TASK_S = 2.0
"""Tasks shorter than this get no bar."""
REFRESH_S = 0.25
"""Least time between two drawings."""
NOTE_LIMIT = 500
BEST_SO_FAR = "best so far"
"""Task of the notes that tell what a search would give if it ended now."""


@dataclass
class _Task:
    started: float
    bar: TaskID | None = None


class Bars:
    """Listens to progress events and draws them on a console.

    Args:
        console: Where to draw; without a terminal only notes are printed.
        clock: Seconds that only grow.

    Attributes:
        best: The last note about the best result so far, to be told when the work is interrupted.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._animated = console.is_terminal and not console.is_dumb_terminal and not console.quiet
        self._tasks: dict[str, _Task] = {}
        self._progress: Progress | None = None
        self._drawn = 0.0
        self.best = ""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if event.kind == "note" and event.task == BEST_SO_FAR:
            self.best = event.message
        elif event.kind == "note":
            text = rich_markup(event.message, NOTE_LIMIT)
            self._console.print(f"  {text}", style="dim", soft_wrap=True)
        elif event.kind == "start":
            self._tasks[event.task] = _Task(self._clock())
        elif event.kind == "advance" and self._animated:
            self._advance(event)
        elif event.kind == "end":
            self._end(event)

    def close(self) -> None:
        """Remove all bars and give the cursor back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _advance(self, event: Event) -> None:
        now = self._clock()
        task = self._tasks.setdefault(event.task, _Task(now))
        elapsed = now - task.started
        state = state_of(elapsed, event.done, event.total)
        if task.bar is None:
            if not _is_long(elapsed, event.done, event.total):
                return
            task.bar = self._bars().add_task(
                rich_markup(event.task, 60), completed=event.done, total=event.total, state=state
            )
        if now - self._drawn >= REFRESH_S:
            self._drawn = now
            self._bars().update(
                task.bar, completed=event.done, total=event.total, state=state, refresh=True
            )

    def _end(self, event: Event) -> None:
        task = self._tasks.pop(event.task, None)
        if task is not None and task.bar is not None and self._progress is not None:
            self._progress.remove_task(task.bar)
        if not any(t.bar is not None for t in self._tasks.values()):
            self.close()

    def _bars(self) -> Progress:
        if self._progress is None:
            from rich.progress import BarColumn, Progress, TextColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[state]}"),
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._progress.start()
        return self._progress


def state_of(elapsed_s: float, done: int, total: int | None) -> str:
    """How far a task is and how long it will still take, such as ``40 % · 1:05 left``."""
    if not total or not done:
        return f"{done:,} done"
    left = round(elapsed_s * max(total - done, 0) / done)
    return f"{min(done / total, 1):4.0%} · {left // 60}:{left % 60:02} left".replace("%", " %")


def _is_long(elapsed: float, done: int, total: int | None) -> bool:
    if elapsed >= LONG_TASK_S:
        return True
    expected = elapsed * total / done if total and done else 0.0
    return elapsed >= REFRESH_S and expected >= LONG_TASK_S


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show the progress of everything inside the ``with`` block; on Ctrl-C, the best so far."""
    bars = Bars(console)
    try:
        with listening(bars):
            yield
    except KeyboardInterrupt:
        bars.close()
        if bars.best:
            console.print(f"\nbest so far: {rich_markup(bars.best, NOTE_LIMIT)}")
        raise
    finally:
        bars.close()
