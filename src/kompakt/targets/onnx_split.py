"""Splitting without sequences.

The exporter splits a tensor into a *sequence* and takes its parts out one by one. Integer kernels and graph
optimizers know no sequences, so codes would be decoded for nothing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def split_tensors(model: ir.Model) -> None:
    """Turn every ``SplitToSequence`` with constant sizes, whose parts have constant indices, into ``Split``."""
    for node in list(model.graph):
        if node.op_type != "SplitToSequence" or node.attributes.get_int("keepdims", 1) != 1:
            continue
        sizes = _sizes(node)
        parts = [(use.node, _index(use.node)) for use in node.outputs[0].uses()]
        outputs = [index for part, index in parts if part.outputs[0].is_graph_output()]
        # A part that is handed out twice would have to have two names.
        if len(outputs) > len(set(outputs)):
            continue
        if sizes is not None and all(index is not None for _, index in parts):
            _replace(model, node, sizes, [(part, int(index or 0)) for part, index in parts])


def _replace(
    model: ir.Model, node: ir.Node, sizes: list[int], parts: list[tuple[ir.Node, int]]
) -> None:
    name = str(node.outputs[0].name)
    constant = ir.Tensor(np.array(sizes, np.int64), name=f"{name}.sizes")
    value = ir.Value(
        name=f"{name}.sizes",
        shape=ir.Shape(constant.shape),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=constant,
    )
    model.graph.register_initializer(value)
    split = ir.node(
        "Split",
        [node.inputs[0], value],
        attributes={"axis": node.attributes.get_int("axis", 0)},
        outputs=[ir.Value(name=f"{name}.{position}") for position in range(len(sizes))],
    )
    model.graph.insert_after(node, split)
    for part, index in parts:
        output = split.outputs[index]
        old = part.outputs[0]
        output.shape, output.type = old.shape, old.type
        kept = old.name if old.is_graph_output() else output.name
        old.replace_all_uses_with(output, replace_graph_outputs=True)
        model.graph.remove(part, safe=True)
        output.name = kept
    model.graph.remove(node, safe=True)


def _sizes(node: ir.Node) -> list[int] | None:
    """The sizes of all parts, or None when they are not constant."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    wanted = ir.convenience.get_const_tensor(given) if given is not None else None
    if wanted is None or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    if wanted.numpy().ndim:
        return [int(size) for size in wanted.numpy()]
    whole, size = node.inputs[0].shape[node.attributes.get_int("axis", 0)], int(wanted.numpy())
    if not isinstance(whole, int):
        return None
    return [min(size, whole - start) for start in range(0, whole, size)]


def _index(node: ir.Node) -> int | None:
    """The constant index of a ``SequenceAt``, or None for anything else."""
    if node.op_type != "SequenceAt" or node.inputs[1] is None:
        return None
    index = ir.convenience.get_const_tensor(node.inputs[1])
    return None if index is None else int(index.numpy())
