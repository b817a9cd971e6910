"""TensorRT's files: symmetric codes, the simulation's numbers in ONNX Runtime, an engine script that runs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from kompakt.errors import TargetError
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.place import quantizer_calls
from kompakt.schemes import Scheme, Treatment, float32, fp16, w4, w8, w8a8
from kompakt.targets import TARGETS

from ..nets import MODELS, Deployed, deployed, inputs, network

TENSORRT = TARGETS["tensorrt"]
STATIC = [name for name in MODELS if name != "words"]


def made(name: str, scheme: Scheme | None = None) -> Deployed:
    return deployed(name, scheme or w8a8(), target="tensorrt")


def model(name: str, scheme: Scheme | None = None) -> onnx.ModelProto:
    return onnx.load_from_string(made(name, scheme).written.files["model.onnx"])


@pytest.mark.parametrize("name", STATIC)
def test_codes_are_the_simulations(name: str, tmp_path: Path) -> None:
    """Fed with the file's own codes, each quantizer makes the file's next codes."""
    deployment = made(name)
    path, codes = deployment.written.save(tmp_path), deployment.written.codes
    assert set(codes) == set(quantizer_calls(deployment.placed))
    x = inputs(name, seed=5)
    key = deployment.network.input_specs[0].name
    assert TENSORRT.probe is not None
    found = TENSORRT.probe(path, deployment.written.options, list(codes.values()))({key: x.numpy()})
    differing = total = 0

    def follow(site: str, simulated: Tensor) -> Tensor:
        nonlocal differing, total
        theirs = torch.from_numpy(found[codes[site]].astype(np.int32))
        off = (theirs - simulated).abs()
        assert int(off.max()) <= TENSORRT.parity.step, site
        differing, total = differing + int((off > 0).sum()), total + off.numel()
        return theirs

    run_in_integers(deployment.placed, x, on_codes=follow)
    assert differing <= TENSORRT.parity.share * total


@pytest.mark.parametrize("scheme", [w8a8(), w4(group=64), float32(), fp16()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["residual", "encoder", "dense"])
def test_the_file_computes_what_is_simulated(name: str, scheme: Scheme, tmp_path: Path) -> None:
    deployment = made(name, scheme)
    path = deployment.written.save(tmp_path)
    x = inputs(name, seed=3)
    key = deployment.network.input_specs[0].name
    found = TENSORRT.load(path, deployment.written.options)({key: x.numpy()})
    with torch.no_grad():
        simulated = deployment.placed(x).numpy()
    error = np.linalg.norm(next(iter(found.values())) - simulated) / np.linalg.norm(simulated)
    assert error < 1e-5


@pytest.mark.parametrize("name", ["plain", "residual", "concat", "depthwise", "encoder"])
def test_every_code_is_symmetric_int8(name: str) -> None:
    found = model(name)
    stored = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
    pairs = [n for n in found.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        assert stored[node.input[2]].dtype == np.int8
        assert not stored[node.input[2]].any()
    assert not any(array.dtype == np.int32 for array in stored.values())


def test_only_the_other_branch_of_an_addition_is_quantized() -> None:
    found = model("residual")
    makers = {name: node for node in found.graph.node for name in node.output}
    add = next(n for n in found.graph.node if n.op_type == "Add")
    assert sorted(makers[name].op_type for name in add.input) == ["Conv", "DequantizeLinear"]


def test_joined_tensors_share_a_scale_whatever_clips_them() -> None:
    for name in ("concat", "mixed concat"):
        found = model(name)
        makers = {n: node for node in found.graph.node for n in node.output}
        join = next(n for n in found.graph.node if n.op_type == "Concat")
        assert len({makers[i].input[1] for i in join.input}) == 1


def test_four_bit_weights_are_packed_and_blocked() -> None:
    found = model("dense", w4(group=64))  # 40 and 48 features: no group of 64 divides them
    assert not any(t.data_type == onnx.TensorProto.INT4 for t in found.graph.initializer)
    wide = torch.nn.Sequential(torch.nn.Linear(128, 8)).eval()
    from kompakt.measuring.data import Batch
    from kompakt.network.capture import capture

    from ..nets import deploy

    x = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    captured = capture(wide, x)
    batch = Batch({captured.input_specs[0].name: x}, None, 2)
    deployment = deploy(captured, [batch], w4(group=64), target="tensorrt")
    graph = onnx.load_from_string(deployment.written.files["model.onnx"]).graph
    codes = next(t for t in graph.initializer if t.data_type == onnx.TensorProto.INT4)
    assert tuple(codes.dims) == (128, 8)
    assert len(codes.raw_data) == 128 * 8 // 2
    decode = next(n for n in graph.node if codes.name in n.input)
    assert {a.name: a.i for a in decode.attribute} == {"axis": 0, "block_size": 64}


@pytest.mark.parametrize(
    "treatment",
    [
        Treatment(mode="weight_only", weight="int8", symmetric_weight=False),
        Treatment(mode="static", weight="uint8", activation="auto8"),
        Treatment(mode="static", weight="int8", activation="uint8"),
    ],
    ids=["zero point", "unsigned weights", "unsigned activations"],
)
def test_what_tensorrt_does_not_read_is_refused(treatment: Treatment) -> None:
    with pytest.raises(TargetError) as caught:
        made("dense", Scheme(name="bad", default=treatment))
    assert caught.value.code == "K400"


def test_groups_of_eight_bit_weights_are_refused() -> None:
    wide = w8(group=128)
    with pytest.raises(TargetError) as caught:
        made("dense", w8(group=32))
    assert caught.value.code == "K400"
    assert wide.default.weight == "int8_narrow"


def test_two_writes_give_the_same_bytes() -> None:
    assert TENSORRT.write(made("residual").placed).files == made("residual").written.files
    assert list(made("residual").written.files) == ["model.onnx", "build_engine.py"]


def test_auto_does_not_try_it() -> None:
    assert not TENSORRT.automatic


# --- the engine script ------------------------------------------------------------------------


class FakeBuilder:
    """What the script asks of TensorRT, written down."""

    asked: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, logger: object) -> None:
        self.asked.clear()

    def create_network(self, flags: int) -> str:
        self.asked.append(("network", flags))
        return "network"

    def create_builder_config(self) -> Any:
        return SimpleNamespace(add_optimization_profile=lambda p: self.asked.append(("profile", p)))

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *shape: self.asked.append(("shape", *shape)))

    def build_serialized_network(self, network: str, config: object) -> bytes:
        self.asked.append(("build", network))
        return b"engine"


class FakeParser:
    good = True
    num_errors = 1

    def __init__(self, network: str, logger: object) -> None:
        assert network == "network"

    def parse_from_file(self, path: str) -> bool:
        return self.good and onnx.load(path) is not None

    def get_error(self, number: int) -> str:
        return f"error {number}"


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("tensorrt")
    module.__dict__.update(
        Logger=type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None}),
        Builder=FakeBuilder,
        OnnxParser=FakeParser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
    )
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def run_script(folder: Path) -> int:
    before, sys.argv = sys.argv, ["build_engine.py"]
    try:
        runpy.run_path(str(folder / "build_engine.py"), run_name="__main__")
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        sys.argv = before
    raise AssertionError("the script does not say how it ended")


def test_the_script_builds_a_strongly_typed_engine(tensorrt: ModuleType, tmp_path: Path) -> None:
    made("plain").written.save(tmp_path)
    assert run_script(tmp_path) == 0
    assert (tmp_path / "model.plan").read_bytes() == b"engine"
    shapes = [(size, 3, 10, 10) for size in (1, 8, 32)]
    assert FakeBuilder.asked[0] == ("network", 2)
    assert ("shape", "x", *shapes) in FakeBuilder.asked
    assert FakeBuilder.asked[-1] == ("build", "network")
    del tensorrt.__dict__["NetworkDefinitionCreationFlag"].STRONGLY_TYPED  # as in version 11
    assert run_script(tmp_path) == 0
    assert FakeBuilder.asked[0] == ("network", 0)


def test_the_script_says_when_the_parser_refuses(
    tensorrt: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made("plain").written.save(tmp_path)
    monkeypatch.setattr(FakeParser, "good", False)
    assert run_script(tmp_path) == 1
    assert "error 0" in capsys.readouterr().err
    assert not (tmp_path / "model.plan").exists()


def test_the_trtexec_line_names_the_inputs_and_their_batches() -> None:
    note = made("plain").written.notes[-1]
    assert "trtexec --onnx=model.onnx --saveEngine=model.plan --stronglyTyped" in note
    assert "--minShapes=x:1x3x10x10 --optShapes=x:8x3x10x10 --maxShapes=x:32x3x10x10" in note
    assert note.removeprefix("on the machine with the GPU: ") in (
        made("plain").written.files["build_engine.py"].decode()
    )


def test_an_input_with_a_hostile_name_stays_data() -> None:
    from dataclasses import replace

    from kompakt.targets.tensorrt_build import build_script, trtexec_line

    spec = replace(network("plain").input_specs[0], name='x"""\nimport os  # $(id)')
    script = build_script([spec], trtexec_line([spec]))
    import ast

    tree = ast.parse(script)
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert names == {"sys", "tensorrt"}
