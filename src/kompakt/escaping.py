r"""Text that came from a model (names, labels, messages), made safe for each place it is shown.

A layer may be called ``layer[/]``, ``<script>`` or a megabyte of escape sequences. Every sink has
one function here; each first makes the text *plain* (no control characters, no terminal sequences,
no direction overrides, a bounded length) and then escapes what is special in that sink. What had
to go is replaced by a visible ``�``, so that two different names never silently look the same.

>>> plain("conv\x1b[31m1\n")
'conv�1 '
>>> html("<b>")
'&lt;b&gt;'
"""

from __future__ import annotations

import re
import unicodedata

NAME_LIMIT = 160
"""Characters kept of a name by default."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_ELLIPSIS = "…"
_SPACES = frozenset("\t\n\v\f\r\x85\u2028\u2029")
# Control, format (direction marks, zero-width), surrogate and unassigned characters.
_UNSAFE_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Cn"))
# CSI and OSC sequences: as a whole, so that their parameters do not remain as litter.
_TERMINAL_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
)
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
# An empty styled span: it ends whatever rich might read across it and prints nothing.
_RICH_STOP = "[none][/none]"


def plain(text: str, limit: int = NAME_LIMIT) -> str:
    """Text for a terminal without markup: one line, printable, bounded.

    Args:
        text: Anything.
        limit: Most characters to keep, at least 3. Longer text loses its middle, because names
            differ at their end.

    Returns:
        Text without control, format, surrogate or unassigned characters and without terminal
        sequences. Line breaks and tabs become spaces; anything else removed becomes ``�``.
    """
    if len(text) > 8 * limit:  # do not scan a megabyte to show one line of it
        text = text[: 4 * limit] + _ELLIPSIS + text[-4 * limit :]
    text = _TERMINAL_SEQUENCE.sub(_REPLACEMENT, text)
    if not text.isprintable():
        text = "".join(_visible(character) for character in text)
    return shorten(text, limit)


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters: the beginning and the end of the text around an ellipsis."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + _ELLIPSIS + text[len(text) - (limit - 1 - head) :]


def html(text: str, limit: int = NAME_LIMIT) -> str:
    """Text for HTML element content or a quoted attribute value."""
    return plain(text, limit).translate(_HTML)


def rich_markup(text: str, limit: int = NAME_LIMIT) -> str:
    """Text for a string that ``rich`` reads as console markup.

    It holds no tag and no emoji code for rich, and makes none with what the caller writes around
    it, ``f"[{name}]"`` included. Only a backslash directly before it is not allowed.
    """
    # Backslashes before a tag count double in rich's markup, and the stop is a tag.
    escaped = re.sub(r"(\\*)(\Z|[\[:])", rf"\1\1{_RICH_STOP}\2{_RICH_STOP}", plain(text, limit))
    return _RICH_STOP + escaped


def _visible(character: str) -> str:
    if character in _SPACES:
        return " "
    unsafe = unicodedata.category(character) in _UNSAFE_CATEGORIES
    return _REPLACEMENT if unsafe else character
