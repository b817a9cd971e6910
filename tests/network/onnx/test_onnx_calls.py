"""Every ONNX operator with an ATen form: it computes the same and goes home as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from kompakt.network.kinds import kind_of
from kompakt.network.onnx import import_onnx, origin_of
from kompakt.targets import onnxruntime as target

from .files import model, saved, weights


def one(
    op_type: str, shape: list[Any], consts: dict[str, Any] | None = None, **attributes: Any
) -> Any:
    arrays = {k: np.asarray(v) for k, v in (consts or {}).items()}
    node = helper.make_node(op_type, ["x", *arrays], ["y"], "it", **attributes)
    return model([node], arrays, inputs={"x": shape})


SINGLE: dict[str, tuple[Callable[[], Any], str]] = {
    "Clip": (lambda: one("Clip", ["N", 4], {"lo": np.float32(0), "hi": np.float32(6)}), "relu6"),
    "Softmax": (lambda: one("Softmax", ["N", 4], axis=-1), "softmax"),
    "Transpose": (lambda: one("Transpose", ["N", 4, 5], perm=[0, 2, 1]), "transpose"),
    "Reshape": (lambda: one("Reshape", ["N", 4, 6], {"s": np.int64([0, 2, 12])}), "reshape"),
    "Unsqueeze": (lambda: one("Unsqueeze", ["N", 4], {"a": np.int64([1])}), "reshape"),
    "Squeeze": (lambda: one("Squeeze", ["N", 1, 4], {"a": np.int64([1])}), "reshape"),
    "Slice": (
        lambda: one("Slice", ["N", 8], {"s": np.int64([1]), "e": np.int64([-1]), "a": np.int64([1])}),
        "slice",
    ),
    "Pad": (lambda: one("Pad", ["N", 3, 4], {"p": np.int64([0, 0, 1, 0, 0, 2])}), "pad"),
    "MaxPool": (
        lambda: one("MaxPool", ["N", 3, 8, 8], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        "max_pool",
    ),
    "AveragePool": (
        lambda: one("AveragePool", ["N", 3, 8, 8], kernel_shape=[2, 2], strides=[2, 2]), "avg_pool"
    ),
    "Resize": (
        lambda: model(
            [helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="floor",
                              coordinate_transformation_mode="asymmetric")],
            {"s": np.float32([1, 1, 2, 2])},
        ),
        "upsample",
    ),
    "ReduceMean": (lambda: one("ReduceMean", ["N", 3, 4, 4], axes=[2, 3], keepdims=1), "mean"),
    "Mul with a constant": (lambda: one("Mul", ["N", 4], {"c": np.float32([2, 3, 4, 5])}), "mul"),
    "ConvTranspose": (
        lambda: model(
            [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1],
                              output_padding=[1, 1])],
            {"w": weights(3, 4, 3, 3)},
        ),
        "conv_transpose",
    ),
    "MatMul": (lambda: one("MatMul", ["N", 5, 4], {"w": weights(4, 6)}), "linear"),
    "LayerNormalization": (
        lambda: one("LayerNormalization", ["N", 5, 4],
                    {"g": np.float32([1, 2, 3, 4]), "b": np.float32([0, 1, 0, 1])}),
        "layer_norm",
    ),
    "Gelu as Erf": (
        lambda: model(
            [helper.make_node("Erf", ["x"], ["e"]), helper.make_node("Mul", ["x", "e"], ["y"])], {},
            inputs={"x": ["N", 4]},
        ),
        "mul",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_an_operator(name: str, tmp_path: Path) -> None:
    build, kind = SINGLE[name]
    made = build()
    network = import_onnx(saved(made, tmp_path))  # compares with ONNX Runtime
    assert not network.notes, "it has a form of its own"
    (node,) = (n for n in network.graph.nodes if origin_of(n) and "y" in origin_of(n).outputs)  # type: ignore[union-attr]
    assert kind_of(node) == kind
    after = onnx.load_model_from_string(target.write(network).files["model.onnx"])
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in made.graph.node]
    assert [list(n.attribute) for n in after.graph.node] == [
        list(n.attribute) for n in made.graph.node
    ]
