"""ONNX files as networks: what they compute, and that they go home under their own names."""

from __future__ import annotations

import copy
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

import kompakt
from kompakt.errors import CaptureError
from kompakt.network.kinds import kind_of
from kompakt.network.onnx import import_onnx
from kompakt.network.rewrites import inference_form
from kompakt.targets import onnxruntime as target

from .files import FLOAT, RNG, model, saved, weights

ASSETS = os.environ.get("KOMPAKT_ASSETS")
with_assets = pytest.mark.skipif(ASSETS is None, reason="KOMPAKT_ASSETS is not set")


def a_cnn(opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node
    return model(
        [
            node("Conv", ["x", "w1"], ["c1"], "/stem/Conv", kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
            node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"], "/stem/norm"),
            node("Relu", ["n1"], ["r1"], "/stem/act"),
            node("Conv", ["r1", "w2", "b2"], ["c2"], "1.conv", auto_pad="SAME_UPPER",
                 kernel_shape=[3, 3], strides=[2, 2]),
            node("LeakyRelu", ["c2"], ["l2"], "leaky", alpha=0.1),
            node("GlobalAveragePool", ["l2"], ["p"], ""),
            node("Flatten", ["p"], ["f"], "flat"),
            node("Gemm", ["f", "w3", "b3"], ["y"], "head"),
        ],
        {
            "w1": weights(8, 3, 3, 3), "g": np.ones(8, np.float32) * 1.5, "b": weights(8, 1)[:, 0],
            "m": weights(8, 1)[:, 0], "v": np.full(8, 0.7, np.float32),
            "w2": weights(6, 8, 3, 3), "b2": weights(6, 1)[:, 0], "w3": weights(6, 4),
            "b3": weights(4, 1)[:, 0], "unused": weights(2, 2),
        },
        opset=opset,
    )  # fmt: skip


def names(made: onnx.ModelProto) -> dict[str, Any]:
    graph = made.graph
    return {
        "operators": Counter(n.op_type for n in graph.node),
        "nodes": {n.name for n in graph.node},
        "values": {o for n in graph.node for o in n.output},
        "initializers": {i.name for i in graph.initializer},
        "inputs": [i.name for i in graph.input],
        "outputs": [o.name for o in graph.output],
        "metadata": {p.key: p.value for p in made.metadata_props},
        "opset": [(o.domain, o.version) for o in made.opset_import],
        "producer": made.producer_name,
        "graph": graph.name,
    }


def run(content: bytes | str, feeds: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def test_a_cnn_becomes_layers_and_calls_under_its_names(tmp_path: Path) -> None:
    network = import_onnx(saved(a_cnn(), tmp_path))
    kinds = [kind_of(n) for n in network.graph.nodes]
    assert kinds == [
        "input", "conv", "batch_norm", "relu", "conv", "leaky_relu", "global_average_pool",
        "reshape", "linear", "output",
    ]  # fmt: skip
    assert [n.meta["site"] for n in list(network.graph.nodes)[1:5]] == [
        "stem.Conv", "stem.norm", "stem.act", "n1.conv",
    ]  # fmt: skip
    assert isinstance(network.get_submodule("head"), nn.Linear)
    assert [s.name for s in network.input_specs] == ["x"]
    assert network.input_specs[0].shape == ("batch", 3, 8, 8)


@pytest.mark.parametrize("batch", [1, 5])
def test_it_computes_what_the_runtime_computes(tmp_path: Path, batch: int) -> None:
    path = saved(a_cnn(), tmp_path)
    network = import_onnx(path)
    x = RNG.normal(size=(batch, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        ours = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, run(str(path), {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_written_back_untouched_nothing_changes(tmp_path: Path) -> None:
    before = a_cnn(opset=11)
    written = target.write(import_onnx(saved(before, tmp_path)))
    after = onnx.load_model_from_string(written.files["model.onnx"])
    assert names(after) == names(before)
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    kept = run(before.SerializeToString(), {"x": x})[0]
    np.testing.assert_array_equal(run(after.SerializeToString(), {"x": x})[0], kept)


def test_quantized_it_keeps_what_was_not_quantized(tmp_path: Path) -> None:
    before = a_cnn(opset=11)
    network = import_onnx(saved(before, tmp_path))
    placed = kompakt.place(network, "w8a8", isa="x86-vnni")
    x = torch.from_numpy(RNG.normal(size=(16, 3, 8, 8)).astype(np.float32))
    kompakt.calibrate(placed, [x])
    path = tmp_path / "small.onnx"
    kompakt.write(placed, path)
    after = onnx.load(path)
    assert after.opset_import[0].version == 13, "raised only as far as 8-bit codes need"
    assert names(after)["metadata"] == {"owner": "somebody"}
    assert names(after)["inputs"] == ["x"]
    assert names(after)["outputs"] == ["y"]
    executed = target.operators(path, {})
    assert executed["QLinearConv"] == 2
    assert executed["QGemm"] == 1
    float_answer = run(before.SerializeToString(), {"x": x.numpy()})[0]
    answer = run(str(path), {"x": x.numpy()})[0]
    assert np.linalg.norm(answer - float_answer) / np.linalg.norm(float_answer) < 0.1


def test_it_is_an_ordinary_network(tmp_path: Path) -> None:
    network = import_onnx(saved(a_cnn(), tmp_path))
    x = torch.from_numpy(RNG.normal(size=(3, 3, 8, 8)).astype(np.float32))
    twin = copy.deepcopy(network)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), network(x), rtol=0, atol=0)
    assert set(twin.state_dict()) == set(network.state_dict())
    network(x).sum().backward()
    assert network.get_submodule("stem.Conv").weight.grad is not None
    folded = inference_form(network)
    assert "batch_norm" not in {kind_of(n) for n in folded.graph.nodes}
    with torch.no_grad():
        torch.testing.assert_close(folded(x), network(x), rtol=1e-4, atol=1e-5)


def test_unknown_operators_stay_opaque_and_go_home_verbatim(tmp_path: Path) -> None:
    made = model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "first"),
            helper.make_node("LpNormalization", ["c"], ["n"], "exotic", axis=1, p=1),
            helper.make_node("Conv", ["n", "w2"], ["y"], "second"),
        ],
        {"w": weights(4, 3, 3, 3), "w2": weights(2, 4, 1, 1)},
    )
    network = import_onnx(saved(made, tmp_path))
    assert "1 LpNormalization" in network.notes[0]
    written = onnx.load_model_from_string(target.write(network).files["model.onnx"])
    (kept,) = (n for n in written.graph.node if n.name == "exotic")
    assert kept == made.graph.node[1]


def test_subgraphs_read_what_became_codes(tmp_path: Path) -> None:
    """The branch of an If captures a value that a quantized convolution makes."""
    branch = helper.make_graph(
        [helper.make_node("Add", ["c", "c"], ["twice"])], "then", [],
        [helper.make_tensor_value_info("twice", FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["same"])], "else", [],
        [helper.make_tensor_value_info("same", FLOAT, None)],
    )  # fmt: skip
    made = model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
            helper.make_node("ReduceMax", ["c"], ["top"], keepdims=0),
            helper.make_node("Greater", ["top", "zero"], ["yes"]),
            helper.make_node("If", ["yes"], ["z"], "choice", then_branch=branch, else_branch=other),
            helper.make_node("Conv", ["c", "w2"], ["c2"], "conv2"),
            helper.make_node("Add", ["z", "c2"], ["y"]),
        ],
        {"w": weights(4, 3, 3, 3), "w2": weights(4, 4, 1, 1), "zero": np.float32(0)[...]},
    )
    network = import_onnx(saved(made, tmp_path))
    placed = kompakt.place(network, "w8a8", isa="x86-vnni")
    x = torch.from_numpy(RNG.normal(size=(8, 3, 8, 8)).astype(np.float32))
    kompakt.calibrate(placed, [x])
    path = tmp_path / "small.onnx"
    kompakt.write(placed, path)
    float_answer = run(made.SerializeToString(), {"x": x.numpy()})[0]
    answer = run(str(path), {"x": x.numpy()})[0]
    assert np.linalg.norm(answer - float_answer) / np.linalg.norm(float_answer) < 0.05


def test_a_shared_initializer_stays_one(tmp_path: Path) -> None:
    made = model(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "one", pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["a", "w"], ["y"], "two", pads=[1, 1, 1, 1]),
        ],
        {"w": weights(3, 3, 3, 3)},
    )
    network = import_onnx(saved(made, tmp_path))
    assert network.get_submodule("one").weight is network.get_submodule("two").weight
    after = onnx.load_model_from_string(target.write(network).files["model.onnx"])
    assert [i.name for i in after.graph.initializer] == ["w"]


def test_external_weights_are_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    before = a_cnn()
    onnx.save(before, path, save_as_external_data=True, location="big.data", size_threshold=0)
    network = import_onnx(path)
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        ours = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, run(str(path), {"x": x})[0], rtol=1e-4, atol=1e-5)
    written = target.write(network)
    assert run(written.files["model.onnx"], {"x": x})[0].shape == ours.shape


def test_old_files_list_initializers_as_inputs(tmp_path: Path) -> None:
    made = a_cnn(opset=11)
    made.graph.input.extend(
        helper.make_tensor_value_info(i.name, FLOAT, i.dims) for i in made.graph.initializer
    )
    network = import_onnx(saved(made, tmp_path))
    assert [s.name for s in network.input_specs] == ["x"]


def test_a_fixed_input_decides_a_branch(tmp_path: Path) -> None:
    def branch(name: str, weight: str, out: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("Conv", ["x", weight], [out], name)], name, [],
            [helper.make_tensor_value_info(out, FLOAT, None)],
        )  # fmt: skip

    made = model(
        [
            helper.make_node("Greater", ["rate", "limit"], ["fast"]),
            helper.make_node("If", ["fast"], ["y"], then_branch=branch("quick", "w1", "a"),
                             else_branch=branch("slow", "w2", "b")),
        ],
        {"w1": weights(4, 3, 3, 3), "w2": weights(4, 3, 3, 3), "limit": np.float32(10)[...]},
        inputs={"x": ["N", 3, 8, 8], "rate": []},
    )  # fmt: skip
    path = saved(made, tmp_path)
    assert "conv" not in {kind_of(n) for n in import_onnx(path).graph.nodes}
    network = import_onnx(path, fixed={"rate": 16})
    assert [s.name for s in network.input_specs] == ["x"]
    assert isinstance(network.get_submodule("quick"), nn.Conv2d)
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    feeds = {"x": x, "rate": np.float32(16)[...]}
    with torch.no_grad():
        ours = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, run(str(path), feeds)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(CaptureError, match="K125"):
        import_onnx(path, fixed={"speed": 16})


def test_a_quantized_file_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    placed = kompakt.place(import_onnx(saved(a_cnn(), tmp_path)), "w8a8", isa="x86-vnni")
    kompakt.calibrate(placed, [torch.randn(4, 3, 8, 8)])
    kompakt.write(placed, tmp_path / "small.onnx")
    with pytest.raises(CaptureError) as caught:
        import_onnx(tmp_path / "small.onnx")
    assert caught.value.code == "K121"
    assert "QuantizeLinear" in caught.value.why


def test_a_wrong_import_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kompakt.network.onnx import calls

    monkeypatch.setitem(calls.FORMS, "LeakyRelu", calls.FORMS["Relu"])
    with pytest.raises(CaptureError) as caught:
        import_onnx(saved(a_cnn(), tmp_path))
    assert caught.value.code == "K123"


@pytest.mark.assets
@with_assets
@pytest.mark.parametrize(
    "name", ["ultraface_rfb320", "nanodet_m", "silero_vad", "silero_vad_16k_op15"]
)
def test_real_files_go_home(name: str) -> None:
    path = Path(str(ASSETS)) / f"{name}.onnx"
    network = import_onnx(path)  # compares with ONNX Runtime
    before = onnx.load(path)
    after = onnx.load_model_from_string(target.write(network).files["model.onnx"])
    listed = {i.name for i in before.graph.initializer}
    wanted = names(before)
    wanted["inputs"] = [n for n in wanted["inputs"] if n not in listed]
    assert names(after) == wanted
    feeds = {
        s.name: t.numpy()
        for s, t in zip(network.input_specs, network.example_inputs(), strict=True)
    }
    for ours, theirs in zip(
        run(after.SerializeToString(), feeds), run(str(path), feeds), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.assets
@with_assets
def test_every_convolution_of_a_detector_runs_in_integers(tmp_path: Path) -> None:
    network = import_onnx(Path(str(ASSETS)) / "ultraface_rfb320.onnx")
    placed = kompakt.place(network, "w8a8", isa="x86-vnni")
    kompakt.calibrate(placed, [tuple(network.example_inputs())])
    kompakt.write(placed, tmp_path / "face.onnx")
    assert target.operators(tmp_path / "face.onnx", {})["QLinearConv"] == 52
