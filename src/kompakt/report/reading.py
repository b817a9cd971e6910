"""A record on its way into the page: made plain for people, and embedded for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from kompakt.escaping import plain

NAME_LIMIT = 120
TEXT_LIMIT = 1500
ROW_LIMIT = 5000
"""Most sites the page lists; a browser struggles with more, and nobody reads them."""

_NAMES = frozenset(("name", "site", "first_difference"))
_INERT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def visible(value: Any, key: str = "") -> Any:
    """The record with every text plain and bounded, also those used as keys.

    Markup is not touched here: the template escapes everything it prints.
    """
    if isinstance(value, str):
        return plain(value, NAME_LIMIT if key in _NAMES else TEXT_LIMIT)
    if isinstance(value, Mapping):
        return {plain(str(k), NAME_LIMIT): visible(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [visible(item, key) for item in value]
    return value


def embedded(record: Mapping[str, Any]) -> tuple[Markup, bool]:
    """The record as JSON that cannot end the script element it stands in.

    Returns:
        The JSON text (ASCII only, ``<``, ``>`` and ``&`` as escapes, non-finite numbers as
        ``null``), and whether long texts or lists were shortened.
    """
    kept, shortened = _bounded(record)
    text = json.dumps(kept, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_INERT)), shortened


def _bounded(value: Any) -> tuple[Any, bool]:
    if isinstance(value, str):
        return value[:TEXT_LIMIT], len(value) > TEXT_LIMIT
    if isinstance(value, float) and not math.isfinite(value):
        return None, False
    if isinstance(value, Mapping):
        pairs = [(_bounded(str(k)), _bounded(v)) for k, v in value.items()]
        cut = any(short or also for (_, short), (_, also) in pairs)
        return {k: v for (k, _), (v, _) in pairs}, cut
    if isinstance(value, list | tuple):
        items = [_bounded(item) for item in value[:ROW_LIMIT]]
        cut = len(value) > ROW_LIMIT or any(short for _, short in items)
        return [item for item, _ in items], cut
    return value, False
