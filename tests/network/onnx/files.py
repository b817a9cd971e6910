"""ONNX files made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    initializers: dict[str, np.ndarray[Any, Any]],
    *,
    inputs: dict[str, list[Any]] | None = None,
    outputs: dict[str, list[Any]] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "a graph of its own",
        [
            helper.make_tensor_value_info(n, FLOAT, s)
            for n, s in (inputs or {"x": ["N", 3, 8, 8]}).items()
        ],
        [
            helper.make_tensor_value_info(n, FLOAT, s)
            for n, s in (outputs or {"y": None}).items()  # type: ignore[dict-item]
        ],
        [numpy_helper.from_array(a, n) for n, a in initializers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(made, {"owner": "somebody"})
    made.producer_name = "a test"
    return made


def saved(made: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(made, path)
    return path
