"""Did you mean …? The nearest known names to what was typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from kompakt.errors import UsageError


def did_you_mean(name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """``"did you mean 'w8a8'? "``, or nothing when no known name is near."""
    alias = (aliases or {}).get(name.lower())
    close = [alias] if alias else get_close_matches(name, list(known), n=1, cutoff=0.55)
    return f"did you mean {close[0]!r}? " if close else ""


def check_name(
    option: str,
    name: str | None,
    known: Iterable[str],
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Refuse a name that is not known.

    Args:
        option: The option it was given to, for the message.
        name: What was typed; ``None`` when the option was not given.
        known: Every name there is.
        aliases: Other words for some of them.

    Raises:
        UsageError: K003, with the nearest name and all others.
    """
    names = list(known)
    if name is None or name in names:
        return
    raise UsageError(
        "K003",
        f"{option} {name}",
        why="no such name exists",
        help=f"{did_you_mean(name, names, aliases)}known: {', '.join(names)}",
    )
