"""Rules about where Q/DQ pairs stand: a file that breaks them is read, but runs in float or moves more than it must."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from kompakt.targets.tensorrt_graph import DEQUANTIZE, PASSING, QUANTIZE, Graph
from kompakt.targets.tensorrt_number_rules import FOUR_BITS, Finding

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ACTIVATIONS = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "Tanh", "HardSigmoid"),
        *("HardSwish", "Gelu", "Softplus", "BatchNormalization"),
    }
)
MOVERS = PASSING | {"MaxPool", "Slice", "Split", "Pad", "Resize", "Gather", "Squeeze", "Expand"}


def float_weights(graph: Graph) -> Iterator[Finding]:
    """A layer that reads codes has coded weights."""
    for node in graph.of_type(*LAYERS):
        if len(node.input) < 2 or _reads_codes(graph, node) is None:
            continue
        weight = node.input[1]
        if graph.decoder(weight) is None and graph.is_constant(weight):
            yield node, weight, "its input is quantized, its weights are not"


def float_inputs(graph: Graph) -> Iterator[Finding]:
    """A layer with 8-bit weights reads codes; a file without any quantized activation means it otherwise."""
    if all(graph.is_constant(node.input[0]) for node in graph.of_type(QUANTIZE)):
        return
    for node in graph.of_type(*LAYERS):
        decode = graph.decoder(node.input[1]) if len(node.input) > 1 else None
        if decode is None or not graph.decodes_weight(decode):
            continue
        if graph.codes_type(decode) in FOUR_BITS or _reads_codes(graph, node) is not None:
            continue
        yield node, node.input[0], "its weights are quantized, its input is not"


def residual_branches(graph: Graph) -> Iterator[Finding]:
    """What is added to a quantized convolution, and rounded behind that, is quantized, too."""
    for node in graph.of_type("Add"):
        layers = [_quantized_layer(graph, name) for name in node.input]
        if not any(layers) or not _rounded(graph, node):
            continue
        for name, layer in zip(node.input, layers, strict=True):
            if layer is None and graph.decoder(name) is None and not graph.is_constant(name):
                yield node, name, "this branch of the addition is not quantized"
                break
        else:
            if all(layers):
                yield node, node.input[1], "neither branch of the addition is quantized"


def split_additions(graph: Graph) -> Iterator[Finding]:
    """Nothing is quantized between a convolution and the one addition that reads it."""
    for node in graph.of_type("Add"):
        if any(_quantized_layer(graph, name) for name in node.input):
            continue
        sources = [graph.quantized_source(name) for name in node.input]
        if not all(sources):
            continue
        for name, source in zip(node.input, sources, strict=True):
            maker = graph.maker(source or "")
            if maker is None or maker.op_type != "Conv" or not _only_for(graph, maker, node):
                continue
            yield node, name, f"a Q/DQ pair separates it from {maker.op_type} {maker.name}"
            break


def split_activations(graph: Graph) -> Iterator[Finding]:
    """Nothing is quantized between a layer and its activation."""
    for node in graph.of_type(*ACTIVATIONS):
        source = graph.quantized_source(node.input[0])
        maker = graph.maker(source or "")
        if maker is not None and not maker.domain and maker.op_type in LAYERS:
            yield node, node.input[0], f"a Q/DQ pair separates it from {maker.op_type} {maker.name}"


def quantized_outputs(graph: Graph) -> Iterator[Finding]:
    """What the model hands out is not rounded first."""
    for name in graph.outputs:
        decode = graph.maker(name)
        if decode is None or decode.op_type != DEQUANTIZE or graph.decodes_weight(decode):
            continue
        yield decode, name, "an output of the model is quantized and decoded again"


def lone_quantizers(graph: Graph) -> Iterator[Finding]:
    """Every Q has its DQ."""
    for node in graph.of_type(QUANTIZE):
        readers = graph.read_by.get(node.output[0], [])
        if node.output[0] in graph.outputs:
            yield node, node.output[0], "its codes are an output of the model"
        elif not any(reader.op_type in MOVERS | {DEQUANTIZE} for reader in readers):
            yield node, node.output[0], "nothing decodes its codes"


def concat_scales(graph: Graph) -> Iterator[Finding]:
    """Tensors that are joined share one scale."""
    for node in graph.of_type("Concat"):
        decoders = [graph.decoder(name) for name in node.input]
        known = [d for d in decoders if d is not None and not graph.decodes_weight(d)]
        scales = [graph.numbers(d.input[1]) for d in known]
        values = {s.tobytes() for s in scales if s is not None}
        if len(values) > 1:
            yield node, node.input[0], f"its inputs have {len(values)} different scales"


def _reads_codes(graph: Graph, layer: NodeProto) -> NodeProto | None:
    """The DQ behind a layer's input, when it decodes an activation."""
    decode = graph.decoder(layer.input[0])
    if decode is None and layer.input:
        maker = graph.maker(layer.input[0])
        # Padding and pooling may stand between: TensorRT moves the DQ through them.
        if maker is not None and maker.op_type in MOVERS and maker.input:
            decode = graph.decoder(maker.input[0])
    return None if decode is None or graph.decodes_weight(decode) else decode


def _quantized_layer(graph: Graph, name: str) -> NodeProto | None:
    """The convolution on codes that makes a tensor."""
    maker = graph.maker(name)
    if maker is None or maker.op_type != "Conv" or maker.domain or len(maker.input) < 2:
        return None
    return maker if _reads_codes(graph, maker) and graph.decoder(maker.input[1]) else None


def _rounded(graph: Graph, node: NodeProto) -> bool:
    """Whether codes are made of what a node computes, past an activation and what moves numbers."""
    waiting, met = list(node.output), set()
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met.add(name)
        for reader in graph.read_by.get(name, []):
            if reader.op_type == QUANTIZE:
                return True
            if reader.op_type in ACTIVATIONS or reader.op_type in MOVERS:
                waiting.extend(reader.output)
    return False


def _only_for(graph: Graph, layer: NodeProto, addition: NodeProto) -> bool:
    """Whether everything a layer makes goes, by one Q/DQ pair, into one addition."""
    name = layer.output[0]
    for expected in (QUANTIZE, DEQUANTIZE):
        readers = graph.read_by.get(name, [])
        if name in graph.outputs or len(readers) != 1 or readers[0].op_type != expected:
            return False
        name = readers[0].output[0]
    readers = graph.read_by.get(name, [])
    return name not in graph.outputs and len(readers) == 1 and readers[0] is addition
