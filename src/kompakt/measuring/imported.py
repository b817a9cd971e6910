"""Finding a function that the user names as ``package.module:function``."""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Callable
from typing import Any

from kompakt.errors import KompaktError

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
        raise kind(code, f"{purpose} {spec!r}", where=where(error), why=told(error)) from error
    for part in function_name.split("."):
        if not hasattr(found, part):
            raise kind(code, f"{purpose} {spec!r}", why=f"{module_name} has no {function_name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise kind(code, f"{purpose} {spec!r}", why="it is not a function")
    return found  # type: ignore[no-any-return]


def where(error: BaseException) -> str:
    """File and line in which an error of the user's code arose."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename]
    return f"{own[-1].filename}, line {own[-1].lineno}" if len(own) > 1 else ""


def told(error: BaseException) -> str:
    """An error in one line."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
