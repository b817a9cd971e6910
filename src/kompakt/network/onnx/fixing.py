"""Inputs fixed to one value, and the branches this decides.

A model such as a voice detector for several sampling rates chooses its whole network by an ``If`` on an input. With
that input fixed, the branch taken becomes the graph and everything else goes: then its layers can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from kompakt.errors import CaptureError
from kompakt.network.onnx.facts import Facts
from kompakt.network.onnx.source import OnnxSource

DEEPEST = 16
"""Decided branches inside decided branches that are followed."""


def with_fixed_inputs(source: OnnxSource, fixed: Mapping[str, float]) -> OnnxSource:
    """The model with some inputs turned into constants, and every ``If`` they decide replaced by its branch.

    Args:
        source: The model.
        fixed: Input name to value; the value fills the whole input.

    Raises:
        CaptureError: K125 when there is no such input, or its size is not fixed.
    """
    proto = source.proto()
    for name, number in fixed.items():
        _fix(proto, name, number)
    for _ in range(DEEPEST):
        current = replace(source, content=proto.SerializeToString())
        if not _take_decided_branches(proto, Facts(current)):
            return current
    return replace(source, content=proto.SerializeToString())


def _fix(proto: onnx.ModelProto, name: str, number: float) -> None:
    given = next((v for v in proto.graph.input if v.name == name), None)
    if given is None:
        names = ", ".join(v.name for v in proto.graph.input)
        raise CaptureError("K125", f"fixing the input {name!r}", why=f"the inputs are {names}")
    tensor = given.type.tensor_type
    sizes = [d.dim_value for d in tensor.shape.dim]
    if any(size < 1 for size in sizes):
        raise CaptureError("K125", f"fixing the input {name!r}", why="its size may change")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    content = np.full(sizes, number).astype(dtype)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    proto.graph.input.remove(given)


def _take_decided_branches(proto: onnx.ModelProto, facts: Facts) -> bool:
    """Replace each ``If`` whose condition is known by its branch, in place; whether there was one."""
    conditions = {
        str(node.outputs[0].name): facts.constant(node.inputs[0])
        for node in facts.model.graph
        if node.op_type == "If" and node.domain in ("", "ai.onnx")
    }
    nodes: list[onnx.NodeProto] = []
    taken = False
    for node in proto.graph.node:
        condition = conditions.get(node.output[0]) if node.output else None
        if condition is None:
            nodes.append(node)
            continue
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == wanted)
        nodes.extend(_branch_nodes(branch, list(node.output)))
        proto.graph.initializer.extend(branch.initializer)
        taken = True
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return taken


def _branch_nodes(branch: onnx.GraphProto, outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes of a branch; its outputs get the names the ``If`` gave them."""
    names = {inner.name: outer for inner, outer in zip(branch.output, outputs, strict=True)}
    made = {name for node in branch.node for name in node.output}
    nodes = []
    for node in branch.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        _rename(copied, names)
        nodes.append(copied)
    # A branch may hand out a value it did not make, or one value twice.
    for value, outer in zip(branch.output, outputs, strict=True):
        if value.name not in made:
            nodes.append(onnx.helper.make_node("Identity", [value.name], [outer]))
        elif names[value.name] != outer:
            nodes.append(onnx.helper.make_node("Identity", [names[value.name]], [outer]))
    return nodes


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    made = set(node.output) & set(names)
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)
    for place, name in enumerate(node.output):
        node.output[place] = names.get(name, name)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            own = {n for inner in graph.node for n in inner.output} | {v.name for v in graph.input}
            hidden = {k: v for k, v in names.items() if k not in own or k in made}
            for inner in graph.node:
                _rename(inner, hidden)
            for value in graph.output:
                value.name = hidden.get(value.name, value.name)


__all__ = ["with_fixed_inputs"]
