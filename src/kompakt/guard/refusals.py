"""One way to refuse a model file."""

from __future__ import annotations

from kompakt.errors import CaptureError
from kompakt.escaping import plain

MALFORMED, TOO_LARGE, TENSOR, BESIDE, GRAPH, SCALE, DIED = (
    *("K140", "K141", "K142", "K143", "K144", "K145", "K146"),
)


def refusal(code: str, name: str, why: str, where: str = "", help: str = "") -> CaptureError:
    """The error for a file that is not used.

    Args:
        code: What is wrong with it.
        name: The file.
        why: In words; names out of the file are passed through :func:`named`.
        where: The node or tensor.
        help: What to do, where the code's own advice does not fit.
    """
    return CaptureError(code, f"the model file {plain(name, 200)}", where=where, why=why, help=help)


def named(kind: str, name: str) -> str:
    """A node, tensor or value for a message: ``tensor 'conv1.weight'``."""
    return f"{kind} {plain(name, 120)!r}"
