"""Example inputs for an imported file, and the check that the network computes what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kompakt.errors import CaptureError
from kompakt.network.network import Network
from kompakt.network.onnx.source import OnnxSource

TOLERANCE = 1e-4
"""Largest relative difference between the network's outputs and ONNX Runtime's."""
SIZES = (1, 16, 64, 128, 224, 256, 512, 576)
"""Sizes tried for dynamic dimensions other than the batch when nobody gives an example."""


def checked_example(
    network: Network, source: OnnxSource, given: Mapping[str, Any] | None
) -> Network:
    """The network with example inputs, after comparing it with ONNX Runtime on them.

    Raises:
        CaptureError: K123 when outputs differ; K124 when ONNX Runtime cannot run the given example.
    """
    session = _session(source)
    for example in _examples(network, given):
        feeds = {spec.name: _array(t) for spec, t in zip(network.input_specs, example, strict=True)}
        try:
            expected = session.run(None, feeds)
        except Exception as error:
            if given is not None:
                raise CaptureError(
                    "K124", f"running {source.name} on the example", why=str(error).splitlines()[0]
                ) from error
            continue
        network.interface = network.interface.replace(example=tuple(example))
        _compare(network, source, example, expected)
        return network
    note = "not compared with ONNX Runtime: it ran none of the inputs that were made up"
    fallback = next(_examples(network, None))
    interface = network.interface
    network.interface = interface.replace(example=tuple(fallback), notes=(*interface.notes, note))
    return network


def _session(source: OnnxSource) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    # As it stands in the file: fused kernels round differently.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    path = source.folder / source.name
    try:
        return onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise CaptureError(
            "K124", f"loading {source.name} in ONNX Runtime", why=str(error).splitlines()[0]
        ) from error


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy()
    return array


def _examples(network: Network, given: Mapping[str, Any] | None) -> Iterator[list[Tensor]]:
    if given is not None:
        missing = [s.name for s in network.input_specs if s.name not in given]
        if missing:
            raise CaptureError(
                "K124", f"an example without the input {missing[0]!r}", why="the model needs it"
            )
        yield [torch.as_tensor(np.array(given[s.name])).to(s.dtype) for s in network.input_specs]
        return
    generator = torch.Generator().manual_seed(0)
    for size in SIZES:
        yield [_made_up(spec.shape, spec.dtype, size, generator) for spec in network.input_specs]


def _made_up(
    shape: tuple[int | str, ...], dtype: torch.dtype, size: int, generator: torch.Generator
) -> Tensor:
    sizes = [n if isinstance(n, int) else 2 if n == "batch" else size for n in shape]
    if dtype.is_floating_point:
        return torch.rand(sizes, generator=generator, dtype=torch.float32).to(dtype)
    if dtype == torch.bool:
        return torch.ones(sizes, dtype=dtype)
    return torch.ones(sizes, dtype=dtype) * (16000 if not sizes else 1)


def _compare(
    network: Network, source: OnnxSource, example: list[Tensor], expected: list[Any]
) -> None:
    with torch.no_grad():
        found = network.call_flat(example)
    for spec, ours, theirs in zip(network.output_specs, found, expected, strict=True):
        theirs = np.asarray(theirs)
        if tuple(ours.shape) != theirs.shape:
            _refuse(source, spec.name, f"its shape is {tuple(ours.shape)}, not {theirs.shape}")
        a, b = ours.numpy().astype(np.float64), theirs.astype(np.float64)
        scale = float(np.linalg.norm(b)) or 1.0
        error = float(np.linalg.norm(a - b)) / scale
        if not (error <= TOLERANCE or (np.isnan(a) == np.isnan(b)).all() and np.isnan(error)):
            _refuse(source, spec.name, f"the relative difference is {error:.3g}")


def _refuse(source: OnnxSource, output: str, why: str) -> None:
    raise CaptureError(
        "K123",
        f"importing {source.name}",
        where=f"output {output!r}",
        why=f"the network does not compute what ONNX Runtime computes: {why}",
    )
