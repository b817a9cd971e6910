"""Workbenches with the small networks of :mod:`tests.nets`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.search.workbench import Workbench

from ..nets import ONNXRUNTIME, batches_for, model


def workbench(name: str, folder: Path, *, data: bool = True, isa: str = "x86-vnni") -> Workbench:
    """One of the named networks, as captured, with its data or without."""
    return workbench_for(model(name), batches_for(name), folder, data=data, isa=isa)


def workbench_for(
    source: nn.Module, given: list[Batch], folder: Path, *, data: bool = True, isa: str = "x86-vnni"
) -> Workbench:
    """Any network with its data or without."""
    captured = capture(source, next(iter(given[0].inputs.values())))
    found = given if data else None
    return Workbench(captured, ONNXRUNTIME, isa, folder, found, found or [], 1)
