"""TensorRT's rules for explicitly quantized ONNX, each with its source: what ``kompakt lint`` checks.

An ``error`` is refused by TensorRT or computed otherwise than the file says; a ``warning`` costs speed, because a layer
runs in float or a fusion is lost. TensorRT itself is not needed: only the graph is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import onnx
from onnx import AttributeProto

from kompakt.targets import tensorrt_number_rules as numbers
from kompakt.targets import tensorrt_placement_rules as placement
from kompakt.targets.tensorrt_graph import Graph
from kompakt.targets.tensorrt_number_rules import Finding

Severity = Literal["error", "warning"]

_DOCS = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/"
TYPES = f"{_DOCS}work-quantized-types.html"
SCHEMES = f"{_DOCS}quantized-types-schemes.html"
EXPLICIT = f"{_DOCS}quantized-types-explicit-quantization.html"
OPERATORS = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"
OPSETS = "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html"
QUANTIZE_LAYER = (
    "https://docs.nvidia.com/deeplearning/tensorrt/api/c_api/"
    "classnvinfer1_1_1_i_quantize_layer.html"
)
RESIDUAL = (
    "https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/"
    "add_custom_qdq_cases.html"
)
BIAS = "https://github.com/microsoft/onnxruntime/issues/14229"
ADD = "https://github.com/NVIDIA/TensorRT/issues/1992"
CONCAT = "https://nvidia.github.io/Model-Optimizer/reference/generated/modelopt.onnx.quantization.qdq_graph.html"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        id: Its stable name.
        sentence: What has to hold.
        severity: Whether TensorRT refuses what breaks it, or only runs slower.
        source: Where it is written down.
        help: What to do about a violation.
        check: Yields (node, tensor, what is wrong) for every place of a graph that breaks it.
    """

    id: str
    sentence: str
    severity: Severity
    source: str
    help: str
    check: Callable[[Graph], Iterator[Finding]]


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One place of a file that breaks a rule.

    Attributes:
        rule: The rule's id.
        severity: The rule's severity.
        node: Name of the node; its first output where it has none.
        operator: Its type.
        tensor: The tensor that is wrong.
        found: What is wrong there.
        help: What to do.
        source: Where the rule is written down.
    """

    rule: str
    severity: Severity
    node: str
    operator: str
    tensor: str
    found: str
    help: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def _error(id: str, sentence: str, source: str, help: str, check: Any) -> Rule:
    return Rule(id=id, sentence=sentence, severity="error", source=source, help=help, check=check)


def _warning(id: str, sentence: str, source: str, help: str, check: Any) -> Rule:
    return Rule(id=id, sentence=sentence, severity="warning", source=source, help=help, check=check)


_ALL = (
    _error(
        "zero-point",
        "Quantization is symmetric: every zero point is 0.",
        OPERATORS,
        "calibrate symmetric activations and weights",
        numbers.zero_points,
    ),
    _error(
        "code-type",
        "Codes are int8, fp8 (e4m3), or, for weights, int4 or fp4.",
        TYPES,
        "quantize to signed int8",
        numbers.code_types,
    ),
    _error(
        "bias",
        "Biases stay float: int32 codes are not decoded.",
        BIAS,
        "store the bias as float numbers (in onnxruntime's tool: QuantizeBias=False)",
        numbers.bias_codes,
    ),
    _error(
        "scale-positive",
        "Every scale is positive and finite.",
        QUANTIZE_LAYER,
        "give tensors that are always 0 a small positive scale",
        numbers.positive_scales,
    ),
    _error(
        "scale-constant",
        "Scales and zero points are known when the engine is built.",
        QUANTIZE_LAYER,
        "use static quantization",
        numbers.constant_grids,
    ),
    _error(
        "scale-shape",
        "A scale holds one number, one a channel, or one a block.",
        QUANTIZE_LAYER,
        "write the scales again; this file is damaged",
        numbers.scale_shapes,
    ),
    _error(
        "activation-tensor",
        "Activations have one scale for the whole tensor.",
        SCHEMES,
        "calibrate activations per tensor",
        numbers.tensor_activations,
    ),
    _error(
        "weight-axis",
        "Scales of weights follow output channels (of Conv: axis 0).",
        EXPLICIT,
        "quantize the weights along their output channels",
        numbers.weight_axes,
    ),
    _error(
        "int4-weights-only",
        "4-bit integers are for weights only.",
        TYPES,
        "quantize activations to int8 or fp8",
        numbers.four_bit_weights,
    ),
    _error(
        "block",
        "Blocks hold 4-bit or fp8 codes along one of the last two axes and divide it.",
        QUANTIZE_LAYER,
        "use one scale a channel, or another block size",
        numbers.block_layout,
    ),
    _error(
        "integer-operator",
        "Only Q/DQ pairs say what is quantized: operators on codes are not imported.",
        OPERATORS,
        "write the file in Q/DQ form (in onnxruntime's tool: QuantFormat.QDQ)",
        numbers.fixed_operators,
    ),
    _error(
        "opset",
        "The opset is one TensorRT reads, and knows these codes.",
        OPSETS,
        "export with opset 13 or above for int8, 19 for fp8, 21 for int4, and at most 25",
        numbers.opsets,
    ),
    _warning(
        "float-weight",
        "A layer whose input is quantized has quantized weights.",
        EXPLICIT,
        "quantize its weights, or leave its input float",
        placement.float_weights,
    ),
    _warning(
        "float-input",
        "A layer whose weights are quantized to 8 bits has a quantized input.",
        RESIDUAL,
        "quantize its input, or leave its weights float",
        placement.float_inputs,
    ),
    _warning(
        "residual",
        "The branch that is added to a convolution is quantized.",
        ADD,
        "put a Q/DQ pair on the branch that is not fused with the convolution",
        placement.residual_branches,
    ),
    _warning(
        "add-fusion",
        "No Q/DQ pair stands between a convolution and the addition it fuses with.",
        RESIDUAL,
        "remove that pair: only the other branch is quantized",
        placement.split_additions,
    ),
    _warning(
        "activation-fusion",
        "No Q/DQ pair stands between a layer and its activation or batch norm.",
        EXPLICIT,
        "quantize behind the activation",
        placement.split_activations,
    ),
    _warning(
        "output",
        "Outputs of the model are not quantized.",
        RESIDUAL,
        "remove the Q/DQ pair before the output",
        placement.quantized_outputs,
    ),
    _warning(
        "pair",
        "Every QuantizeLinear is followed by a DequantizeLinear.",
        EXPLICIT,
        "decode the codes, or remove the QuantizeLinear",
        placement.lone_quantizers,
    ),
    _warning(
        "concat-scale",
        "Tensors that are joined share one scale.",
        CONCAT,
        "give them the largest of their scales",
        placement.concat_scales,
    ),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in _ALL}
"""Every rule, by its id."""


def check_model(model: onnx.ModelProto) -> list[Violation]:
    """Every place of a model that breaks a rule: rule by rule, then in the file's order.

    Args:
        model: The model; weights in other files are not read. Graphs inside nodes are checked, too.
    """
    graphs = [Graph(model, graph) for graph in _graphs(model.graph)]
    return [
        Violation(
            rule=rule.id,
            severity=rule.severity,
            node=node.name or (node.output[0] if node.output else ""),
            operator=node.op_type,
            tensor=tensor,
            found=found,
            help=rule.help,
            source=rule.source,
        )
        for rule in RULES.values()
        for graph in graphs
        for node, tensor, found in rule.check(graph)
    ]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for a in node.attribute:
            if a.type == AttributeProto.GRAPH:
                yield from _graphs(a.g)


__all__ = ["RULES", "Rule", "Violation", "check_model"]
