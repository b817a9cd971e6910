"""Each rewrite on a model made by hand: what it changes, what it leaves alone, and that nothing else is computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from kompakt.targets.onnx_biases import round_biases
from kompakt.targets.onnx_rewrites import (
    absorb_padding,
    fix_reshapes,
    name_codes,
    pad_codes,
    shield_float_weights,
    store_in_four_bits,
    strip_metadata,
    tidy,
)
from kompakt.targets.onnx_split import split_tensors

Array = NDArray[np.float32]
Rewrite = Callable[[ir.Model], None]


def parsed(signature: str, body: str) -> ir.Model:
    """A model in ONNX's text form, with shapes inferred."""
    text = f'<ir_version: 10, opset_import: ["" : 21]>\ng {signature} {{ {body} }}'
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    return ir.from_proto(proto)


def run(model: ir.Model, *inputs: NDArray[np.generic], optimized: bool = False) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


def images(*shape: int) -> Array:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, shape).astype(np.float32) / 255 - 0.4) / 0.25


def unchanged_results(model: ir.Model, rewrite: Rewrite, *inputs: NDArray[np.generic]) -> None:
    before = run(model, *inputs)
    rewrite(model)
    onnx.checker.check_model(ir.to_proto(model))
    after = run(model, *inputs)
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a, b)


# --- padding ----------------------------------------------------------------------------------

IMAGE_IN = "(float[1,2,5,5] x, float[3,2,3,3] w) => (float[1,3,h,v] y)"


def padded(pads: str, rest: str = "", mode: str = "constant", conv: str = "") -> ir.Model:
    return parsed(
        IMAGE_IN,
        f"pads = Constant<value = int64[8] {{{pads}}}>()\n"
        f"zero = Constant<value = float {{0.0}}>()\none = Constant<value = float {{1.0}}>()\n"
        f'p = Pad<mode = "{mode}">(x, pads{rest})\n y = Conv{conv}(p, w)',
    )


@pytest.mark.parametrize("rest", ["", ", zero"])
@pytest.mark.parametrize("conv", ["", "<pads = [1, 0, 2, 1]>", "<strides = [2, 2]>"])
def test_padding_with_zeros_goes_into_the_convolution(rest: str, conv: str) -> None:
    model = padded("0,0,1,2,0,0,3,0", rest, conv=conv)
    unchanged_results(model, absorb_padding, images(1, 2, 5, 5), images(3, 2, 3, 3))
    assert operators(model) == ["Conv"]
    pads = next(n for n in model.graph if n.op_type == "Conv").attributes["pads"].as_ints()
    assert list(pads) == ([2, 2, 5, 1] if "pads" in conv else [1, 2, 3, 0])


@pytest.mark.parametrize(
    "model",
    [
        padded("0,0,1,1,0,0,1,1", ", one"),
        padded("0,0,1,1,0,0,1,1", mode="reflect"),
        padded("0,0,1,1,0,0,-1,-1"),
        padded("0,0,1,1,0,0,1,1", conv='<auto_pad = "SAME_UPPER">'),
        parsed(
            "(float[1,1,5,5] x, float[3,2,3,3] w) => (float[1,3,h,v] y)",
            "pads = Constant<value = int64[8] {0,0,1,1,0,1,1,1}>()\np = Pad(x, pads)\ny = Conv(p, w)",
        ),
        parsed(
            "(float[1,2,5,5] x, float[3,2,3,3] w, int64[8] pads) => (float[1,3,h,v] y)",
            "p = Pad(x, pads)\ny = Conv(p, w)",
        ),
        parsed(
            "(float[1,2,5,5] x, float[3,2,3,3] w) => (float[1,3,h,v] y, float[1,2,h,v] z)",
            "pads = Constant<value = int64[8] {0,0,1,1,0,0,1,1}>()\n"
            "p = Pad(x, pads)\ny = Conv(p, w)\nz = Relu(p)",
        ),
    ],
    ids=["ones", "reflect", "cropping", "auto_pad", "channels", "dynamic", "read twice"],
)
def test_other_padding_stays(model: ir.Model) -> None:
    before = operators(model)
    absorb_padding(model)
    assert operators(model) == before


def quantized_pad(
    value: str = "", mode: str = "constant", kind: str = "uint8", other: str = ""
) -> ir.Model:
    return parsed(
        f"({kind}[1,1,4,4] q) => ({kind}[1,1,h,v] y)",
        f"s = Constant<value = float {{0.02}}>()\nz = Constant<value = {kind} {{7}}>()\n"
        "t = Constant<value = float {0.03}>()\nzero = Constant<value = float {0.0}>()\n"
        "one = Constant<value = float {1.0}>()\n"
        "pads = Constant<value = int64[8] {0,0,1,2,0,0,0,1}>()\n"
        "d = DequantizeLinear(q, s, z)\n"
        f'p = Pad<mode = "{mode}">(d, pads{value})\n'
        f"y0 = QuantizeLinear(p, {other or 's'}, z)\ny = Identity(y0)",
    )


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("value", ["", ", zero"])
def test_codes_are_padded_with_the_zero_point(kind: str, value: str) -> None:
    model = quantized_pad(value, kind=kind)
    codes = np.arange(16, dtype=kind).reshape(1, 1, 4, 4) * 5
    unchanged_results(model, pad_codes, codes)
    assert operators(model) == ["DequantizeLinear", "Pad", "Identity"]
    tidy(model)
    assert operators(model) == ["Pad"]
    assert run(model, codes)[0][0, 0, 0, 0] == 7


@pytest.mark.parametrize(
    "model",
    [
        quantized_pad(", one"),
        quantized_pad(mode="reflect"),
        quantized_pad(other="t"),
        quantized_pad(kind="uint16"),
    ],
    ids=["ones", "reflect", "another grid", "16 bits"],
)
def test_floats_are_padded_where_codes_cannot_be(model: ir.Model) -> None:
    before = operators(model)
    pad_codes(model)
    assert operators(model) == before


# --- reshapes ---------------------------------------------------------------------------------


def test_reshapes_that_change_nothing_go() -> None:
    model = parsed(
        "(float[N,4] x) => (float[N,4] y)",
        "shape = Shape(x)\nr = Reshape(x, shape)\ny = Relu(r)",
    )
    next(n for n in model.graph if n.op_type == "Reshape").outputs[0].shape = ir.Shape(["N", 4])
    unchanged_results(model, fix_reshapes, images(3, 4))
    assert "Reshape" not in operators(model)


def test_a_reshape_with_one_dynamic_size_gets_a_constant_shape() -> None:
    model = parsed(
        "(float[N,4,6] x) => (float[N,24] y)",
        "shape = Shape<end = 1>(x)\nrest = Constant<value = int64[1] {24}>()\n"
        "both = Concat<axis = 0>(shape, rest)\nr = Reshape(x, both)\ny = Relu(r)",
    )
    next(n for n in model.graph if n.op_type == "Reshape").outputs[0].shape = ir.Shape(["N", 24])
    unchanged_results(model, fix_reshapes, images(3, 4, 6))
    tidy(model)
    assert operators(model) == ["Reshape", "Relu"], "the sizes are computed no more"
    assert run(model, images(5, 4, 6))[0].shape == (5, 24)


def test_a_reshape_with_two_dynamic_sizes_stays() -> None:
    model = parsed(
        "(float[N,T,6] x) => (float[N,T,2,3] y)",
        "shape = Shape<end = 2>(x)\nrest = Constant<value = int64[2] {2,3}>()\n"
        "both = Concat<axis = 0>(shape, rest)\nr = Reshape(x, both)\ny = Relu(r)",
    )
    reshape = next(n for n in model.graph if n.op_type == "Reshape")
    reshape.outputs[0].shape = ir.Shape(["N", "T", 2, 3])
    before = operators(model)
    fix_reshapes(model)
    assert operators(model) == before
    assert reshape.inputs[1] is not None
    assert reshape.inputs[1].producer() is not None


def test_a_reshape_that_is_an_output_keeps_its_name() -> None:
    model = parsed("(float[N,4] x) => (float[N,4] y)", "shape = Shape(x)\ny = Reshape(x, shape)")
    unchanged_results(model, fix_reshapes, images(3, 4))
    assert [v.name for v in model.graph.outputs] == ["y"]


# --- splitting --------------------------------------------------------------------------------


def sequence(sizes: str, signature: str, taken: str = "0 1") -> ir.Model:
    parts = "".join(
        f"i{i} = Constant<value = int64 {{{i}}}>()\ny{i} = SequenceAt(s, i{i})\n"
        for i in map(int, taken.split())
    )
    return parsed(
        signature,
        f"sizes = Constant<value = {sizes}>()\ns = SplitToSequence<axis = 1>(x, sizes)\n{parts}",
    )


@pytest.mark.parametrize(
    ("sizes", "taken", "widths"),
    [("int64[2] {2,5}", "0 1", [2, 5]), ("int64 {3}", "0 1 2", [3, 3, 1]), ("int64 {4}", "1", [3])],
)
def test_a_sequence_of_known_parts_becomes_a_split(
    sizes: str, taken: str, widths: list[int]
) -> None:
    outputs = ", ".join(f"float[N,W{i}] y{i}" for i in taken.split())
    model = sequence(sizes, f"(float[N,7] x) => ({outputs})", taken)
    unchanged_results(model, split_tensors, images(2, 7))
    tidy(model)
    assert operators(model) == ["Split"]
    assert [out.shape[1] for out in run(model, images(2, 7))] == widths
    assert [v.name for v in model.graph.outputs] == [f"y{i}" for i in taken.split()]


def test_a_part_that_is_handed_out_twice_stays_in_a_sequence() -> None:
    model = parsed(
        "(float[N,6] x) => (float[N,3] y, float[N,3] z)",
        "n = Constant<value = int64 {3}>()\ni = Constant<value = int64 {0}>()\n"
        "s = SplitToSequence<axis = 1>(x, n)\ny = SequenceAt(s, i)\nz = SequenceAt(s, i)",
    )
    unchanged_results(model, split_tensors, images(2, 6))
    assert "SplitToSequence" in operators(model)


def test_a_sequence_of_unknown_parts_stays() -> None:
    dynamic = sequence("int64 {3}", "(float[N,W] x) => (float[N,V] y0)", "0")
    chosen = parsed(
        "(float[N,6] x, int64 i) => (float[N,3] y)",
        "n = Constant<value = int64 {3}>()\ns = SplitToSequence<axis = 1>(x, n)\n"
        "y = SequenceAt(s, i)",
    )
    for model in (dynamic, chosen):
        before = operators(model)
        split_tensors(model)
        assert operators(model) == before


# --- weights and biases -----------------------------------------------------------------------


def layer(op: str, weight: str = "float", after: str = "QuantizeLinear") -> ir.Model:
    rng = np.random.default_rng(1)
    shape = {"Conv": (3, 2, 3, 3), "ConvTranspose": (2, 3, 3, 3), "Gemm": (2, 3)}[op]
    rank = len(shape)
    sides = ",4" * (rank - 2)
    numbers = ", ".join(f"{v:.3f}" for v in rng.normal(size=int(np.prod(shape))))
    codes = ", ".join(str(v) for v in rng.integers(-127, 128, int(np.prod(shape))))
    size = ",".join(map(str, shape))
    made = {
        "float": f"w = Constant<value = float[{size}] {{{numbers}}}>()",
        "int8": f"wc = Constant<value = int8[{size}] {{{codes}}}>()\n"
        "ws = Constant<value = float {0.01}>()\nwz = Constant<value = int8 {0}>()\n"
        "w = DequantizeLinear(wc, ws, wz)",
    }[weight]
    end = {"QuantizeLinear": "y = QuantizeLinear(c, t, z)", "Relu": "y = Relu(c)"}[after]
    kind = "uint8" if after == "QuantizeLinear" else "float"
    return parsed(
        f"(uint8[1,2{sides}] q) => ({kind}[1,3{',h,v' if rank > 2 else ''}] y)",
        "s = Constant<value = float {0.013}>()\nt = Constant<value = float {0.05}>()\n"
        f"z = Constant<value = uint8 {{128}}>()\n{made}\n"
        "bias = Constant<value = float[3] {0.5, -0.25, 0.1}>()\n"
        f"d = DequantizeLinear(q, s, z)\nc = {op}(d, w, bias)\n{end}",
    )


def constants_as_initializers(model: ir.Model) -> None:
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


CODES = {"Conv": (1, 2, 4, 4), "ConvTranspose": (1, 2, 4, 4), "Gemm": (1, 2)}


@pytest.mark.parametrize("op", CODES)
def test_the_runtime_leaves_shielded_float_weights_alone(op: str) -> None:
    codes = np.random.default_rng(2).integers(0, 256, CODES[op]).astype(np.uint8)
    model = layer(op)
    constants_as_initializers(model)
    exact = run(model, codes)[0]
    unchanged_results(model, shield_float_weights, codes)
    assert operators(model).count("Sum") == 1
    assert np.array_equal(run(model, codes, optimized=True)[0], exact)


@pytest.mark.parametrize(
    "model",
    [layer("Conv", "int8"), layer("Conv", after="Relu"), layer("Gemm", "int8")],
    ids=["integer weights", "float output", "integer product"],
)
def test_nothing_else_is_shielded(model: ir.Model) -> None:
    before = operators(model)
    shield_float_weights(model)
    assert operators(model) == before


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
def test_float_biases_between_codes_are_rounded_to_the_scale_of_the_sums(op: str) -> None:
    model = layer(op, "int8")
    constants_as_initializers(model)
    codes = np.random.default_rng(3).integers(0, 256, CODES[op]).astype(np.uint8)
    before = run(model, codes)[0].astype(int)
    round_biases(model)
    onnx.checker.check_model(ir.to_proto(model))
    assert np.abs(run(model, codes)[0].astype(int) - before).max() <= 1
    name = next(n for n in model.graph.initializers if n.endswith("bias_codes"))
    stored = model.graph.initializers[name].const_value
    assert stored is not None
    step = np.float32(0.013) * np.float32(0.01)
    wanted = np.rint(np.array([0.5, -0.25, 0.1], np.float32) / step)
    assert np.array_equal(stored.numpy(), wanted.astype(np.int32))
    count = len(model.graph.initializers)
    round_biases(model)
    assert len(model.graph.initializers) == count, "what is rounded stays as it is"


def test_biases_of_float_layers_stay() -> None:
    for op in CODES:
        model = layer(op)
        constants_as_initializers(model)
        before = operators(model)
        round_biases(model)
        assert operators(model) == before


def test_four_bit_codes_take_four_bits() -> None:
    model = parsed(
        "(float[1,32] x) => (float[1,4] y)",
        "s = Constant<value = float[2,4] {1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0}>()\n"
        f"w = Constant<value = int8[32,4] {{{', '.join(str(i % 16 - 8) for i in range(128))}}}>()\n"
        "d = DequantizeLinear<axis = 0, block_size = 16>(w, s)\ny = MatMul(x, d)",
    )
    constants_as_initializers(model)
    unchanged_results(model, lambda m: store_in_four_bits(m, {"w": "int4"}), images(1, 32))
    assert model.graph.initializers["w"].dtype == ir.DataType.INT4
    stored = model.graph.initializers["w"].const_value
    assert stored is not None
    assert stored.nbytes == 64
    store_in_four_bits(model, {"absent": "int4"})


# --- names and clutter ------------------------------------------------------------------------


def test_codes_are_named_after_their_sites() -> None:
    model = _named()
    found = name_codes(model, {"first": ["a", "c"], "second": ["b"]})
    assert found == {"a": "a.codes", "b": "b.codes", "c": "c.codes"}
    names = [n.outputs[0].name for n in model.graph if n.op_type == "QuantizeLinear"]
    assert names == ["a.codes", "b.codes", "c.codes"]


def _named() -> ir.Model:
    return parsed(
        "(float[4] x, float first, float second) => (float[4] y)",
        "z = Constant<value = uint8 {0}>()\n"
        "q0 = QuantizeLinear(x, first, z)\nd0 = DequantizeLinear(q0, first, z)\n"
        "q1 = QuantizeLinear(d0, second, z)\nd1 = DequantizeLinear(q1, second, z)\n"
        "q2 = QuantizeLinear(d1, first, z)\ny = DequantizeLinear(q2, first, z)",
    )


def test_a_repeated_site_is_named_once() -> None:
    model = _named()
    found = name_codes(model, {"first": ["a", "a"], "second": ["b"]})
    assert found == {"a": "a.codes", "b": "b.codes"}
    names = [n.outputs[0].name for n in model.graph if n.op_type == "QuantizeLinear"]
    assert names == ["a.codes", "b.codes", "q2"]


def test_tidying_removes_repetitions_and_what_nothing_reads() -> None:
    model = parsed(
        "(float[4] x) => (float[4] y)",
        "a = Relu(x)\nb = Relu(x)\nunused = Sigmoid(x)\nc = Identity(a)\ny = Add(c, b)",
    )
    unchanged_results(model, tidy, images(4))
    assert operators(model) == ["Relu", "Add"]


def test_metadata_of_the_exporter_is_dropped() -> None:
    model = parsed("(float[4] x) => (float[4] y)", "y = Relu(x)")
    node = next(iter(model.graph))
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "folder/somebody/model.py"
    node.doc_string = "somewhere"
    model.metadata_props["path"] = "folder/somebody"
    model.graph.metadata_props["path"] = "folder/somebody"
    strip_metadata(model)
    assert b"somebody" not in ir.to_proto(model).SerializeToString()
    assert node.doc_string is None
