"""Every rule of TensorRT fires on its own violation, planted in a good file, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kompakt.schemes import float32, fp16, w4, w8a8
from kompakt.targets.tensorrt_rules import RULES, check_model

from ..nets import MODELS, deployed


@cache
def content(name: str) -> bytes:
    return deployed(name, w8a8(), target="tensorrt").written.files["model.onnx"]


def good(name: str) -> ModelProto:
    return onnx.load_from_string(content(name))


def node_of(model: ModelProto, kind: str, number: int = 0) -> NodeProto:
    return [n for n in model.graph.node if n.op_type == kind][number]


def maker(model: ModelProto, name: str) -> NodeProto:
    return next(n for n in model.graph.node if name in n.output)


def readers(model: ModelProto, name: str) -> list[NodeProto]:
    return [n for n in model.graph.node if name in n.input]


def stored(model: ModelProto, name: str) -> TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def store(model: ModelProto, name: str, array: np.ndarray) -> str:
    """Add a tensor, or replace the one of that name."""
    kept = [t for t in model.graph.initializer if t.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, numpy_helper.from_array(array, name)])
    return name


def add_before(model: ModelProto, node: NodeProto, *new: NodeProto) -> None:
    at = list(model.graph.node).index(node)
    for extra in reversed(new):
        model.graph.node.insert(at, extra)


def pair(name: str, source: str, grid: list[str]) -> tuple[NodeProto, NodeProto]:
    """A Q/DQ pair behind ``source``; it hands out ``name``."""
    return (
        helper.make_node("QuantizeLinear", [source, *grid], [f"{name}.q"], name=f"{name}/Q"),
        helper.make_node("DequantizeLinear", [f"{name}.q", *grid], [name], name=f"{name}/DQ"),
    )


def weight_decoder(model: ModelProto, kind: str = "Conv", number: int = 0) -> NodeProto:
    return maker(model, node_of(model, kind, number).input[1])


# --- the plants: (the good file they grow in, what is done to it) --------------------------------


def zero_point(model: ModelProto) -> None:
    encode = node_of(model, "QuantizeLinear")
    store(model, encode.input[2], np.array(3, np.int8))


def code_type(model: ModelProto) -> None:
    name = node_of(model, "QuantizeLinear").input[2]
    store(model, name, np.array(0, np.uint8))


def bias(model: ModelProto) -> None:
    layer = node_of(model, "Conv")
    count = stored(model, layer.input[2]).dims[0]
    codes = store(model, "bias codes", np.ones(count, np.int32))
    scale = store(model, "bias scale", np.ones(count, np.float32))
    decode = helper.make_node("DequantizeLinear", [codes, scale], ["decoded bias"], axis=0)
    add_before(model, layer, decode)
    layer.input[2] = "decoded bias"


def scale_positive(model: ModelProto) -> None:
    name = weight_decoder(model).input[1]
    scales = numpy_helper.to_array(stored(model, name)).copy()
    scales[1] = 0.0
    store(model, name, scales)


def scale_constant(model: ModelProto) -> None:
    encode = node_of(model, "QuantizeLinear")
    x = model.graph.input[0].name
    peak = helper.make_node("ReduceMax", [x], ["peak"], name="peak", keepdims=0)
    model.graph.node.insert(0, peak)
    decode = readers(model, encode.output[0])[0]
    encode.input[1] = decode.input[1] = "peak"


def scale_shape(model: ModelProto) -> None:
    name = weight_decoder(model).input[1]
    scales = numpy_helper.to_array(stored(model, name))
    store(model, name, scales[:-1].copy())
    zero = weight_decoder(model).input[2]
    store(model, zero, np.zeros(len(scales) - 1, np.int8))


def activation_tensor(model: ModelProto) -> None:
    encode = node_of(model, "QuantizeLinear")
    decode = readers(model, encode.output[0])[0]
    store(model, encode.input[1], np.full(3, 0.02, np.float32))
    store(model, encode.input[2], np.zeros(3, np.int8))
    for node in (encode, decode):
        node.attribute.append(helper.make_attribute("axis", 1))


def weight_axis(model: ModelProto) -> None:
    decode = weight_decoder(model, number=1)  # 8 channels in, 8 out: the shapes still fit
    del decode.attribute[:]
    decode.attribute.append(helper.make_attribute("axis", 1))


def matmul_axis(model: ModelProto) -> None:
    layer = node_of(model, "MatMul", 1)  # 48 features in, 48 out
    decode = maker(model, maker(model, layer.input[1]).input[0])
    del decode.attribute[:]
    decode.attribute.append(helper.make_attribute("axis", 1))


def int4_weights_only(model: ModelProto) -> None:
    name = node_of(model, "QuantizeLinear").input[2]
    kept = [t for t in model.graph.initializer if t.name != name]
    del model.graph.initializer[:]
    zero = helper.make_tensor(name, TensorProto.INT4, [], [0])
    model.graph.initializer.extend([*kept, zero])


def _blocks(model: ModelProto, kind: int, block: int) -> None:
    layer = node_of(model, "Gemm")
    decode = maker(model, layer.input[1])
    rows, columns = stored(model, decode.input[0]).dims
    codes = helper.make_tensor("blocked", kind, [rows, columns], [1] * (rows * columns))
    model.graph.initializer.append(codes)
    count = -(-columns // block)
    scale = store(model, "blocked scale", np.ones((rows, count), np.float32))
    del decode.input[:], decode.attribute[:]
    decode.input.extend(["blocked", scale])
    decode.attribute.extend(
        [helper.make_attribute("axis", 1), helper.make_attribute("block_size", block)]
    )


def block_of_int8(model: ModelProto) -> None:
    _blocks(model, TensorProto.INT8, 8)


def block_that_does_not_divide(model: ModelProto) -> None:
    _blocks(model, TensorProto.INT4, 24)  # of 40 features


def integer_operator(model: ModelProto) -> None:
    layer = node_of(model, "Gemm", 2)
    codes = maker(model, layer.input[0]).input[0]
    made = [
        helper.make_node("MatMulInteger", [codes, "w8"], ["sums"], name="integers"),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
    ]
    store(model, "w8", np.ones((48, 5), np.int8))
    add_before(model, layer, *made)
    output = layer.output[0]
    model.graph.node.remove(layer)
    model.graph.node.append(helper.make_node("Identity", ["floats"], [output]))


def old_opset(model: ModelProto) -> None:
    next(o for o in model.opset_import if not o.domain).version = 12


def new_opset(model: ModelProto) -> None:
    next(o for o in model.opset_import if not o.domain).version = 26


def float_weight(model: ModelProto) -> None:
    layer = node_of(model, "Conv")
    shape = tuple(stored(model, weight_decoder(model).input[0]).dims)
    layer.input[1] = store(model, "float weight", np.ones(shape, np.float32))


def float_input(model: ModelProto) -> None:
    layer = node_of(model, "Conv")
    layer.input[0] = model.graph.input[0].name


def residual(model: ModelProto) -> None:
    add = node_of(model, "Add")
    decoded = next(i for i in add.input if maker(model, i).op_type == "DequantizeLinear")
    source = maker(model, maker(model, decoded).input[0]).input[0]
    add.input[list(add.input).index(decoded)] = source


def add_fusion(model: ModelProto) -> None:
    add = node_of(model, "Add")
    plain = next(i for i in add.input if maker(model, i).op_type == "Conv")
    grid = list(node_of(model, "QuantizeLinear").input[1:])
    add_before(model, add, *pair("between", plain, grid))
    add.input[list(add.input).index(plain)] = "between"


def activation_fusion(model: ModelProto) -> None:
    relu = node_of(model, "Relu")
    grid = list(node_of(model, "QuantizeLinear").input[1:])
    add_before(model, relu, *pair("between", relu.input[0], grid))
    relu.input[0] = "between"


def output(model: ModelProto) -> None:
    name = model.graph.output[0].name
    last = maker(model, name)
    last.output[0] = "before"
    grid = list(node_of(model, "QuantizeLinear").input[1:])
    model.graph.node.extend(pair(name, "before", grid))


def lone_quantizer(model: ModelProto) -> None:
    grid = list(node_of(model, "QuantizeLinear").input[1:])
    encode, _ = pair("codes", model.graph.input[0].name, grid)
    model.graph.node.append(encode)


def concat_scale(model: ModelProto) -> None:
    join = node_of(model, "Concat")
    decode = maker(model, join.input[0])
    encode = maker(model, decode.input[0])
    other = store(model, "another scale", np.array(0.5, np.float32))
    encode.input[1] = decode.input[1] = other


PLANTS: list[tuple[str, str, Callable[[ModelProto], None]]] = [
    ("zero-point", "plain", zero_point),
    ("code-type", "plain", code_type),
    ("bias", "plain", bias),
    ("scale-positive", "plain", scale_positive),
    ("scale-constant", "plain", scale_constant),
    ("scale-shape", "plain", scale_shape),
    ("activation-tensor", "plain", activation_tensor),
    ("weight-axis", "plain", weight_axis),
    ("weight-axis", "dense 3d", matmul_axis),
    ("int4-weights-only", "plain", int4_weights_only),
    ("block", "dense", block_of_int8),
    ("block", "dense", block_that_does_not_divide),
    ("integer-operator", "dense", integer_operator),
    ("opset", "plain", old_opset),
    ("opset", "plain", new_opset),
    ("float-weight", "plain", float_weight),
    ("float-input", "plain", float_input),
    ("residual", "residual", residual),
    ("add-fusion", "residual", add_fusion),
    ("activation-fusion", "plain", activation_fusion),
    ("output", "plain", output),
    ("pair", "plain", lone_quantizer),
    ("concat-scale", "concat", concat_scale),
]


@pytest.mark.parametrize(("rule", "name", "plant"), PLANTS, ids=lambda v: getattr(v, "__name__", v))
def test_a_planted_violation_is_found_by_its_rule_alone(
    rule: str, name: str, plant: Callable[[ModelProto], None]
) -> None:
    model = good(name)
    assert check_model(model) == []
    plant(model)
    found = check_model(model)
    assert {violation.rule for violation in found} == {rule}
    names = {n.name or n.output[0] for n in model.graph.node}
    tensors = {t for n in model.graph.node for t in (*n.input, *n.output)}
    for violation in found:
        assert violation.node in names
        assert violation.tensor in tensors
        assert violation.severity == RULES[rule].severity


def test_every_rule_has_a_plant() -> None:
    assert {rule for rule, _, _ in PLANTS} == set(RULES)


def test_every_rule_says_where_it_is_written_and_what_to_do() -> None:
    for rule in RULES.values():
        assert rule.source.startswith("https://")
        assert rule.sentence.endswith(".")
        assert rule.help


@pytest.mark.parametrize("scheme", [w8a8(), w4(group=64), float32(), fp16()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", list(MODELS))
def test_no_false_alarm_on_our_own_files(name: str, scheme: object) -> None:
    written = deployed(name, scheme, target="tensorrt").written  # type: ignore[arg-type]
    assert check_model(onnx.load_from_string(written.files["model.onnx"])) == []


def test_files_for_another_runtime_break_the_rules_they_should() -> None:
    """ONNX Runtime's unsigned codes and integer biases are none TensorRT reads."""
    written = deployed("residual", w8a8()).written
    rules = {v.rule for v in check_model(onnx.load_from_string(written.files["model.onnx"]))}
    assert {"code-type", "bias"} <= rules


def test_graphs_inside_nodes_are_checked() -> None:
    inner = good("plain").graph
    zero_point_name = node_of(good("plain"), "QuantizeLinear").input[2]
    body = onnx.GraphProto()
    body.CopyFrom(inner)
    del body.input[:]
    model = good("dense")
    node = helper.make_node("If", ["which"], ["either"], then_branch=body, else_branch=body)
    model.graph.node.append(node)
    assert check_model(model) == []
    for branch in node.attribute:
        kept = [t for t in branch.g.initializer if t.name != zero_point_name]
        del branch.g.initializer[:]
        branch.g.initializer.extend(
            [*kept, numpy_helper.from_array(np.array(1, np.int8), zero_point_name)]
        )
    del model.graph.node[-1]
    model.graph.node.append(node)
    assert {v.rule for v in check_model(model)} == {"zero-point"}
