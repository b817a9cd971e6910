from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from kompakt.cli.console import narration, print_json, print_text, results, wrapped
from kompakt.errors import OutputError


def test_long_lines_flow_into_those_below_and_short_ones_stay() -> None:
    text = (
        "one two three four five six seven\neight\n\n"
        "  nine ten\n    a bb ccc dddd eeeee ffffff\n    z\n  x"
    )
    assert list(wrapped(text, 24)) == [
        "one two three four five",
        "six seven eight",
        "",
        "  nine ten",
        "    a bb ccc dddd eeeee",
        "    ffffff z",
        "  x",
    ]


def test_json_is_ascii_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "größe\u202e", "value": None})
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert shown.count("\n") == 1
    assert json.loads(shown) == {"name": "größe\u202e", "value": None}


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert results().color_system is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert results().no_color
    assert narration(quiet=True).quiet


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_disk_behind_stdout_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115  (closing it fails, as it must)
    monkeypatch.setattr("sys.stdout", full)
    with pytest.raises(OutputError) as caught:
        print_text("x" * 100_000)
    monkeypatch.undo()
    full.buffer.raw.close()
    assert caught.value.code == "K020"


def test_a_reader_that_has_seen_enough_is_no_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "gone")

        def flush(self) -> None:
            pass

    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        print_text("x")
