"""Reading an ONNX file for its rules only: nothing is executed, and no other file is opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx

from kompakt.errors import CaptureError
from kompakt.guard.limits import Limits
from kompakt.guard.refusals import MALFORMED, TOO_LARGE, refusal
from kompakt.guard.structure import walk
from kompakt.targets.tensorrt_rules import Violation, check_model


def lint_file(path: Path) -> list[Violation]:
    """Every place of a file that breaks a rule of TensorRT.

    Args:
        path: An ``.onnx`` file, also from a stranger: its structure is checked first.

    Raises:
        CaptureError: K140 when it is no ONNX file, K141 when it is too large in some way, K142–K144 when its
            structure is not that of a model.
    """
    limits, model = Limits(), onnx.ModelProto()
    try:
        content = _content(path, limits.file_bytes)
        model.ParseFromString(content)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except MemoryError:
        raise
    except CaptureError:
        raise
    except Exception as error:
        raise _unreadable(path, "it is no ONNX model") from error
    walk(model, path.name, limits)
    return check_model(model)


def _content(path: Path, most: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _unreadable(path, "it is no plain file")
        if not facts.st_size:
            raise _unreadable(path, "it is empty")
        if facts.st_size > most:
            raise refusal(TOO_LARGE, path.name, f"it has more than {most} bytes")
        return file.read(most)


def _unreadable(path: Path, why: str) -> CaptureError:
    return refusal(MALFORMED, path.name, why, where=str(path))
