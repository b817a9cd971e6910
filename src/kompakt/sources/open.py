"""Models from SOURCE strings: a function, a Hugging Face directory, an ``.onnx`` file, or a trusted ``.pt2`` file.

Nothing here loads a pickle. A function of the user's own runs, as any import does; a ``.pt2`` file
can hold a pickle and is opened only when it is trusted; weights of a directory must be safetensors,
and code in it is never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from kompakt.errors import CaptureError, UsageError
from kompakt.measuring.imported import import_function, looks_imported, told, where
from kompakt.sources.huggingface import open_directory

PICKLES = frozenset({".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib"})


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model somebody named on the command line.

    Attributes:
        model: The model.
        example_inputs: A tensor, a tuple or a dict as it is called with; ``None`` when the source
            does not tell.
        name: A short name for tables.
        kind: What the source is, in words.
        dynamic: Dimensions that should stay variable, by input name.
    """

    model: nn.Module
    example_inputs: Any | None
    name: str
    kind: str
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def open_source(source: str, *, trust: bool = False) -> Source:
    """Turn a SOURCE string into a model.

    Args:
        source: ``package.module:function``, a Hugging Face directory, an ``.onnx`` file (with inputs to fix:
            ``model.onnx?sr=16000``), or a ``.pt2`` file.
        trust: Whether a ``.pt2`` file may be loaded, which can run code that is hidden in it.

    Raises:
        UsageError: K010 when it names nothing, K013 for a pickle, K014 for an untrusted ``.pt2``.
        CaptureError: K011, K012 when the function fails, K015–K017 when loading fails.
    """
    file, _, fixed = source.partition("?")
    if Path(file).suffix.lower() == ".onnx":
        return _open_onnx(Path(file), fixed)
    path = Path(source)
    if path.suffix.lower() in PICKLES:
        raise UsageError(
            "K013", f"the model {source}", why="it is a pickle, and a pickle can run any code"
        )
    if path.suffix.lower() == ".pt2":
        return _open_exported(path, trust=trust)
    if path.is_dir():
        _refuse_artifact(path)
        model, example_inputs, dynamic = open_directory(path)
        return Source(
            model=model,
            example_inputs=example_inputs,
            name=path.resolve().name,
            kind="Hugging Face directory",
            dynamic=dynamic,
        )
    if looks_imported(source):
        return _call_function(source)
    raise UsageError("K010", f"the model {source}", **_advice(source, path))


def _refuse_artifact(path: Path) -> None:
    if (path / "manifest.json").is_file() and not (path / "config.json").is_file():
        raise UsageError(
            "K010",
            f"the model {path}",
            why="it is a kompakt artifact: compressed files, not the model they were made from",
            help="give the original model; `kompakt measure` and `kompakt verify` take artifacts",
        )


def _advice(source: str, path: Path) -> dict[str, str]:
    file, _, function = source.partition(":")
    if file.endswith(".py"):
        module = ".".join(Path(file).with_suffix("").parts)
        return {
            "why": "functions are named by their module, not by their file",
            "help": f"write {module}:{function or 'function'}",
        }
    return {"why": "no such directory or file exists, and it does not read package.module:function"}


def _call_function(source: str) -> Source:
    function = import_function(source, "K011", CaptureError, "the model")
    try:
        returned = function()
    except Exception as error:
        raise CaptureError(
            "K012", f"calling {source}()", where=where(error), why=told(error)
        ) from error
    pair = isinstance(returned, tuple) and len(returned) == 2
    model, example_inputs = returned if pair else (returned, None)
    if not isinstance(model, nn.Module):
        raise CaptureError(
            "K012",
            f"calling {source}()",
            why=f"it returned {_kind_of(returned)}, not a model",
        )
    return Source(
        model=model, example_inputs=example_inputs, name=type(model).__name__, kind="function"
    )


def _kind_of(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(v).__name__ for v in value[:4])})"
    return "nothing (None)" if value is None else f"an object of type {type(value).__name__}"


def _open_onnx(path: Path, query: str) -> Source:
    if not path.is_file():
        raise UsageError("K010", f"the model {path}", why="there is no such file")
    fixed = {}
    for part in query.split("&") if query else ():
        name, _, number = part.partition("=")
        try:
            fixed[name] = float(number)
        except ValueError:
            raise UsageError(
                "K010", f"the model {path}?{query}", why=f"{part!r} does not read input=number"
            ) from None
    from kompakt.network.onnx import import_onnx

    network = import_onnx(path, fixed=fixed)
    names = [spec.name for spec in network.input_specs]
    example = dict(zip(names, network.example_inputs(), strict=True))
    return Source(model=network, example_inputs=example, name=path.stem, kind="ONNX file")


def _open_exported(path: Path, *, trust: bool) -> Source:
    if not path.is_file():
        raise UsageError("K010", f"the model {path}", why="there is no such file")
    if not trust:
        raise UsageError(
            "K014", f"the model {path}", why="a .pt2 file can run code when it is loaded"
        )
    import torch

    try:
        program = torch.export.load(path)
    except Exception as error:
        raise CaptureError("K015", f"loading {path}", why=told(error)) from error
    args, kwargs = program.example_inputs or ((), {})
    return Source(
        model=program.module(),
        example_inputs=dict(kwargs) if kwargs and not args else tuple(args) or None,
        name=path.stem,
        kind="exported program",
    )
