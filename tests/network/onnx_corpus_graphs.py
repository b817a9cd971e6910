"""Hostile model files: graphs in graphs, functions, little that becomes much, scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .onnx_corpus import FLOAT, INT64, corpus, graph, hostile, model, tensor, value

__all__ = ["corpus"]

# Graphs in graphs, functions


@hostile("branches in branches in branches", "K140", "K141", "K144")
def _deep() -> bytes:
    body = graph([helper.make_node("Relu", ["x"], ["z0"])], (), [], [value("z0")])
    for level in range(1, 25):
        node = helper.make_node("Loop", ["", "c"], [f"z{level}"], body=body)
        body = graph([node], (), [], [value(f"z{level}")])
    made = model(
        graph([helper.make_node("Loop", ["", "c"], ["y"], body=body)], [tensor("c", True)])
    )
    return made.SerializeToString()


@hostile("groups in groups past the parser", "K140")
def _too_deep() -> bytes:
    content = b""
    for _ in range(400):  # graph in attribute in node in graph …
        for tag in (0x32, 0x2A, 0x0A):
            size = len(content)
            head = bytes([tag])
            while True:
                head += bytes([size & 127 | (128 if size > 127 else 0)])
                size >>= 7
                if not size:
                    break
            content = head + content
    size = len(content)
    head = b"\x3a"
    while True:
        head += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            break
    return b"\x08\x0a" + head + content


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes = [
        helper.make_node(c, [f"v{n}"], [f"v{n + 1}"], domain="f" if c.startswith("f") else "")
        for n, c in enumerate(calls)
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["v0"], [f"v{len(calls)}"], nodes, imports)


def calling(functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    return model(graph([helper.make_node("f0", ["x"], ["y"], domain="f")]), functions)


@hostile("a function that calls itself", "K144")
def _recursion() -> onnx.ModelProto:
    return calling([function("f0", ["f0"])])


@hostile("two functions that call each other", "K144")
def _mutual() -> onnx.ModelProto:
    return calling([function("f0", ["f1"]), function("f1", ["f0"])])


@hostile("a chain of three thousand functions", "K141")
def _chain() -> onnx.ModelProto:
    chain = [function(f"f{n}", [f"f{n + 1}"]) for n in range(3000)]
    return calling([*chain, function("f3000", ["Relu"])])


@hostile("functions that double thirty times", "K141")
def _doubling() -> onnx.ModelProto:
    chain = [function(f"f{n}", [f"f{n + 1}"] * 2) for n in range(30)]
    return calling([*chain, function("f30", ["Relu"])])


@hostile("a function there twice", "K144")
def _function_twice() -> onnx.ModelProto:
    return calling([function("f0", ["Relu"]), function("f0", ["Abs"])])


# Little that becomes much


def from_shape(operator: str, shape: list[int], first: Any = None) -> onnx.ModelProto:
    given = [tensor("s", np.array(shape, np.int64))]
    inputs = ["s"]
    if first is not None:
        given.append(tensor("v", first))
        inputs = ["v", "s"]
    nodes = [
        helper.make_node(operator, inputs, ["big"]),
        helper.make_node("ReduceMax", ["big"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["one"], to=FLOAT),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    return model(graph(nodes, given))


@hostile("ConstantOfShape for half a gigabyte", "K141")
def _constant_of_shape() -> onnx.ModelProto:
    return from_shape("ConstantOfShape", [1 << 27])


@hostile("ConstantOfShape for exabytes", "K141", "K144")
def _exabytes() -> onnx.ModelProto:
    return from_shape("ConstantOfShape", [1 << 40, 1 << 20])


@hostile("ConstantOfShape of a negative size", "K124", "K144")
def _negative_constant() -> onnx.ModelProto:
    return from_shape("ConstantOfShape", [-5])


@hostile("Expand for half a gigabyte", "K141")
def _expand() -> onnx.ModelProto:
    return from_shape("Expand", [1 << 27], np.ones(1, np.float32))


@hostile("Tile for half a gigabyte", "K141")
def _tile() -> onnx.ModelProto:
    return from_shape("Tile", [1 << 27], np.ones(1, np.float32))


@hostile("Range for gigabytes", "K141", "K146")
def _range() -> onnx.ModelProto:
    numbers = [tensor(n, np.int64(v)) for n, v in (("a", 0), ("b", 1 << 33), ("c", 1))]
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["one"], to=FLOAT),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    return model(graph(nodes, numbers))


@hostile("constants that multiply when broadcast", "K141")
def _broadcast() -> onnx.ModelProto:
    parts = [np.ones((1300, 1, 1)), np.ones((1, 1300, 1)), np.ones((1, 1, 1300))]
    given = [tensor(f"p{n}", p.astype(np.float32)) for n, p in enumerate(parts)]
    nodes = [
        helper.make_node("Sum", ["p0", "p1", "p2"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["one"], keepdims=0),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    return model(graph(nodes, given))


@hostile("many constants of just under the limit", "K141")
def _many_constants() -> onnx.ModelProto:
    shape = tensor("s", np.array([1 << 23], np.int64))
    nodes = [helper.make_node("ConstantOfShape", ["s"], [f"b{n}"]) for n in range(40)]
    nodes += [helper.make_node("Sum", [f"b{n}" for n in range(40)], ["big"])]
    nodes += [helper.make_node("ReduceMax", ["big"], ["one"], keepdims=0)]
    nodes += [helper.make_node("Add", ["x", "one"], ["y"])]
    return model(graph(nodes, [shape]))


@hostile("an enlargement of a million", "K141", "K124")
def _resize() -> onnx.ModelProto:
    scales = tensor("s", np.array([1, 1, 1e6, 1e6], np.float32))
    node = helper.make_node("Resize", ["x", "", "s"], ["y"])
    return model(graph([node], [scales], [value("x", (1, 1, 4, 4))]))


@hostile("a loop that never ends", "K146")
def _loop() -> onnx.ModelProto:
    body = graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Abs", ["v"], ["w"])],
        (),
        [value("i", (), INT64), value("go", (), TensorProto.BOOL), value("v")],
        [value("on", (), TensorProto.BOOL), value("w")],
    )
    node = helper.make_node("Loop", ["", "c", "x"], ["y"], body=body)
    return model(graph([node], [tensor("c", np.array(True))]))


# Scales


def quantized(scale: Any, operator: str = "QuantizeLinear") -> onnx.ModelProto:
    if operator == "Resize":
        node = helper.make_node("Resize", ["x", "", "s"], ["y"])
        return model(graph([node], [tensor("s", scale)], [value("x", (1, 1, 4, 4))]))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize"),
    ]
    return model(graph(nodes, [tensor("s", scale), tensor("z", np.uint8(0))]))


for _name, _scale in {
    "NaN": np.nan,
    "infinite": np.inf,
    "zero": 0.0,
    "negative": -0.1,
    "denormal": 1e-42,
}.items():
    hostile(f"a scale that is {_name}", "K145")(
        lambda scale=_scale: quantized(np.float32(scale))  # type: ignore[misc]
    )


@hostile("a factor that is NaN", "K145", "K144")
def _factor() -> onnx.ModelProto:
    return quantized(np.array([1, 1, np.nan, 2], np.float32), "Resize")


@hostile("packed weights of one byte", "K124", "K144")
def _packed() -> onnx.ModelProto:
    node = helper.make_node(
        "MatMulNBits",
        ["x", "b", "s"],
        ["y"],
        domain="com.microsoft",
        K=4096,
        N=64,
        bits=4,
        block_size=32,
    )
    given = [tensor("b", np.zeros(1, np.uint8)), tensor("s", np.ones(1, np.float32))]
    return model(graph([node], given, [value("x", (1, 4096))]))
