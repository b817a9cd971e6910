"""The runtimes kompakt writes for. One file a runtime; this dict is the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import numpy as np

from kompakt.errors import UsageError
from kompakt.targets.coreml import COREML
from kompakt.targets.executorch import EXECUTORCH
from kompakt.targets.litert import LITERT
from kompakt.targets.onnxruntime import ONNXRUNTIME
from kompakt.targets.openvino import OPENVINO
from kompakt.targets.pytorch import TORCH
from kompakt.targets.pytorch_aot import TORCH_AOTI
from kompakt.targets.pytorch_script import TORCHSCRIPT
from kompakt.targets.target import Runnable, Target, Written
from kompakt.targets.tensorrt import TENSORRT
from kompakt.targets.tflite_micro import TFLITE_MICRO

TARGETS: dict[str, Target] = {
    "onnxruntime": ONNXRUNTIME,
    "openvino": OPENVINO,
    "executorch": EXECUTORCH,
    "tensorrt": TENSORRT,
    "torch": TORCH,
    "torch-aoti": TORCH_AOTI,
    "torchscript": TORCHSCRIPT,
    "coreml": COREML,
    "litert": LITERT,
    "tflite-micro": TFLITE_MICRO,
}


def get_target(name: str) -> Target:
    """A target by name.

    Raises:
        UsageError: K404 when there is none of that name, K405 when its runtime is not installed.
    """
    if name not in TARGETS:
        close = get_close_matches(name, TARGETS, n=1)
        raise UsageError(
            "K404",
            f"the target {name!r}",
            why="there is none of that name",
            help=f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(TARGETS)}",
        )
    target = TARGETS[name]
    if target.version() is None:
        raise UsageError(
            "K405",
            f"the target {name!r}",
            why="its runtime is not installed",
            help=f'pip install "kompakt[{name}]"',
        )
    return target


def memory_job(
    target: str, path: str, options: Mapping[str, str], inputs: str, threads: int = 1
) -> Callable[[], object]:
    """A job for ``kompakt.measuring.memory``: load a model file and run it once.

    Args:
        target: The runtime's name.
        path: The model file.
        options: Its options.
        inputs: An ``.npz`` file with its inputs by name.
        threads: Threads the runtime may use.
    """
    chosen = get_target(target)
    import_module(chosen.module)  # the runtime belongs to the baseline, not to the model
    with np.load(inputs) as arrays:
        fed = dict(arrays)
    return lambda: chosen.load(Path(path), options, threads)(fed)


__all__ = ["TARGETS", "Runnable", "Target", "Written", "get_target", "memory_job"]
