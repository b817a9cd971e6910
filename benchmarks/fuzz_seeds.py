"""Small good ONNX models that mutations start from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[Any], given: dict[str, Any], shape: Any, functions: Any = ()
) -> onnx.ModelProto:
    arrays = [numpy_helper.from_array(np.asarray(a), n) for n, a in given.items()]
    graph = helper.make_graph(nodes, "g", [_value("x", shape)], [_value("y", None)], arrays)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def seeds() -> list[onnx.ModelProto]:
    """Small good models that hold everything a file can hold."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node
    conv = _model(
        [
            node("Conv", ["x", "w", "b"], ["c"], "c1", pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"], "r1"),
            node("Shape", ["r"], ["s"]),
            node("Slice", ["s", "zero", "one"], ["n"]),
            node("Concat", ["n", "rest"], ["to"], axis=0),
            node("Reshape", ["r", "to"], ["f"]),
            node("Gemm", ["f", "fc"], ["y"], transB=1),
        ],
        {
            "w": w,
            "b": w[:, 0, 0, 0],
            "zero": np.array([0]),
            "one": np.array([1]),
            "rest": np.array([-1]),
            "fc": rng.normal(size=(2, 256)).astype(np.float32),
        },
        ["N", 3, 8, 8],
    )
    inner = [
        helper.make_graph([node(op, ["x"], [f"o_{op}"])], op, [], [_value(f"o_{op}", None)])
        for op in ("Abs", "Neg")
    ]
    branch = _model(
        [
            node("ReduceSum", ["x"], ["t"], keepdims=0),
            node("Greater", ["t", "z"], ["c"]),
            node("If", ["c"], ["i"], "if", then_branch=inner[0], else_branch=inner[1]),
            node("Add", ["i", "x"], ["y"]),
        ],
        {"z": np.float32(0)},
        [2, 4],
    )
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["v", "x"], ["u"])],
        "body",
        [_value("i", [], 7), _value("go", [], 9), _value("v", [2, 4])],
        [_value("on", [], 9), _value("u", [2, 4])],
    )
    loop = _model([node("Loop", ["m", "", "x"], ["y"], body=body)], {"m": np.array(3)}, [2, 4])
    imports = [helper.make_opsetid("", 17)]
    local = helper.make_function(
        "f", "F", ["a"], ["c"], [node("Relu", ["a"], ["b"]), node("Abs", ["b"], ["c"])], imports
    )
    call = _model(
        [node("F", ["x"], ["h"], domain="f"), node("MatMul", ["h", "k"], ["y"])],
        {"k": w[0, 0]},
        ["N", 3],
        [local],
    )
    quantized = _model(
        [
            node("QuantizeLinear", ["x", "s", "p"], ["q"]),
            node("DequantizeLinear", ["q", "s", "p"], ["y"]),
        ],
        {"s": np.float32(0.1), "p": np.uint8(3)},
        [2, 4],
    )
    sizes = _model(
        [
            node("ConstantOfShape", ["e"], ["o"]),
            node("Expand", ["x", "e"], ["big"]),
            node("Mul", ["o", "big"], ["p"]),
            node("Resize", ["p", "", "sc"], ["rs"]),
            node("Pad", ["rs", "pd"], ["y"]),
        ],
        {
            "e": np.array([1, 2, 4, 4]),
            "sc": np.array([1, 1, 2, 2], np.float32),
            "pd": np.array([0, 0, 1, 1] * 2),
        },
        [1, 2, 4, 4],
    )
    beside = _model([node("MatMul", ["x", "k"], ["y"])], {"k": w[0, 0]}, ["N", 3])
    stored = beside.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "weights.bin"), ("offset", "0"), ("length", "36")):
        stored.external_data.add(key=key, value=text)
    return [conv, branch, loop, call, quantized, sizes, beside]
