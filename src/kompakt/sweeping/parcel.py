"""What a worker is sent: the model, its data held in memory, and how trials are made.

It goes from this program to processes that it started itself, and is unpacked nowhere else. The model travels as the
user's own module and is captured again over there, for a captured network holds what cannot be sent.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kompakt.errors import UsageError
from kompakt.measuring.data import Dataset
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.onnx import import_onnx, source_of
from kompakt.sweeping.plan import Plan
from kompakt.sweeping.stage import Row, Settings, Stage


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Everything a worker needs.

    Attributes:
        model: The user's model; None where it is an ONNX file.
        files: The ONNX file and the weights beside it, the model first.
        example_inputs: Inputs to capture or check it with.
        dynamic: Dimensions that vary.
        calibration: Data for ranges.
        validation: Data to judge on.
        settings: How trials are made.
    """

    model: nn.Module | None
    files: Mapping[str, bytes] = field(default_factory=dict)
    example_inputs: Any = None
    dynamic: Mapping[str, Mapping[int, str]] | None = None
    calibration: Dataset | None = None
    validation: Dataset | None = None
    settings: Settings


def packed(parcel: Parcel) -> bytes:
    """A parcel as bytes; classes of the user's own script go along.

    Raises:
        UsageError: K632 when the model cannot be sent.
    """
    import cloudpickle

    try:
        content: bytes = cloudpickle.dumps(parcel)
    except Exception as error:
        raise UsageError(
            "K632", "a sweep on several processes", why=f"the model cannot be sent: {error}"
        ) from error
    return content


def model_parts(model: nn.Module | Network) -> tuple[nn.Module | None, dict[str, bytes]]:
    """A model as it can be sent: the module itself, or the files it was imported from.

    Raises:
        UsageError: K632 for a captured network that was no file.
    """
    if not isinstance(model, Network):
        return model, {}
    source = source_of(model)
    if source is None:
        raise UsageError(
            "K632", "a sweep of a captured network on several processes",
            why="a captured network cannot be sent to them",
        )  # fmt: skip
    beside = {
        path.relative_to(source.folder).as_posix(): path.read_bytes()
        for path in sorted(source.folder.rglob("*"))
        if path.is_file() and path.name != source.name
    }
    return None, {source.name: source.content, **beside}


def unpacked(content: bytes) -> Callable[[Plan], Row]:
    """What a worker does first: unpack, capture, and be ready to make trials."""
    torch.set_num_threads(1)
    parcel: Parcel = pickle.loads(content)
    # Kept by the stage's finalizer: the folder goes when the process does.
    scratch = tempfile.TemporaryDirectory(prefix="kompakt-sweep-")
    stage = Stage(
        _network_of(parcel, Path(scratch.name)),
        parcel.calibration,
        parcel.validation,
        parcel.settings,
        Path(scratch.name),
    )

    def run(plan: Plan) -> Row:
        assert scratch.name
        return stage.run(plan)

    return run


def _network_of(parcel: Parcel, scratch: Path) -> Network:
    torch.manual_seed(parcel.settings.seed)
    if parcel.model is not None:
        return capture(parcel.model, parcel.example_inputs, dynamic=parcel.dynamic)
    folder = scratch / "source"
    for name, content in parcel.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return import_onnx(folder / next(iter(parcel.files)), parcel.example_inputs)
