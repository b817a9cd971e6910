from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from kompakt.cli.progress_bar import BEST_SO_FAR, Bars, shown, state_of
from kompakt.progress import Event, listening, note, track


class Clock:
    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def run(task_seconds: float, *, terminal: bool = True, dumb: bool = False) -> str:
    stream = io.StringIO()
    environment = {"TERM": "dumb" if dumb else "xterm", "COLUMNS": "80"}
    console = Console(file=stream, force_terminal=terminal, _environ=environment, width=80)
    bars = Bars(console, Clock(task_seconds / 20))
    with listening(bars):
        for _ in track(range(20), "calibrating [/red]\x1b[31m"):
            pass
    bars.close()
    return stream.getvalue()


def is_erased(shown: str) -> bool:
    """Whether the last bar was wiped and the cursor given back."""
    after = shown.rpartition("left")[2]
    return "\x1b[2K" in after and "\x1b[?25h" in after


def test_a_long_task_gets_a_bar_with_the_time_left() -> None:
    shown = run(60.0)
    assert "calibrating" in shown
    assert "left" in shown
    assert "\x1b[31mcalib" not in shown


def test_the_bar_is_gone_when_the_task_is() -> None:
    assert is_erased(run(60.0))


def test_a_task_under_two_seconds_gets_no_bar() -> None:
    assert run(1.0) == ""


def test_no_bar_without_a_terminal() -> None:
    assert run(60.0, terminal=False) == ""


def test_no_bar_on_a_dumb_terminal() -> None:
    assert run(60.0, dumb=True) == ""


def test_a_bar_ends_with_the_work_that_fails() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, _environ={"TERM": "xterm"})
    bars = Bars(console, Clock(3.0))

    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise RuntimeError

    with listening(bars):
        try:
            for _ in track(failing(), "reading", 9):
                pass
        except RuntimeError:
            pass
    assert "reading" in stream.getvalue()
    assert is_erased(stream.getvalue())


def test_notes_are_printed_everywhere_and_escaped() -> None:
    stream = io.StringIO()
    with listening(Bars(Console(file=stream, width=80))):
        note("layer [/] is [bold]float\x1b[31m")
    assert "layer [/] is [bold]float" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_quiet_console_prints_nothing() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, quiet=True, _environ={"TERM": "xterm"})
    bars = Bars(console, Clock(5.0))
    with listening(bars):
        note("hello")
        list(track(range(5), "working"))
    assert stream.getvalue() == ""


def test_tasks_without_a_known_end_count() -> None:
    assert state_of(10.0, 1234, None) == "1,234 done"
    assert state_of(30.0, 10, 40) == " 25 % · 1:30 left"


def test_an_unknown_end_of_a_task_does_no_harm() -> None:
    bars = Bars(Console(file=io.StringIO()))
    bars(Event("end", "never started"))
    bars(Event("advance", "never started", 1, 2))


def test_an_interruption_tells_the_best_so_far() -> None:
    stream = io.StringIO()

    def search() -> None:
        with shown(Console(file=stream, width=80)):
            note("dynamic: drop 0.001, 1.2x", task=BEST_SO_FAR)
            note("static: drop 0.002, 2.5x", task=BEST_SO_FAR)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search()
    assert stream.getvalue() == "\nbest so far: static: drop 0.002, 2.5x\n"
