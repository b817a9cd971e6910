"""How errors look: what, where, why and what to do; never a stack trace."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import typer

from kompakt.errors import KompaktError, OutputError, UsageError
from kompakt.escaping import plain

MESSAGE_LIMIT = 2000
"""Most characters shown of one line of an error: a hostile model must not flood the terminal."""


def exit_code_of(error: Exception) -> int:
    """Show an exception on stderr and say which exit code it deserves."""
    if os.environ.get("KOMPAKT_DEBUG"):
        traceback.print_exception(error)
    known = as_kompakt_error(error)
    sys.stderr.write(message(known))
    return known.exit_code


def as_kompakt_error(error: Exception) -> KompaktError:
    """The error to show for any exception: deliberate ones as they are, the rest as K900."""
    if isinstance(error, KompaktError):
        return error
    if _is_usage_error(error):
        return _usage_error(error)
    if isinstance(error, MemoryError):
        return KompaktError("K021", "the machine ran out of memory", why=_first_line(error))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return OutputError("K020", "writing output", why=str(error))
    return KompaktError(
        "K900",
        f"unexpected {type(error).__name__}: {_first_line(error) or 'without a message'}",
        why="kompakt met a situation it was not written for: this is a bug in kompakt",
        help=(
            "please report it with the command you ran and the output of `kompakt sys`; "
            "KOMPAKT_DEBUG=1 shows where it happened"
        ),
    )


def message(error: KompaktError) -> str:
    """The four lines of an error, safe to print whatever a model put into them."""
    lines = [f"error[{error.code}]: {_safe(error.what)}"]
    if error.where:
        lines.append(f"  at {_safe(error.where)}")
    if error.why:
        lines.append(f"  because {_safe(error.why)}")
    lines.append(f"  help: {_safe(error.help)}")
    return "\n".join(lines) + "\n"


def say_interrupted(command: str) -> None:
    """Tell on stderr that Ctrl-C arrived and how to run the command again."""
    sys.stderr.write(
        f"\ninterrupted; nothing was left half-written\n  again: {plain(command, 500)}\n"
    )


def _safe(text: str) -> str:
    return plain(text, MESSAGE_LIMIT)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


def _is_usage_error(error: Exception) -> bool:
    # typer's errors share the root of its public BadParameter; that root moved between versions.
    roots = [kind for kind in typer.BadParameter.__mro__ if hasattr(kind, "format_message")]
    return isinstance(error, tuple(roots))


def _usage_error(error: Exception) -> UsageError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "kompakt"
    text = error.format_message().strip() if hasattr(error, "format_message") else str(error)
    return UsageError(
        "K002",
        " ".join(text.split()) or "no command given",
        help=f"{command} --help",
    )
