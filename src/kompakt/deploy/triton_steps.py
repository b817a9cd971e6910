"""What stands before or behind a model in an ensemble: an ONNX file, or a ``model.py`` for the Python backend.

No code is run: the tensors of an ONNX file are in it, and those of a ``model.py`` in two constants that are read as
literals::

    INPUTS = [("image", "uint8", [-1, -1, 3])]
    OUTPUTS = [("x", "float32", [3, 224, 224])]
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import onnx

from kompakt.errors import UsageError
from kompakt.guard.limits import Limits
from kompakt.guard.structure import walk

TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "string": "TYPE_STRING",
}
_ONNX = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
         8: "string", 9: "bool", 10: "float16", 11: "float64", 16: "bfloat16"}  # fmt: skip
MOST_SOURCE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output.

    Attributes:
        name: Its name.
        dtype: A key of :data:`TYPES`.
        shape: Every dimension, the batch included where there is one; -1 where it varies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A model before or behind the compressed one.

    Attributes:
        backend: ``onnxruntime`` or ``python``.
        file: What its file is called in the repository.
        content: That file.
        inputs: What it takes.
        outputs: What it hands out.
        batched: Whether the first dimension of all of them is the batch.
    """

    backend: str
    file: str
    content: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool


def read_step(path: Path) -> Step:
    """Read a step from ``.onnx`` or ``.py``.

    Raises:
        UsageError: K543: it is neither, or does not say what goes in and comes out.
        CaptureError: K140–K144: it is no good ONNX file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    if path.suffix.lower() == ".onnx":
        return _onnx_step(path, content)
    if path.suffix.lower() == ".py" and len(content) <= MOST_SOURCE_BYTES:
        return _python_step(path, content)
    raise _bad(path, "it is neither an .onnx file nor a small .py file")


def _onnx_step(path: Path, content: bytes) -> Step:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:
        raise _bad(path, "it is no ONNX model") from error
    if walk(model, path.name, Limits()):
        raise _bad(path, "its weights lie in another file; store them in the model itself")
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    inputs = tuple(_tensor(path, value) for value in given)
    outputs = tuple(_tensor(path, value) for value in model.graph.output)
    batched = all(t.shape and t.shape[0] == -1 for t in (*inputs, *outputs))
    return Step(
        backend="onnxruntime",
        file="model.onnx",
        content=content,
        inputs=inputs,
        outputs=outputs,
        batched=batched,
    )


def _tensor(path: Path, value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    if kind.elem_type not in _ONNX or not kind.HasField("shape"):
        raise _bad(path, f"its tensor {value.name} has no type or no shape that Triton knows")
    sizes = (
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1 for d in kind.shape.dim
    )
    return Tensor(name=value.name, dtype=_ONNX[kind.elem_type], shape=tuple(sizes))


def _python_step(path: Path, content: bytes) -> Step:
    try:
        source = ast.parse(content, filename=path.name)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _bad(path, "it is no Python source") from error
    told = {
        "INPUTS": _constant(path, source, "INPUTS"),
        "OUTPUTS": _constant(path, source, "OUTPUTS"),
    }
    tensors = {name: tuple(_row(path, name, row) for row in rows) for name, rows in told.items()}
    # The batch is in front of what model.py declares, as in a config.pbtxt.
    batch = {
        name: tuple(Tensor(name=t.name, dtype=t.dtype, shape=(-1, *t.shape)) for t in rows)
        for name, rows in tensors.items()
    }
    return Step(
        backend="python",
        file="model.py",
        content=content,
        inputs=batch["INPUTS"],
        outputs=batch["OUTPUTS"],
        batched=True,
    )


def _constant(path: Path, source: ast.Module, name: str) -> list[object]:
    for node in source.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            try:
                value = ast.literal_eval(node.value)
            except (ValueError, TypeError, RecursionError, MemoryError) as error:
                raise _bad(path, f"{name} is no literal") from error
            if isinstance(value, list | tuple) and value:
                return list(value)
    raise _bad(path, f"it has no constant {name} = [(name, dtype, shape), …]")


def _row(path: Path, name: str, row: object) -> Tensor:
    if isinstance(row, list | tuple) and len(row) == 3:
        title, dtype, shape = row
        good = isinstance(shape, list | tuple) and all(
            type(d) is int and (d > 0 or d == -1) for d in shape
        )
        if isinstance(title, str) and title and dtype in TYPES and good:
            return Tensor(name=title, dtype=str(dtype), shape=tuple(shape))
    raise _bad(path, f"{row!r} in {name} is not (name, dtype, shape)")


def _bad(path: Path, why: str) -> UsageError:
    return UsageError("K543", f"the step {path.name} of an ensemble", where=str(path), why=why)


__all__ = ["TYPES", "Step", "Tensor", "read_step"]
