from __future__ import annotations

import re

import pytest

from kompakt.error_catalogue import CATALOGUE

from .conftest import Invoke


@pytest.mark.parametrize("code", ["K012", "k012", "[K012]"])
def test_a_code_is_explained(invoke: Invoke, code: str) -> None:
    result = invoke("help", code)
    assert result.exit_code == 0
    entry = CATALOGUE["K012"]
    assert result.stdout.startswith(f"K012: {entry.title}")
    assert "help: " in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.parametrize("arguments", [("help",), ("help", "codes")])
def test_all_codes_are_listed(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert set(CATALOGUE) <= set(result.stdout.split())


def test_an_unknown_code_is_a_usage_error(invoke: Invoke) -> None:
    result = invoke("help", "K9999")
    assert result.exit_code == 2
    assert "error[K006]" in result.stderr


def test_all_codes_are_listed_in_order(invoke: Invoke) -> None:
    codes = re.findall(r"^K\d{3}(?= )", invoke("help").stdout, re.M)
    assert codes == sorted(codes)
    assert len(codes) == len(CATALOGUE)


def test_without_arguments_the_commands_are_listed(invoke: Invoke) -> None:
    result = invoke()
    assert result.exit_code == 0
    commands = "demo compress measure inspect explain verify report sys help"
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert [name for name in listed if name in commands.split()] == commands.split()


def test_the_version(invoke: Invoke) -> None:
    from kompakt import __version__

    result = invoke("--version")
    assert result.stdout == f"kompakt {__version__}\n"
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "command",
    ["demo", "compress", "measure", "inspect", "explain", "verify", "report", "sys", "help"],
)
def test_every_command_explains_itself_within_80_columns(invoke: Invoke, command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    overview = next(
        line for line in invoke().stdout.splitlines() if line.strip().startswith(f"{command} ")
    )
    assert not overview.endswith("...")
