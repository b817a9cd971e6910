"""Small rewrites of an exported model that let ONNX Runtime fuse it into integer kernels.

Each function edits the model in place and says in its name what it does; none changes what the model computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    IdentityEliminationPass,
    RemoveUnusedNodesPass,
)


def tidy(model: ir.Model) -> None:
    """Remove what the exporter leaves behind: identities, unused nodes, repeated subexpressions."""
    if not any(_hands_out_twice(node) for node in model.graph):
        IdentityEliminationPass()(model)  # it would give both outputs one name
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)


def _hands_out_twice(node: ir.Node) -> bool:
    """Whether this is an identity between two outputs of the graph."""
    if node.op_type != "Identity" or node.inputs[0] is None:
        return False
    return node.outputs[0].is_graph_output() and node.inputs[0].is_graph_output()


def absorb_padding(model: ir.Model) -> None:
    """Turn ``Pad`` (with zeros) before a convolution into the convolution's own padding."""
    for node in list(model.graph):
        if node.op_type != "Conv" or node.inputs[0] is None:
            continue
        pad = node.inputs[0].producer()
        if pad is None or pad.op_type != "Pad" or len(list(pad.outputs[0].uses())) != 1:
            continue
        pads = _spatial_zero_padding(pad)
        if pads is None or _string(node, "auto_pad", "NOTSET") != "NOTSET":
            continue
        own = node.attributes.get("pads")
        before = list(own.as_ints()) if own is not None else [0] * len(pads)
        node.attributes["pads"] = ir.AttrInt64s(
            "pads", [a + b for a, b in zip(before, pads, strict=True)]
        )
        node.replace_input_with(0, pad.inputs[0])
        model.graph.remove(pad, safe=True)


def _spatial_zero_padding(pad: ir.Node) -> list[int] | None:
    """The pads of the spatial axes, or None when the node pads anything else or not with zeros."""
    if _string(pad, "mode", "constant") != "constant" or len(pad.inputs) > 3:
        return None
    amounts = ir.convenience.get_const_tensor(pad.inputs[1]) if pad.inputs[1] else None
    if amounts is None:
        return None
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        value = ir.convenience.get_const_tensor(pad.inputs[2])
        if value is None or float(value.numpy()) != 0.0:
            return None
    flat = [int(v) for v in amounts.numpy()]
    rank = len(flat) // 2
    if rank < 3 or any(flat[i] or flat[rank + i] for i in (0, 1)) or min(flat) < 0:
        return None
    return flat[2:rank] + flat[rank + 2 :]


def pad_codes(model: ir.Model) -> None:
    """Pad codes instead of floats: ``DQ → Pad → Q`` on one grid becomes ``Pad`` with the zero point."""
    for node in list(model.graph):
        if node.op_type != "Pad" or node.inputs[0] is None:
            continue
        before, users = node.inputs[0].producer(), list(node.outputs[0].uses())
        if before is None or before.op_type != "DequantizeLinear" or len(users) != 1:
            continue
        after = users[0].node
        if after.op_type != "QuantizeLinear" or not _same_grid(before, after):
            continue
        zero_point = before.inputs[2]
        if zero_point is None or zero_point.dtype not in (ir.DataType.INT8, ir.DataType.UINT8):
            continue  # ONNX Runtime pads no 16-bit integers
        constant = node.inputs[2] if len(node.inputs) > 2 else None
        value = ir.convenience.get_const_tensor(constant) if constant is not None else None
        if _string(node, "mode", "constant") != "constant" or (
            value is not None and float(value.numpy()) != 0.0
        ):
            continue
        axes = node.inputs[3:4]
        padded = ir.node(
            "Pad",
            [before.inputs[0], node.inputs[1], zero_point, *axes],
            outputs=[ir.Value(name=f"{after.outputs[0].name}_padded", shape=node.outputs[0].shape)],
        )
        padded.outputs[0].type = after.outputs[0].type
        model.graph.insert_after(after, padded)
        ir.convenience.replace_all_uses_with(after.outputs[0], padded.outputs[0])
        model.graph.remove(after, safe=True)
        model.graph.remove(node, safe=True)


def shield_float_weights(model: ir.Model) -> None:
    """Keep ONNX Runtime from quantizing what the scheme leaves in float.

    Between a ``DequantizeLinear`` and a ``QuantizeLinear`` it rounds the float weights of a convolution, a transposed
    convolution or a ``Gemm`` to 8 bits on its own account. A ``Sum`` of one tensor, which computes nothing, hides the
    pattern.
    """
    for node in list(model.graph):
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 2:
            continue
        before, weight = (v.producer() if v is not None else None for v in node.inputs[:2])
        quantized = any(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses())
        if not quantized or before is None or before.op_type != "DequantizeLinear":
            continue
        if weight is not None and weight.op_type == "DequantizeLinear":
            continue
        source = before.outputs[0]
        shield = ir.node("Sum", [source], outputs=[ir.Value(name=f"{node.outputs[0].name}.input")])
        shield.outputs[0].shape, shield.outputs[0].type = source.shape, source.type
        model.graph.insert_before(node, shield)
        node.replace_input_with(0, shield.outputs[0])


def _same_grid(a: ir.Node, b: ir.Node) -> bool:
    return a.inputs[1] is b.inputs[1] and a.inputs[2] is b.inputs[2]


def _string(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def store_in_four_bits(model: ir.Model, names: Mapping[str, str]) -> None:
    """Store int8 code tensors as the 4-bit type their values fit in.

    Args:
        model: The model.
        names: Initializer name to ``int4`` or ``uint4``.
    """
    kinds = {"int4": ir.DataType.INT4, "uint4": ir.DataType.UINT4}
    for name, kind in names.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        codes = value.const_value.numpy()
        packed = codes.astype(kinds[kind].numpy())
        value.const_value = ir.Tensor(np.ascontiguousarray(packed), dtype=kinds[kind], name=name)
        value.dtype = kinds[kind]


def widen_when_loaded(model: ir.Model, names: Collection[str]) -> None:
    """Store int8 code tensors in 4 bits, with a ``Cast`` back to int8 behind each, in place.

    ONNX Runtime's integer kernels know 8-bit weights only. It computes the cast when it loads the file, before it looks
    for patterns of codes, and then finds what it would have found with weights of 8 bits.

    Args:
        model: The model.
        names: Names of initializers that hold codes from -8 to 7.
    """
    for name in names:
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        kind = ir.TensorType(ir.DataType.INT8)
        widened = ir.Value(name=f"{name}_in_8_bits", shape=value.shape, type=kind)
        cast = ir.node(
            "Cast", [value], attributes={"to": ir.DataType.INT8.value}, outputs=[widened]
        )
        cast.name = f"{name}/Cast"
        first = next(iter(model.graph), None)
        ir.convenience.replace_all_uses_with(value, widened)
        cast.replace_input_with(0, value)
        model.graph.insert_before(first, cast) if first is not None else model.graph.append(cast)
        store_in_four_bits(model, {name: "int4"})


def name_codes(model: ir.Model, sites: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Name the codes of every quantizer after its site.

    Args:
        model: The model.
        sites: Name of a quantizer's scale initializer to the sites of its calls, in graph order.

    Returns:
        Site to the name of the value that holds its codes.
    """
    found: dict[str, str] = {}
    met: Counter[str] = Counter()
    for node in model.graph:
        scale = str(node.inputs[1].name) if len(node.inputs) > 1 and node.inputs[1] else ""
        if node.op_type != "QuantizeLinear" or scale not in sites:
            continue
        position = min(met[scale], len(sites[scale]) - 1)
        met[scale] += 1
        site = sites[scale][position]
        if site not in found:
            node.outputs[0].name = found[site] = f"{site}.codes"
    return found


def fix_reshapes(model: ir.Model) -> None:
    """Drop every ``Reshape`` that changes nothing; give those with one dynamic size a constant shape.

    The exporter computes such sizes at run time, with several small operators for each.
    """
    for node in list(model.graph):
        if node.op_type != "Reshape" or len(node.inputs) < 2 or node.inputs[0] is None:
            continue
        if _sizes_equal(node.inputs[0].shape, node.outputs[0].shape):
            if node.outputs[0] not in model.graph.outputs:
                ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
                model.graph.remove(node, safe=True)
            continue
        wanted = node.inputs[1]
        if wanted is None or ir.convenience.get_const_tensor(wanted) is not None:
            continue
        sizes = _constant_sizes(node.outputs[0].shape)
        if sizes is None:
            continue
        constant = np.array(sizes, np.int64)
        name = f"{node.outputs[0].name}.shape"
        value = ir.Value(
            name=name,
            shape=ir.Shape(constant.shape),
            type=ir.TensorType(ir.DataType.INT64),
            const_value=ir.Tensor(constant, name=name),
        )
        model.graph.register_initializer(value)
        node.replace_input_with(1, value)


def _sizes_equal(before: ir.Shape | None, after: ir.Shape | None) -> bool:
    """Whether a reshape changes nothing: every size is the same number or the same symbol."""
    if before is None or after is None or len(before) != len(after):
        return False
    return all(
        a == b if isinstance(b, int) else b.value is not None and _same(a, b)
        for a, b in zip(before, after, strict=True)
    )


def _constant_sizes(after: ir.Shape | None) -> list[int] | None:
    """The sizes of a reshape as constants, or None when more than one is dynamic.

    Writing "as it is" (0) for the others would be shorter still, but ONNX Runtime then loses the sizes' names and
    its fusion of matrix products with additions builds a graph it refuses to load.
    """
    if after is None:
        return None
    sizes = [size if isinstance(size, int) else -1 for size in after]
    return sizes if sizes.count(-1) == 1 and 0 not in sizes else None


def _same(a: int | ir.SymbolicDim, b: ir.SymbolicDim) -> bool:
    return isinstance(a, ir.SymbolicDim) and a.value == b.value


def strip_metadata(model: ir.Model) -> None:
    """Drop the exporter's per-node stack traces: they hold paths of the machine and bloat the file."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
