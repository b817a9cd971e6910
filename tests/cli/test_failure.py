from __future__ import annotations

import errno

import pytest

from kompakt.cli.failure import as_kompakt_error, exit_code_of, message
from kompakt.errors import BudgetError, DataError, UsageError


def test_an_error_says_what_where_why_and_what_to_do() -> None:
    error = DataError(
        "K207", "NaN in input 'x'", where="batch 3", why="of 7 values", help="clean it"
    )
    assert message(error) == (
        "error[K207]: NaN in input 'x'\n  at batch 3\n  because of 7 values\n  help: clean it\n"
    )


def test_without_help_the_catalogue_remedy_is_printed() -> None:
    assert "help: clean the data" in message(DataError("K207", "NaN"))


def test_control_characters_and_megabytes_from_models_are_tamed() -> None:
    text = message(DataError("K207", "name\x1b[2J\x00\nsecond " + "x" * 1_000_000))
    assert "\x1b" not in text
    assert "\x00" not in text
    assert len(text) < 5000
    assert text.splitlines()[1].startswith("  help:")


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("K001", "x"), 2), (DataError("K203", "x"), 1), (BudgetError("K001", "x"), 3)],
)
def test_exit_codes(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(error) == code
    assert capsys.readouterr().out == ""


def test_an_unexpected_exception_becomes_k900_without_a_stack_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KOMPAKT_DEBUG", raising=False)
    assert exit_code_of(KeyError("gone\nsecond line")) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error[K900]: unexpected KeyError")
    assert "report" in shown
    assert "Traceback" not in shown


def test_debugging_shows_the_stack_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOMPAKT_DEBUG", "1")
    try:
        raise ValueError("deep")
    except ValueError as error:
        exit_code_of(error)
    assert "Traceback" in capsys.readouterr().err


def test_full_disks_and_exhausted_memory_have_their_own_codes() -> None:
    assert as_kompakt_error(OSError(errno.ENOSPC, "No space left")).code == "K020"
    assert as_kompakt_error(MemoryError()).code == "K021"
