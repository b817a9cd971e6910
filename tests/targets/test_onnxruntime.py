"""The ONNX Runtime target: what its optimized graph executes, and files above the protobuf limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from kompakt.artifact import GoldenBuilder
from kompakt.errors import ArtifactError
from kompakt.measuring.parity import certify
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.schemes import Scheme, bf16, float32, fp16, w4, w8, w8a8, w8a8_dynamic, w8a16
from kompakt.targets import memory_job
from kompakt.targets import onnx_files as target_module
from kompakt.targets.onnxruntime import kernels, load, operators, probe, rules, write

from ..nets import ONNXRUNTIME, Deployed, Net, batches_for, deploy, deployed, grid, inputs

FLOAT_KERNELS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Add", "Mul", "Concat", "Relu"}
FLOAT_KERNELS |= {"Clip", "LeakyRelu", "Sigmoid", "AveragePool", "GlobalAveragePool", "Pad"}


def executed(made: Deployed, folder: Path) -> dict[str, int]:
    return operators(made.written.save(folder), made.written.options)


INTEGER = {
    "plain": {"QLinearConv": 2, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    "residual": {"QLinearConv": 2, "QLinearAdd": 1, "QGemm": 1},
    "input residual": {"QLinearConv": 2, "QLinearAdd": 1},
    "concat": {"QLinearConv": 4, "QLinearConcat": 1},
    "mixed concat": {"QLinearConv": 4, "QLinearConcat": 1},
    "depthwise": {"QLinearConv": 3, "QGemm": 1},
    "gate": {"QLinearConv": 3, "QLinearSigmoid": 1, "QLinearMul": 1, "QLinearGlobalAveragePool": 2},
    "darknet": {"QLinearLeakyRelu": 2, "QLinearAdd": 1, "QLinearAveragePool": 1, "Resize": 1},
    "twice": {"QLinearConv": 3, "QGemm": 1},
    "dense": {"QGemm": 3},
    "dense 3d": {"MatMulIntegerToFloat": 3},
}


@pytest.mark.parametrize("name", INTEGER)
def test_everything_between_two_integer_kernels_is_one(name: str, tmp_path: Path) -> None:
    counts = executed(deployed(name), tmp_path)
    assert {op: counts.get(op, 0) for op in INTEGER[name]} == INTEGER[name]
    if name == "dense 3d":
        assert counts == {"Add": 3, "MatMulIntegerToFloat": 3, "QuantizeLinear": 3}
        return
    assert not FLOAT_KERNELS & set(counts)
    assert counts["QuantizeLinear"] == 1, "the input"
    assert "DequantizeLinear" not in counts


def test_codes_that_are_moved_are_never_decoded(tmp_path: Path) -> None:
    made = deployed("movers")
    counts = executed(made, tmp_path)
    assert {"QLinearConv": 3, "QLinearConcat": 1, "Split": 1}.items() <= counts.items()
    assert "DequantizeLinear" not in counts
    assert "SplitToSequence" not in counts
    makers = kernels(tmp_path / "model.onnx", {}, list(made.written.codes.values()))
    assert set(makers.values()) == {
        *("QuantizeLinear", "QLinearConv", "QLinearConcat", "QLinearGlobalAveragePool")
    }


def test_a_transformer_block_multiplies_integers(tmp_path: Path) -> None:
    counts = executed(deployed("encoder"), tmp_path)
    assert counts["MatMulIntegerToFloat"] + counts["QGemm"] == 6, "every linear layer"
    assert counts["Softmax"] == 1
    assert "DequantizeLinear" not in counts


def test_dynamic_layers_use_the_runtimes_own_operators(tmp_path: Path) -> None:
    for name in ("dense", "dense 3d"):
        counts = executed(deployed(name, w8a8_dynamic()), tmp_path)
        assert counts == {"DynamicQuantizeMatMul": 3, "Relu": 2}
    shared = Net(lambda s, x: s.a(x) + s.b(x), a=nn.Linear(20, 8), b=nn.Linear(20, 8)).eval()
    captured = inference_form(capture(shared, grid(2, 20)))
    counts = executed(deploy(captured, [], w8a8_dynamic()), tmp_path)
    assert counts == {"Add": 1, "DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2}


@pytest.mark.parametrize("scheme", [w4(group=16), w4(symmetric=False), w8()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["dense", "dense 3d"])
def test_weights_in_groups_are_multiplied_as_they_are_stored(
    name: str, scheme: Scheme, tmp_path: Path
) -> None:
    made = deployed(name, scheme)
    counts = executed(made, tmp_path)
    assert counts["MatMulNBits"] == 3
    assert "DequantizeLinear" not in counts, "decoded at every call"
    assert "Gemm" not in counts
    assert made.written.options == {"session.qdq_matmulnbits_accuracy_level": "1"}


def test_files_are_as_small_as_their_formats() -> None:
    sizes = {
        scheme.name: sum(map(len, deployed("dense", scheme).written.files.values()))
        for scheme in (float32(), fp16(), bf16(), w8a8_dynamic(), w4(group=16))
    }
    weights = 40 * 48 + 48 * 48 + 48 * 5
    assert sizes["float32"] - sizes["fp16"] == pytest.approx(2 * weights, rel=0.2)
    assert sizes["fp16"] == pytest.approx(sizes["bf16"], rel=0.05)
    assert sizes["w8a8-dynamic"] < sizes["fp16"]
    assert sizes["w4-g16"] < sizes["w8a8-dynamic"]


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [(fp16(), onnx.TensorProto.FLOAT16), (bf16(), onnx.TensorProto.BFLOAT16)],
    ids=["fp16", "bf16"],
)
def test_half_floats_are_stored_and_computed_in_float32(
    scheme: Scheme, kind: int, tmp_path: Path
) -> None:
    made = deployed("dense", scheme)
    graph = onnx.load_from_string(made.written.files["model.onnx"]).graph
    stored = {t.name: t.data_type for t in graph.initializer}
    assert stored["a.weight_codes"] == kind
    assert stored["a.bias"] == onnx.TensorProto.FLOAT
    counts = executed(made, tmp_path)
    assert "Cast" not in counts, "converted once, when the file is loaded"


def test_every_file_says_who_made_it_and_nothing_about_the_machine() -> None:
    made = deployed("encoder")
    model = onnx.load_from_string(made.written.files["model.onnx"])
    assert model.producer_name == "kompakt"
    assert model.opset_import[0].version == 21
    content = made.written.files["model.onnx"]
    for word in (b"site-packages", b"/tests/", b"nets.py", b"forward"):
        assert word not in content
    assert list(made.written.codes.values()) == [f"{s}.codes" for s in made.written.codes]


def test_rules_follow_the_instruction_set() -> None:
    assert rules("x86").activation8 == rules("any").activation8 == "uint8"
    assert rules("arm64").activation8 == "int8"
    assert rules("arm64").dynamic_activation == "uint8", "the operator knows no other"
    assert rules("x86").why_float("erf").startswith("ONNX Runtime has no integer kernel")


# --- above the protobuf limit -----------------------------------------------------------------


@pytest.mark.parametrize("scheme", [w8a8(), w4(group=16), float32()], ids=lambda s: s.name)
def test_large_models_keep_their_weights_in_a_file_of_their_own(
    scheme: Scheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = deployed("dense", scheme)
    monkeypatch.setattr(target_module, "PROTOBUF_LIMIT", 1000)
    written = write(whole.placed)
    assert list(written.files) == ["model.onnx", "model.onnx.data"]
    assert written.main == "model.onnx"
    assert written.size_bytes == sum(map(len, written.files.values()))
    assert written.files == write(whole.placed).files
    assert len(written.files["model.onnx"]) < len(whole.written.files["model.onnx"])

    path = written.save(tmp_path)
    x = {"x": inputs("dense").numpy()}
    single = load(whole.written.files["model.onnx"], whole.written.options)
    assert np.array_equal(load(path, written.options)(x)["output"], single(x)["output"])
    values = list(written.codes.values())
    visible = probe(path, written.options, values)(x)
    assert np.array_equal(visible["output"], single(x)["output"])
    assert set(values) <= set(visible)
    (tmp_path / "single").mkdir()
    assert operators(path, written.options) == executed(whole, tmp_path / "single")
    assert set(kernels(path, written.options, values)) == set(values)
    certificate = certify(
        whole.placed, written, ONNXRUNTIME, batches_for("dense"), rules=whole.rules
    )
    assert certificate.verdict in ("exact", "within tolerance")

    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(ArtifactError) as caught:
        load(path, written.options)
    assert caught.value.code == "K530"


def test_the_memory_job_runs_the_file_once(tmp_path: Path) -> None:
    path = deployed("dense").written.save(tmp_path)
    np.savez(tmp_path / "inputs.npz", x=inputs("dense").numpy())
    job = memory_job("onnxruntime", str(path), {}, str(tmp_path / "inputs.npz"))
    result = job()
    assert isinstance(result, dict)
    assert result["output"].shape == (4, 5)


def test_wide_activations_can_be_padded_and_pooled(tmp_path: Path) -> None:
    """ONNX Runtime pads no 16-bit integers: they are padded as floats."""
    made = deployed("movers", w8a16())
    session = load(made.written.save(tmp_path))
    x = made.batches[0].inputs["x"]
    with torch.no_grad():
        exact = made.network(x).numpy()
    got = session({"x": x.numpy()})["output"]
    assert np.linalg.norm(got - exact) / np.linalg.norm(exact) < 0.02


def test_golden_packs_are_made_of_codes_and_outputs(tmp_path: Path) -> None:
    made = deployed("plain")
    path = made.written.save(tmp_path)
    session = probe(path, made.written.options, list(made.written.codes.values()))
    builder = GoldenBuilder()
    found = session(made.batches[0].arrays())
    codes = {site: found.pop(name) for site, name in made.written.codes.items()}
    builder.add(made.batches[0].arrays(), found, codes, samples=4)
    pack = builder.pack()
    assert len(pack.batches) == 1
