"""Loading and running model files in OpenVINO on the CPU, and looking at what it made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.interface import TensorSpec
from kompakt.targets.openvino_ir import DIMENSIONS
from kompakt.targets.target import Arrays

DEFAULTS: Mapping[str, str] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": "1",
}
"""Settings of every session unless a file asks for others: OpenVINO's own depend on the processor."""

_DTYPES = {
    "f32": torch.float32,
    "f64": torch.float64,
    "f16": torch.float16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "boolean": torch.bool,
}
_NOT_EXECUTED = ("Const", "Input", "Output")


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


@dataclass
class Session:
    """A model compiled by OpenVINO."""

    compiled: Any
    request: Any
    dimensions: Mapping[str, tuple[str, ...]]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(_name(port) for port in self.compiled.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(_name(port) for port in self.compiled.outputs)

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and dtype of the inputs, in order."""
        return tuple(
            TensorSpec(_name(port), self._shape(port), _DTYPES[port.element_type.get_type_name()])
            for port in self.compiled.inputs
        )

    def _shape(self, port: Any) -> tuple[int | str, ...]:
        known = self.dimensions.get(_name(port), ())
        return tuple(
            size.get_length()
            if size.is_static
            else (known[place] if place < len(known) else f"dimension_{place}")
            for place, size in enumerate(port.partial_shape)
        )

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once.

        Raises:
            TargetError: K403 when the inputs do not fit the model.
        """
        try:
            fed = {i: self._fitting(port, inputs) for i, port in enumerate(self.compiled.inputs)}
            results = self.request.infer(fed, share_inputs=True)
        except Exception as error:
            raise TargetError(
                "K403", "running the model in OpenVINO", why=_first_line(error)
            ) from error
        return {name: results[i] for i, name in enumerate(self.output_names)}

    def _fitting(self, port: Any, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """One input; OpenVINO itself would silently convert another element type."""
        name = _name(port)
        if name not in inputs:
            raise ValueError(f"the input {name} is missing")
        array = np.ascontiguousarray(inputs[name]).reshape(np.shape(inputs[name]))
        wanted = port.element_type.to_dtype()
        if array.dtype != wanted:
            raise ValueError(f"the input {name} is {array.dtype}, the model takes {wanted}")
        return array


def _name(port: Any) -> str:
    """The name of an input or output; an output that hands out an input has that one's name as well."""
    return str(min(port.get_names())) if port.get_names() else str(port.get_node().friendly_name)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return next(iter(telling or lines), type(error).__name__)


def load(model: Path | str, options: Mapping[str, str] | None = None, threads: int = 1) -> Session:
    """Load a model file: IR with its ``.bin`` beside it, or ONNX.

    Args:
        model: Path of the file.
        options: Properties of the CPU plugin the artifact asks for.
        threads: Threads one inference uses.

    Raises:
        ArtifactError: K530 when OpenVINO does not accept the file.
    """
    return _loaded(Path(model), options or {}, threads, ())


def probe(path: Path, options: Mapping[str, str], codes: Sequence[str]) -> Session:
    """Load a model so that the named values come out beside its outputs."""
    return _loaded(path, options, 1, codes)


def _loaded(
    path: Path, options: Mapping[str, str], threads: int, visible: Sequence[str]
) -> Session:
    try:
        model = _core().read_model(str(path))
        dimensions = _dimensions(model)
        if visible:
            model.add_outputs(list(visible))
        settings = {**DEFAULTS, **options, "INFERENCE_NUM_THREADS": str(threads)}
        compiled = _core().compile_model(model, "CPU", settings)
        return Session(compiled, compiled.create_infer_request(), dimensions)
    except Exception as error:
        raise ArtifactError(
            "K530", "loading the model in OpenVINO", where=str(path), why=_first_line(error)
        ) from error


def _dimensions(model: Any) -> dict[str, tuple[str, ...]]:
    """Names of the inputs' dimensions, where the file holds them."""
    found: dict[str, tuple[str, ...]] = {}
    for port in model.inputs:
        where = [*DIMENSIONS, _name(port)]
        if model.has_rt_info(where):
            found[_name(port)] = tuple(str(model.get_rt_info(where).astype(str)).split(","))
    return found


def _executed(session: Session) -> list[tuple[Any, str, str]]:
    """The nodes OpenVINO executes: node, kind and the precision it computes in."""
    found = []
    for node in session.compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kind, precision = (str(facts[k].astype(str)) for k in ("layerType", "runtimePrecision"))
        if kind not in _NOT_EXECUTED:
            found.append((node, kind, precision))
    return found


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operators OpenVINO executes, with the precision each computes in: ``Convolution:u8``.

    Args:
        path: The model file.
        options: Properties of the CPU plugin.
        visible: Values that come out beside the outputs, which can keep the runtime from fusing.
    """
    session = _loaded(path, options, 1, visible)
    counts = Counter(f"{kind}:{precision}" for _, kind, precision in _executed(session))
    return dict(sorted(counts.items()))


def kernels(path: Path, options: Mapping[str, str], codes: Sequence[str]) -> dict[str, str]:
    """The operator that makes each named value, after all of OpenVINO's own optimizations."""
    model = _core().read_model(str(path))
    makers: dict[str, str] = {}
    for node in model.get_ops():
        for port in node.outputs():
            makers.update((name, node.get_friendly_name()) for name in port.get_names())
    executed: dict[str, str] = {}
    for node, kind, _ in _executed(_loaded(path, options, 1, codes)):
        for layer in str(node.get_rt_info()["originalLayersNames"].astype(str)).split(","):
            executed.setdefault(layer, kind)
    return {name: executed.get(makers.get(name, ""), "") for name in codes}
