"""Rules about numbers and types: what TensorRT's parser refuses, or reads as something else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from kompakt.targets.tensorrt_graph import DEQUANTIZE, PASSING, QUANTIZE, Graph, attribute

Finding = tuple[NodeProto, str, str]
"""The node, the tensor, and what is wrong there."""

T = TensorProto
FOUR_BITS = frozenset({T.INT4, T.FLOAT4E2M1})
SYMMETRIC = frozenset({T.INT8, T.FLOAT8E4M3FN, *FOUR_BITS})
BLOCKED = frozenset({T.FLOAT8E4M3FN, *FOUR_BITS})
OLDEST, NEWEST = 9, 25
FIXED = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
)
SINCE: dict[int, int] = {
    T.INT8: 10, T.UINT8: 10, T.FLOAT8E4M3FN: 19, T.FLOAT8E5M2: 19, T.INT4: 21, T.UINT4: 21,
    T.INT16: 21, T.UINT16: 21, T.FLOAT4E2M1: 23,
}  # fmt: skip
"""The opset that brought Q/DQ of these types."""


def type_name(kind: int | None) -> str:
    """An element type in words."""
    return "unknown" if kind is None else str(TensorProto.DataType.Name(kind)).lower()


def zero_points(graph: Graph) -> Iterator[Finding]:
    """Every zero point is 0."""
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        name = node.input[2] if len(node.input) > 2 else ""
        numbers = graph.numbers(name) if name else None
        if numbers is not None and numbers.size and np.any(numbers):
            worst = numbers.reshape(-1)[np.argmax(np.abs(numbers.reshape(-1)))]
            yield node, name, f"its zero point is {worst:g}"


def code_types(graph: Graph) -> Iterator[Finding]:
    """Codes are int8, int4, fp8 (e4m3) or fp4."""
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        kind = graph.codes_type(node)
        stored_bias = node.op_type == DEQUANTIZE and kind == T.INT32
        if kind is not None and kind not in SYMMETRIC and not stored_bias:
            tensor = node.output[0] if node.op_type == QUANTIZE else node.input[0]
            yield node, tensor, f"its codes are {type_name(kind)}"


def bias_codes(graph: Graph) -> Iterator[Finding]:
    """Biases are float numbers, not decoded int32."""
    for node in graph.of_type(DEQUANTIZE):
        if graph.codes_type(node) == T.INT32:
            yield node, node.input[0], "it decodes int32 codes"


def positive_scales(graph: Graph) -> Iterator[Finding]:
    """Every scale is a positive, finite number."""
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        numbers = graph.numbers(node.input[1])
        if numbers is not None and not np.all(np.isfinite(numbers) & (numbers > 0)):
            wrong = numbers[~(np.isfinite(numbers) & (numbers > 0))].reshape(-1)[0]
            yield node, node.input[1], f"its scale is {wrong:g}"


def constant_grids(graph: Graph) -> Iterator[Finding]:
    """Scales and zero points are constants."""
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        for name in node.input[1:3]:
            if name and not graph.is_constant(name):
                what = "scale" if name == node.input[1] else "zero point"
                yield node, name, f"its {what} is computed while the model runs"


def scale_shapes(graph: Graph) -> Iterator[Finding]:
    """A scale has one number, one for each channel of its axis, or one for each block."""
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        scale, shape = graph.shape(node.input[1]), graph.shape(node.input[0])
        if not scale or shape is None or np.prod(scale) == 1:
            continue
        axis = _axis(node, len(shape))
        block = attribute(node, "block_size", 0)
        if axis is None:
            yield node, node.input[1], f"its axis lies outside of {len(shape)} dimensions"
        elif block:
            wanted = tuple(-(-d // block) if i == axis else d for i, d in enumerate(shape))
            if scale != wanted:
                yield node, node.input[1], f"its scale has shape {scale}, its blocks {wanted}"
        elif len(scale) != 1 or scale[0] != shape[axis]:
            wanted = (shape[axis],)
            yield node, node.input[1], f"its scale has shape {scale}, its channels {wanted}"


def tensor_activations(graph: Graph) -> Iterator[Finding]:
    """Activations have one scale for the whole tensor."""
    for node in graph.of_type(QUANTIZE):
        scale = graph.shape(node.input[1])
        if scale and np.prod(scale) > 1 and not graph.is_constant(node.input[0]):
            count = int(np.prod(scale))
            yield node, node.input[1], f"the activation {node.input[0]} has {count:,} scales"


def weight_axes(graph: Graph) -> Iterator[Finding]:
    """Scales of weights follow output channels."""
    for node in graph.of_type("Conv", "ConvTranspose", "Gemm", "MatMul"):
        if len(node.input) < 2:
            continue
        decode, moved = _stored_decoder(graph, node.input[1])
        if decode is None or attribute(decode, "block_size", 0):
            continue
        scale, shape = graph.shape(decode.input[1]), graph.shape(_stored(graph, decode))
        if not scale or np.prod(scale) == 1 or shape is None:
            continue
        axis, wanted = _axis(decode, len(shape)), _channel_axis(node, len(shape), moved)
        if wanted is not None and axis is not None and axis != wanted:
            yield (
                decode,
                decode.input[1],
                (
                    f"the scales of {node.op_type} {node.name} lie along axis {axis}, its output "
                    f"channels along {wanted}"
                ),
            )


def four_bit_weights(graph: Graph) -> Iterator[Finding]:
    """4-bit integer codes are those of weights."""
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        if graph.codes_type(node) != T.INT4 or graph.is_constant(node.input[0]):
            continue
        if node.op_type == QUANTIZE:
            yield node, node.output[0], "it makes 4-bit codes of an activation"


def block_layout(graph: Graph) -> Iterator[Finding]:
    """Blocks are of 4-bit or fp8 codes, along one of the last two axes, and divide it."""
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        block = attribute(node, "block_size", 0)
        if not block:
            continue
        kind, shape = graph.codes_type(node), graph.shape(node.input[0])
        if kind is not None and kind in SYMMETRIC and kind not in BLOCKED:
            yield node, node.input[0], f"it has blocks of {type_name(kind)} codes"
        axis = None if shape is None else _axis(node, len(shape))
        if shape is None or axis is None:
            continue
        if axis < len(shape) - 2:
            yield node, node.input[0], f"its blocks lie along axis {axis} of {len(shape)}"
        elif shape[axis] % block:
            yield node, node.input[0], f"blocks of {block} do not divide {shape[axis]} numbers"


def fixed_operators(graph: Graph) -> Iterator[Finding]:
    """There are no operators on codes: integer products and dynamic quantization have no import."""
    for node in graph.nodes:
        quantized = node.domain == "com.microsoft" and (
            node.op_type.startswith(("QLinear", "QGemm", "QAttention", "QEmbed", "MatMulNBits"))
            or node.op_type in (QUANTIZE, DEQUANTIZE)
            or "Integer" in node.op_type
        )
        if quantized or (not node.domain and node.op_type in FIXED):
            where = f"{node.domain}." if node.domain else ""
            yield node, node.output[0], f"it is a {where}{node.op_type}"


def opsets(graph: Graph) -> Iterator[Finding]:
    """The opset is one the parser reads, and has Q/DQ of these codes."""
    version = graph.opset.get("", graph.opset.get("ai.onnx", 0))
    first = next(iter(graph.nodes), None)
    if first is not None and not OLDEST <= version <= NEWEST:
        yield first, first.output[0], f"the file has opset {version}"
    for node in graph.of_type(QUANTIZE, DEQUANTIZE):
        needed = SINCE.get(graph.codes_type(node) or T.INT8, 10)
        scale = graph.shape(node.input[1])
        if scale and np.prod(scale) > 1:
            needed = max(needed, 13)
        if attribute(node, "block_size", 0):
            needed = max(needed, 21)
        if OLDEST <= version < needed:
            yield node, node.input[1], f"it needs opset {needed}, the file has {version}"


def _axis(node: NodeProto, rank: int) -> int | None:
    axis = attribute(node, "axis", 1)
    axis += rank if axis < 0 else 0
    return axis if 0 <= axis < rank else None


def _stored(graph: Graph, decode: NodeProto) -> str:
    """The stored tensor behind the DQ of a weight: its codes, or the float numbers they are made of."""
    encode = graph.maker(decode.input[0])
    made = encode is not None and encode.op_type == QUANTIZE
    return str(encode.input[0] if made and encode is not None else decode.input[0])


def _stored_decoder(graph: Graph, name: str) -> tuple[NodeProto | None, list[NodeProto]]:
    """The DQ of a stored weight, and the operators its numbers go through behind it."""
    moved: list[NodeProto] = []
    node = graph.maker(name)
    while node is not None and node.op_type in PASSING and len(moved) < 64:
        moved.append(node)
        node = graph.maker(node.input[0])
    if node is None or node.op_type != DEQUANTIZE or not graph.decodes_weight(node):
        return None, moved
    return node, moved


def _channel_axis(layer: NodeProto, rank: int, moved: list[NodeProto]) -> int | None:
    """The axis of output channels in the stored weight; None when it was moved in another way than transposed."""
    kind = layer.op_type
    if kind == "Conv":
        axis = 0
    elif kind == "ConvTranspose":
        axis = 1
        if attribute(layer, "group", 1) != 1:
            return None
    elif kind == "Gemm":
        axis = 0 if attribute(layer, "transB", 0) else 1
    else:
        axis = rank - 1
    for node in moved:
        if node.op_type == "Identity":
            continue
        if node.op_type != "Transpose":
            return None
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        axis = (order or list(range(rank))[::-1])[axis]
    return axis
