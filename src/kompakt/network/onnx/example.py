"""Example inputs for an imported file, and the check that the network computes what ONNX Runtime computes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from kompakt.errors import CaptureError
from kompakt.network.interface import TensorSpec
from kompakt.network.network import Network
from kompakt.network.onnx.shapes import Shapes
from kompakt.network.onnx.source import OnnxSource

TOLERANCE = 1e-4
"""Largest relative difference between the network's outputs and ONNX Runtime's."""
SMALLEST = 1e-6
"""A difference per value that is nothing, however small the outputs are."""
MOST_ELEMENTS = 1 << 25
"""Elements of an input above which no more sizes are tried."""
COMPARED_AT_ONCE = 1 << 20
"""Elements of an output that are compared at once: outputs may be large."""
SIZES = (1, 16, 64, 128, 224, 256, 512, 576)
"""Sizes tried for dynamic dimensions other than the batch when nobody gives an example."""


def checked_example(
    network: Network, source: OnnxSource, given: Mapping[str, Any] | None, shapes: Shapes
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
        _compare(network, source, _Watcher(network, shapes).outputs(example), expected)
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
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(source.folder)
    )
    try:
        return onnxruntime.InferenceSession(
            source.content, settings, providers=["CPUExecutionProvider"]
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
    specs = network.input_specs
    for size in SIZES:
        if size > SIZES[0] and not _is_small(specs, size):
            return
        yield [_made_up(spec.shape, spec.dtype, size, generator) for spec in specs]
        # Perhaps only the first input has a size of its own, and all others follow the batch.
        rest = [_made_up(spec.shape, spec.dtype, 2, generator) for spec in specs[1:]]
        yield [_made_up(specs[0].shape, specs[0].dtype, size, generator), *rest]


def _is_small(specs: Sequence[TensorSpec], unnamed: int) -> bool:
    sizes = [[n if isinstance(n, int) else unnamed for n in spec.shape] for spec in specs]
    return all(math.prod(shape) <= MOST_ELEMENTS for shape in sizes)


def _made_up(
    shape: tuple[int | str, ...],
    dtype: torch.dtype,
    unnamed: int,
    generator: torch.Generator,
) -> Tensor:
    """A tensor whose dynamic sizes are 2 for the batch, else ``unnamed``."""
    sizes = [n if isinstance(n, int) else 2 if n == "batch" else unnamed for n in shape]
    if dtype.is_floating_point:
        return torch.rand(sizes, generator=generator, dtype=torch.float32).to(dtype)
    if dtype == torch.bool:
        return torch.ones(sizes, dtype=dtype)
    return torch.ones(sizes, dtype=dtype) * (16000 if not sizes else 1)


class _Watcher(fx.Interpreter):
    """Runs a network and learns the rank and type of every value the file says nothing about."""

    def __init__(self, network: Network, shapes: Shapes) -> None:
        super().__init__(network)
        self.shapes = shapes

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and note what it made."""
        with torch.no_grad():
            result = super().run_node(n)
        if isinstance(result, Tensor) and n.op != "output" and n.meta.get("val") is None:
            n.meta["val"] = self.shapes.fake_like(result, n.name)
        if isinstance(result, list | tuple) and isinstance(n.meta.get("val"), list):
            n.meta["val"] = [
                self.shapes.fake_like(r, f"{n.name}_{i}")
                if f is None and isinstance(r, Tensor)
                else f
                for i, (r, f) in enumerate(zip(result, n.meta["val"], strict=True))
            ]
        return result

    def outputs(self, tensors: list[Tensor]) -> list[Tensor]:
        """The output tensors for one tensor for each input."""
        return list(self.run(*tensors, enable_io_processing=False))


def _compare(
    network: Network, source: OnnxSource, found: list[Tensor], expected: list[Any]
) -> None:
    for spec, ours, theirs in zip(network.output_specs, found, expected, strict=True):
        theirs = np.asarray(theirs)
        if tuple(ours.shape) != theirs.shape:
            _refuse(source, spec.name, f"its shape is {tuple(ours.shape)}, not {theirs.shape}")
        error = size = 0.0
        rest = (ours.numpy().reshape(-1), theirs.reshape(-1))
        for start in range(0, theirs.size, COMPARED_AT_ONCE):
            a, b = (v[start : start + COMPARED_AT_ONCE].astype(np.float64) for v in rest)
            if (
                not (np.isnan(a) == np.isnan(b)).all()
                or not (a[np.isinf(b)] == b[np.isinf(b)]).all()
            ):
                _refuse(source, spec.name, "other values are NaN or infinite")
            finite = np.isfinite(a) & np.isfinite(b)
            error += float(np.square((a - b)[finite]).sum())
            size += float(np.square(b[finite]).sum())
        gap, size = error**0.5, size**0.5
        if not gap <= TOLERANCE * size + SMALLEST * theirs.size**0.5:
            _refuse(source, spec.name, f"the relative difference is {gap / (size or 1.0):.3g}")


def _refuse(source: OnnxSource, output: str, why: str) -> None:
    raise CaptureError(
        "K123",
        f"importing {source.name}",
        where=f"output {output!r}",
        why=f"the network does not compute what ONNX Runtime computes: {why}",
    )
