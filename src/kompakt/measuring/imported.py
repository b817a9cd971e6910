"""Finding a function that the user names as ``package.module:function``."""

from __future__ import annotations

import difflib
import importlib
import re
import traceback
from collections.abc import Callable
from typing import Any

from kompakt.errors import KompaktError

MOST_NAMED = 12
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def looks_imported(spec: str) -> bool:
    """Whether a string has the form ``package.module:function``."""
    return _NAME.fullmatch(spec) is not None


def import_function(
    spec: str, code: str, kind: type[KompaktError], purpose: str
) -> Callable[..., Any]:
    """Import ``package.module:function``.

    Args:
        spec: What the user wrote.
        code: Error code to raise.
        kind: Error class to raise.
        purpose: What the function is for, in words.

    Raises:
        KompaktError: Of class ``kind`` when there is no such function.
    """
    if not looks_imported(spec):
        raise kind(code, f"{purpose} {spec!r}", why="it does not read package.module:function")
    module_name, _, function_name = spec.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        check = f"check it with: python -c 'import {module_name}'"
        what = f"{purpose} {spec!r}"
        raise kind(code, what, where=where(error), why=told(error), help=check) from error
    parent = found
    for part in function_name.split("."):
        if not hasattr(found, part):
            why = f"{module_name} has no {function_name!r}"
            raise kind(
                code, f"{purpose} {spec!r}", why=why, help=_instead(module_name, part, found)
            )
        parent, found = found, getattr(found, part)
    if not callable(found):
        why = f"it is not a function but of type {type(found).__name__}"
        raise kind(code, f"{purpose} {spec!r}", why=why, help=_instead(module_name, "", parent))
    return found  # type: ignore[no-any-return]


def _instead(module: str, name: str, owner: Any) -> str:
    """What a module or class has to offer: the nearest name first, then some of all."""
    names = [
        key
        for key, value in vars(owner).items()
        if callable(value) and not key.startswith("_") and _is_own(value, owner)
    ]
    if not names:
        return f"define it: {module} has no function of its own"
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {module}:{near[0]}? " if near else ""
    more = ", …" if len(names) > MOST_NAMED else ""
    return f"{hint}functions there: {', '.join(names[:MOST_NAMED])}{more}"


def _is_own(value: Any, owner: Any) -> bool:
    """Whether it was defined in that module rather than imported into it."""
    return getattr(value, "__module__", None) in (
        getattr(owner, "__name__", None),
        getattr(owner, "__module__", None),
    )


def where(error: BaseException) -> str:
    """File and line in which an error of the user's code arose."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename]
    return f"{own[-1].filename}, line {own[-1].lineno}" if len(own) > 1 else ""


def told(error: BaseException) -> str:
    """An error in one line."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
