"""The two streams of a command: results on stdout, narration on stderr.

The only place that makes consoles. They are plain text where the stream is no terminal;
``NO_COLOR`` and ``TERM=dumb`` are honoured.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kompakt.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


_ROW = re.compile(r"\s*\S+(?: \S+)* {2,}(?=\S)")


def results() -> Console:
    """The console of results: stdout."""
    return _console(stderr=False)


def narration(*, quiet: bool = False) -> Console:
    """The console of narration: what is being done, progress, warnings. Silent when ``quiet``."""
    console = _console(stderr=True)
    console.quiet = quiet
    return console


def print_result(*parts: RenderableType) -> None:
    """Print results and make sure that they arrive.

    Raises:
        OutputError: K020 when stdout does not take them (a full disk, for instance).
    """
    console = results()
    # Lines that must stay one (commands, paths) are longer than the terminal: nothing is cropped.
    _deliver(partial(console.print, *parts, sep="\n", crop=False))


def print_text(text: str) -> None:
    """Print plain text as a result, wrapped by nobody."""
    _deliver(partial(sys.stdout.write, text + "\n"))


def print_prose(text: str) -> None:
    """Print text as a result, wrapped to the width of the terminal."""
    print_text("\n".join(wrapped(text, shutil.get_terminal_size().columns)))


def wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of at most ``width``; a longer one flows into those below it at the same indent.

    A row of a table (a name, two spaces or more, its text) goes on below its text instead.
    """
    lines = deque(text.splitlines())
    while lines:
        paragraph = [lines.popleft()]
        indent = _indent(paragraph[0])
        if len(paragraph[0]) <= width:
            yield paragraph[0]
            continue
        row = _ROW.match(paragraph[0])
        first = row.group() if row else indent
        while not row and lines and lines[0].strip() and _indent(lines[0]) == indent:
            paragraph.append(lines.popleft())
        text = " ".join(line.strip() for line in paragraph)
        yield from textwrap.wrap(
            paragraph[0][len(first) :] if row else text,
            max(width, len(first) + 20),
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_on_hyphens=False,
        )


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def print_json(data: Mapping[str, Any]) -> None:
    """Print exactly one JSON object on stdout, in ASCII, so that any encoding can carry it."""
    print_text(json.dumps(data, allow_nan=False))


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False)


def _deliver(write: Callable[[], object]) -> None:
    try:
        write()
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has seen enough: `kompakt inspect … | head`
            raise
        raise OutputError("K020", "printing the result", why=str(error)) from error
