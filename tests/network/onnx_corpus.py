"""Hostile model files, made anew each time: name, what must be said about each, and the files themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Hostile:
    """One file.

    Attributes:
        name: What is wrong with it.
        codes: The error codes that are right; several where packages differ from version to version.
        write: Writes the file (and what belongs to it) into a folder, and returns its path.
    """

    name: str
    codes: tuple[str, ...]
    write: Callable[[Path], Path]


def tensor(name: str, array: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def value(name: str, shape: Any = (1, 4), kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    nodes: list[onnx.NodeProto], initializers: Any = (), inputs: Any = None, outputs: Any = None
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "g",
        [value("x")] if inputs is None else inputs,
        [value("y", None)] if outputs is None else outputs,
        list(initializers),
    )


def model(made: onnx.GraphProto, functions: Any = (), opset: int = 17) -> onnx.ModelProto:
    imports = [
        helper.make_opsetid("", opset),
        *[helper.make_opsetid(d, 1) for d in ("f", "com.microsoft")],
    ]
    return helper.make_model(made, opset_imports=imports, functions=list(functions), ir_version=10)


def linear() -> onnx.ModelProto:
    """A good model, to be spoilt."""
    weight = tensor("w", np.ones((4, 3), np.float32))
    return model(graph([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], [weight]))


Maker = Callable[[], onnx.ModelProto | bytes]
_MADE: list[Hostile] = []


def hostile(name: str, *codes: str) -> Callable[[Maker], Maker]:
    """Register a file that one function makes."""

    def register(make: Maker) -> Maker:
        def write(folder: Path) -> Path:
            made, path = make(), folder / "model.onnx"
            path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
            return path

        _MADE.append(Hostile(name, codes, write))
        return make

    return register


def spoilt(name: str, *codes: str) -> Callable[[Callable[[onnx.ModelProto], Any]], Any]:
    """Register a good model with something changed."""

    def register(change: Callable[[onnx.ModelProto], Any]) -> Any:
        def make() -> onnx.ModelProto:
            made = linear()
            change(made)
            return made

        hostile(name, *codes)(make)
        return change

    return register


# The file

for _name, _content in {
    "empty": b"",
    "text": b"this is no model\n" * 10,
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "cut off": linear().SerializeToString()[:-7],
    "endless length": b"\x3a\xff\xff\xff\xff\x0f" + bytes(50),
    "nested groups": b"\x0b" * 5000,
    "no graph": onnx.ModelProto(ir_version=9).SerializeToString(),
}.items():
    hostile(_name, "K140")(lambda content=_content: content)  # type: ignore[misc]


@hostile("a million empty nodes", "K141")
def _million() -> bytes:
    inner = b"\x0a\x00" * 1_000_000
    size, varint = len(inner), b""
    while size:
        varint += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
    return b"\x08\x0a\x42\x04\x0a\x00\x10\x11\x3a" + varint + inner


@spoilt("a name of a megabyte", "K141")
def _long_name(m: onnx.ModelProto) -> None:
    m.graph.node[0].name = "n" * 1_000_000


@spoilt("a name of a thousand parts", "K141")
def _many_parts(m: onnx.ModelProto) -> None:
    m.graph.node[0].name = "/".join("a" * 1000)


@hostile("a name that is no text", "K140", "K144")
def _bad_text() -> bytes:
    return linear().SerializeToString().replace(b"MatMul", b"Mat\xff\xfel")


@spoilt("no version of operators", "K140")
def _no_opset(m: onnx.ModelProto) -> None:
    del m.opset_import[:]


@spoilt("two versions of operators", "K144")
def _two_opsets(m: onnx.ModelProto) -> None:
    m.opset_import.append(helper.make_opsetid("", 9))


@spoilt("a version from the future", "K144", "K124")
def _future(m: onnx.ModelProto) -> None:
    m.opset_import[0].version = 9999


@spoilt("a format that does not exist", "K140")
def _format(m: onnx.ModelProto) -> None:
    m.ir_version = -3


# Tensors


@spoilt("raw data too short", "K142")
def _short(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].raw_data = b"1234"


@spoilt("raw data too long", "K142")
def _long(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].raw_data += b"1234"


@spoilt("data missing", "K142")
def _missing(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].ClearField("raw_data")


@spoilt("data there twice", "K142")
def _twice(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].float_data.extend([1.0] * 12)


@spoilt("negative sizes", "K142")
def _negative(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].dims[:] = [-4, -3]


@spoilt("sizes that overflow", "K142")
def _overflow(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].dims[:] = [1 << 62, 8]


@spoilt("nothing of a huge size", "K142")
def _nothing(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].dims[:] = [0, 1 << 62]
    m.graph.initializer[0].ClearField("raw_data")


@spoilt("a hundred dimensions", "K141")
def _rank(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].dims[:] = [1] * 98 + [4, 3]


@spoilt("an element type that does not exist", "K142")
def _type(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].data_type = 77


@spoilt("numbers in the field of another type", "K142")
def _field(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].ClearField("raw_data")
    m.graph.initializer[0].int64_data.extend([1] * 12)


@spoilt("a segment", "K142")
def _segment(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].segment.end = 3


@spoilt("text as raw bytes", "K142")
def _text(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].data_type = TensorProto.STRING


@spoilt("sparse weights for a gigabyte", "K144")
def _sparse(m: onnx.ModelProto) -> None:
    sparse = m.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor("s", np.ones(1, np.float32)))
    sparse.indices.CopyFrom(tensor("i", np.zeros(1, np.int64)))
    sparse.dims.extend([1 << 27])


# Wiring


@spoilt("a cycle", "K144")
def _cycle(m: onnx.ModelProto) -> None:
    m.graph.node[0].input[0] = "b"
    m.graph.node.append(helper.make_node("Relu", ["y"], ["b"]))


@spoilt("a value made twice", "K144")
def _made_twice(m: onnx.ModelProto) -> None:
    m.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


@spoilt("an input that is made again", "K144")
def _input_again(m: onnx.ModelProto) -> None:
    m.graph.node.append(helper.make_node("Relu", ["y"], ["x"]))


@spoilt("two initializers of one name", "K144")
def _two_initializers(m: onnx.ModelProto) -> None:
    m.graph.initializer.append(m.graph.initializer[0])


@spoilt("two inputs of one name", "K144")
def _two_inputs(m: onnx.ModelProto) -> None:
    m.graph.input.append(value("x"))


@spoilt("an output that nothing makes", "K144")
def _no_output(m: onnx.ModelProto) -> None:
    m.graph.output[0].name = "z"


@spoilt("a value that nothing makes", "K144")
def _no_value(m: onnx.ModelProto) -> None:
    m.graph.node[0].input[0] = "z"


@spoilt("an operator that does not exist", "K144", "K124")
def _operator(m: onnx.ModelProto) -> None:
    m.graph.node[0].op_type = "Explode"


@spoilt("an operator of a stranger", "K124", "K144")
def _stranger(m: onnx.ModelProto) -> None:
    m.graph.node[0].domain = "com.microsoft"


@spoilt("a type that does not fit", "K124", "K144")
def _types(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].CopyFrom(tensor("w", np.ones((4, 3), np.int64)))


@spoilt("shapes that do not fit", "K124", "K144", "K122")
def _shapes(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].CopyFrom(tensor("w", np.ones((5, 3), np.float32)))


@spoilt("an attribute twice", "K144")
def _attribute_twice(m: onnx.ModelProto) -> None:
    m.graph.node[0].attribute.extend([helper.make_attribute("a", 1), helper.make_attribute("a", 2)])


@spoilt("an attribute that lies about its type", "K144")
def _attribute_type(m: onnx.ModelProto) -> None:
    attribute = helper.make_attribute("a", 1)
    attribute.type = onnx.AttributeProto.GRAPH
    m.graph.node[0].attribute.append(attribute)


@spoilt("an input of terabytes", "K141")
def _huge_input(m: onnx.ModelProto) -> None:
    m.graph.input[0].CopyFrom(value("x", (1 << 38, 4)))


@spoilt("a size that is no size", "K144")
def _odd_size(m: onnx.ModelProto) -> None:
    m.graph.input[0].CopyFrom(value("x", (-7, 4)))


def corpus() -> Iterator[Hostile]:
    """The files that are alone; those with weights beside them are in ``onnx_corpus_beside``.

    ``onnx_corpus_graphs`` adds some when it is imported.
    """
    yield from _MADE


def external(location: str, **entries: Any) -> onnx.ModelProto:
    """The good model with its weights somewhere else."""
    made = linear()
    stored = made.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, content in {"location": location, **entries}.items():
        stored.external_data.add(key=key, value=str(content))
    return made


NEEDED = 48
"""Bytes of the good model's weights."""


def save(made: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path
