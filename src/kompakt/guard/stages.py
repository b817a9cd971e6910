"""What is done with a model file inside the limited process: walk, check, infer shapes, load, run once."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference

from kompakt.errors import KompaktError
from kompakt.guard.limits import Limits
from kompakt.guard.refusals import DIED, GRAPH, MALFORMED, refusal
from kompakt.guard.scales import check_scales
from kompakt.guard.sizes import check_sizes, graphs_of
from kompakt.guard.structure import walk
from kompakt.guard.worker import allow_memory

SIZES = (1, 16, 64, 128, 224, 256, 512, 576)
"""Sizes tried for dynamic dimensions: those that importing tries."""
MOST_ELEMENTS = 1 << 25
"""Elements of an input that is made up."""


def prepare() -> None:
    """Import what all files need, once."""
    try:
        importlib.import_module("onnxruntime")
    except ImportError:
        return


def walk_stage(path: Path, limits: Limits) -> list[list[Any]]:
    """Parse and walk; returns the parts of other files that it needs."""
    found = walk(_parsed(path), path.name, limits)
    return [[b.location, b.offset, b.length, b.tensor] for b in dict.fromkeys(found)]


def load_stage(path: Path, limits: Limits) -> dict[str, Any]:
    """Everything else, in a folder that holds the model and exactly the files it needs."""
    model = _parsed(path)
    check_scales(model, path.name, path.parent)
    _check_with_onnx(model, path)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (importing goes on without shapes, too)
        inferred = model
    check_sizes(inferred, path.name, limits)
    del model, inferred
    return {"ran": _runs(path, limits)}


def _check_with_onnx(model: Any, path: Path) -> None:
    """The checker of ``onnx``; it wants shapes where every runtime does without, so those are lent to it."""
    os.chdir(path.parent)  # where it looks for files
    lent = [
        value.type.tensor_type
        for graph in graphs_of(model.graph)
        for value in (*graph.input, *graph.output)
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    ]
    for kind in lent:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        _out_of_memory(error, path)
        why = f"the ONNX checker says: {_first(error, path)}"
        raise refusal(GRAPH, path.name, why) from error
    for kind in lent:
        kind.ClearField("shape")


def _parsed(path: Path) -> Any:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        return model
    except Exception as error:
        _out_of_memory(error, path)
        raise refusal(MALFORMED, path.name, f"it is no ONNX model: {_first(error)}") from error


def _runs(path: Path, limits: Limits) -> bool:
    """Load in ONNX Runtime and run on small inputs; whether it ran. What it refuses in order is no danger."""
    try:
        import onnxruntime
    except ImportError:
        return False
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        _out_of_memory(error, path)
        raise KompaktError(
            "K124", f"loading {path.name} in ONNX Runtime", why=_first(error, path)
        ) from error
    allow_memory(limits.run_memory_bytes)
    for size in SIZES:
        feeds = _made_up(session.get_inputs(), size)
        if feeds is None:
            return False
        try:
            session.run(None, feeds)
        except Exception as error:  # noqa: BLE001  (another size may fit)
            _out_of_memory(error, path)
            continue
        return True
    return False


def _out_of_memory(error: Exception, path: Path) -> None:
    words = str(error).lower()
    signs = ("bad_alloc", "bad allocation", "failed to allocate", "arena alloc")
    if isinstance(error, MemoryError) or any(sign in words for sign in signs):
        raise refusal(DIED, path.name, "it wanted more memory than it may have") from error


_NUMBERS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    **{f"tensor({name})": np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}


def _made_up(inputs: Any, size: int) -> dict[str, Any] | None:
    """An array for each input; None where that cannot be done."""
    feeds: dict[str, Any] = {}
    for value in inputs:
        if value.type not in _NUMBERS:
            return None
        sizes = [n if isinstance(n, int) and n > 0 else size for n in value.shape]
        sizes = [2 if n == "batch" else made for n, made in zip(value.shape, sizes, strict=True)]
        if float(np.prod(np.array(sizes, np.float64))) > MOST_ELEMENTS:
            return None
        array = np.full(sizes, 0.5 if "float" in value.type else 1, dtype=_NUMBERS[value.type])
        feeds[value.name] = array
    return feeds


def _first(error: Exception, path: Path | None = None) -> str:
    """The first line of a message, without the folder of the private copy."""
    text = str(error) if path is None else str(error).replace(f"{path.parent}{os.sep}", "")
    lines = text.strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
