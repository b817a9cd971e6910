"""Turns what goes wrong inside PyTorch into a sentence that points at the user's own line."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

import torch

from kompakt.errors import CaptureError

_TORCH = str(Path(torch.__file__).parent)
_OWN = str(Path(__file__).parents[1])
_STANDARD = sysconfig.get_paths()["stdlib"]
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s+([^\n]+)')

_ADVICE = (
    (
        ("data-dependent", "DataDependent", "guard on", "Could not extract specialized integer"),
        "a decision (an if, a loop, int(), .item()) depends on the values inside a tensor, and one "
        "graph cannot hold both outcomes",
        "replace the branch with torch.where, or take the decision outside the model",
    ),
    (
        ("Could not run", "fake tensor", "FakeTensor", "Can't call numpy", ".numpy()"),
        "the model leaves PyTorch (NumPy, another library or a kernel without shape rules)",
        "express the line with torch operators",
    ),
    (
        ("Cache'> in output", "Cache'> in input"),
        "the model takes or returns a key-value cache, which is no tensor",
        "capture it without: example_inputs={…, 'use_cache': False}, or model.config.use_cache = "
        "False",
    ),
    (
        ("Unsupported input type", "register", "pytree"),
        "an input or output has a type that PyTorch cannot look into",
        "use tensors, tuples, dicts, named tuples or dataclasses",
    ),
)


def user_frame(error: BaseException) -> str:
    """``"model.py:12 in forward: if x.sum() > 0:"`` for the innermost line outside PyTorch; empty
    if there is none.
    """
    frames = [
        (frame.filename, frame.lineno, frame.name, frame.line)
        for linked in _chain(error)
        for frame in traceback.extract_tb(linked.__traceback__)
    ]
    found = user_line(str(error))
    own = [frame for frame in frames if _is_user_code(frame[0])]
    if found or not own:
        return found
    name, line_number, function, code = own[-1]
    return f"{name}:{line_number} in {function}: {(code or '').strip()}"


def user_line(stack_trace: str) -> str:
    """The innermost line outside PyTorch in the text of a stack trace, in the form of
    :func:`user_frame`.
    """
    own = [frame for frame in _FRAME.findall(stack_trace) if _is_user_code(frame[0])]
    if not own:
        return ""
    name, line_number, function, code = own[-1]
    return f"{name}:{line_number} in {function}: {code.strip()}"


def capture_failure(error: BaseException, model: str) -> CaptureError:
    """The error to raise when ``torch.export`` could not follow ``model``.

    Args:
        error: What PyTorch raised.
        model: Class name of the model, for the message.
    """
    text = str(error)
    for signs, why, help_ in _ADVICE:
        if any(sign in text or sign in type(error).__name__ for sign in signs):
            detail = f" ({first_line(text)})" if signs is _ADVICE[-1][0] else ""
            return CaptureError(
                "K101", f"capturing {model}", where=user_frame(error), why=why + detail, help=help_
            )
    return CaptureError(
        "K102",
        f"capturing {model}",
        where=user_frame(error),
        why=f"{type(error).__name__}: {first_line(text)}",
    )


def first_line(text: str) -> str:
    """The first line of a message that says something, at most 300 characters."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")[:300]


def _is_user_code(filename: str) -> bool:
    if filename.startswith((_TORCH, _OWN, "<")):
        return False
    return not filename.startswith(_STANDARD) or "site-packages" in filename


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found[::-1]
