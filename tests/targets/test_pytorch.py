"""Files for PyTorch itself: .pt2 programs, AOTInductor packages and TorchScript."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kompakt.errors import ArtifactError, SchemeError, TargetError
from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.integer import run_in_integers
from kompakt.schemes import Scheme, float32, w4, w8a8, w8a8_dynamic
from kompakt.targets import TARGETS, pytorch, pytorch_aot, pytorch_program
from kompakt.targets.pytorch_quantized import quantized_module
from kompakt.targets.target import Runnable

from ..nets import MODELS, Deployed, deploy, deployed, inputs, network

EAGER = {"run": "eager"}
FILES = ("torch", "torchscript")
every_file = pytest.mark.parametrize("target", FILES)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def run(runnable: Runnable, x: Tensor) -> Tensor:
    return torch.from_numpy(
        runnable({runnable.input_names[0]: x.numpy()})[runnable.output_names[0]]
    )


def loaded(deployment: Deployed, target: str, options: Any = EAGER) -> Any:
    return TARGETS[target].load(deployment.written.files[deployment.written.main], options)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@every_file
@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_was_simulated(target: str, name: str) -> None:
    deployment = deployed(name, target=target)
    runnable = loaded(deployment, target)
    for samples in (1, 3):
        x = inputs(name, seed=5, samples=samples)
        with torch.no_grad():
            assert error(run(runnable, x), deployment.placed(x)) < 1e-6


@every_file
@pytest.mark.parametrize("name", ["dense", "encoder"])
@pytest.mark.parametrize("scheme", [w8a8_dynamic(), w4(group=16), float32()])
def test_other_schemes(target: str, name: str, scheme: Scheme) -> None:
    if target == "torchscript" and scheme.name.startswith("w4"):
        with pytest.raises(SchemeError):
            deployed(name, scheme, target=target)
        return
    deployment = deployed(name, scheme, target=target)
    x = inputs(name, seed=5)
    with torch.no_grad():
        exact = deployment.placed(x)
    # PyTorch chooses dynamic ranges by a formula of its own, which may move a zero point by one.
    limit = 0.02 if scheme.name == "w8a8-dynamic" and target == "torchscript" else 1e-5
    assert error(run(loaded(deployment, target), x), exact) < limit


@every_file
def test_the_file_tells_its_own_names(target: str, tmp_path: Path) -> None:
    path = deployed("plain", target=target).written.save(tmp_path)
    runnable = TARGETS[target].load(path, EAGER, 1)
    captured = network("plain")
    assert runnable.input_specs == captured.input_specs
    assert runnable.output_names == tuple(s.name for s in captured.output_specs)


@every_file
def test_inputs_that_do_not_fit_are_refused(target: str) -> None:
    runnable = loaded(deployed("plain", target=target), target)
    shapes = [
        np.zeros((1, 3, 9), np.float32),
        np.zeros((1, 3, 11, 10), np.float32),
        np.zeros((1, 3, 10, 10)),
    ]
    bad: list[dict[str, Any]] = [{}, *({"x": array} for array in shapes)]
    for given in bad:
        with pytest.raises(TargetError) as caught:
            runnable(given)
        assert caught.value.code == "K403"


@pytest.mark.parametrize("target", ["torch", "torch-aoti", "torchscript"])
def test_a_damaged_file_is_refused(target: str, tmp_path: Path) -> None:
    source = deployed("plain", target="torch" if target == "torch-aoti" else target)
    path = source.written.save(tmp_path)
    content = path.read_bytes()
    damaged = (content[: len(content) // 2], b"", b"no model", bytes(b ^ 0x5A for b in content))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ArtifactError) as caught:
            TARGETS[target].load(path, {}, 1)
        assert caught.value.code == "K530"
        assert str(path) in caught.value.where
    with pytest.raises(ArtifactError):
        TARGETS[target].load(tmp_path / "absent", {}, 1)


@every_file
@pytest.mark.parametrize("name", ["plain", "words"])
def test_two_writes_give_the_same_bytes_and_name_no_folder(target: str, name: str) -> None:
    deployment = deployed(name, target=target)
    again = TARGETS[target].write(deployment.placed)
    assert again.files == deployment.written.files
    here = str(Path(__file__).resolve().parents[2]).encode()
    assert not any(here in content for content in again.files.values())


def test_torchscript_layers_are_pytorchs_quantized_ones(tmp_path: Path) -> None:
    deployment = deployed("residual", target="torchscript")
    counts = TARGETS["torchscript"].operators(deployment.written.save(tmp_path), {})
    assert (counts["quantized::conv2d"], counts["quantized::linear"]) == (2, 1)
    assert counts["quantized::add"] == 1
    assert "aten::conv2d" not in counts


def test_depthwise_sums_do_not_saturate() -> None:
    class Deep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(8, 8, 3, groups=8, bias=False)
            torch.nn.init.constant_(self.conv.weight, 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    x = torch.ones(2, 8, 6, 6)  # the largest code, times the largest code
    captured = inference_form(capture(Deep().eval(), x))
    batches = [Batch({captured.input_specs[0].name: x}, None, 2)]
    deployment = deploy(captured, batches, w8a8(), target="torchscript")
    options = deployment.written.options
    assert torch.allclose(run(loaded(deployment, "torchscript", options), x), torch.tensor(4.5))
    before = torch.backends.quantized.engine
    assert before != "onednn" or options["engine"] == before, "the process keeps its own engine"


def test_the_eager_module_holds_our_codes_and_scales() -> None:
    placed = deployed("plain", target="torchscript").placed
    module = quantized_module(placed)
    layer, ours = module.get_submodule("a.0"), placed.get_submodule("a.0")
    assert type(layer).__module__.startswith("torch.ao.nn")
    assert torch.equal(layer.weight().int_repr(), ours.weight_codes)
    assert torch.equal(layer.weight().q_per_channel_scales().float(), ours.weight_scale)
    fresh = quantized_module(placed)
    fresh.load_state_dict(module.state_dict())
    x = inputs("plain", seed=4)
    with torch.no_grad():
        assert torch.equal(fresh(x), run_in_integers(placed, x)[0])


def test_inductors_passes_find_every_integer_layer(tmp_path: Path) -> None:
    path = deployed("movers", target="torch").written.save(tmp_path)
    counts = TARGETS["torch"].operators(path, {"run": "inductor"})
    assert counts["onednn.qconv_pointwise.default"] == 3
    assert counts["onednn.qlinear_pointwise.default"] == 1
    assert not any("dequantize_per_channel" in name for name in counts), "no layer in float"


def test_a_package_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    written = deployed("dense", target="torch").written.files["model.pt2"]
    monkeypatch.setattr(pytorch_aot, "load", lambda content: pytorch.load(written, EAGER))
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fake_package)
    monkeypatch.setattr(
        pytorch_aot, "decomposed", lambda network: lambda x: (torch.ones(len(x), 5),)
    )
    with pytest.raises(TargetError) as caught:
        pytorch_aot.write(deployed("dense", target="torch").placed)
    assert caught.value.code == "K402"


def fake_package(program: Any, *, package_path: str, inductor_configs: Any) -> None:
    Path(package_path).write_bytes(deployed("dense", target="torch").written.files["model.pt2"])


def test_a_file_of_one_sample_runs_batches_one_by_one() -> None:
    specs = network("dense").input_specs
    seen: list[int] = []

    def function(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x * 2

    program = pytorch_program.Program(function, specs, ("output",), single=True)
    x = inputs("dense", samples=3)
    assert torch.equal(run(program, x), x * 2)
    assert seen == [1, 1, 1]
    with pytest.raises(TargetError):
        program({specs[0].name: np.zeros((0, 40), np.float32)})


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", ["residual", "dense"])
def test_inductor_runs_it_in_int8(name: str) -> None:
    deployment = deployed(name, target="torch")
    runnable = loaded(deployment, "torch", deployment.written.options)
    for samples in (1, 2, 7):
        x = inputs(name, seed=5, samples=samples)
        with torch.no_grad():
            assert error(run(runnable, x), deployment.placed(x)) < 0.02


@pytest.mark.slow
@needs_compiler
def test_an_aotinductor_package_runs_in_int8(tmp_path: Path) -> None:
    deployment = deployed("residual", target="torch-aoti")
    path = deployment.written.save(tmp_path)
    runnable = TARGETS["torch-aoti"].load(path)
    for samples in (1, 2, 7):
        x = inputs("residual", seed=5, samples=samples)
        with torch.no_grad():
            assert error(run(runnable, x), deployment.placed(x)) < 0.02
    counts = TARGETS["torch-aoti"].operators(path, {})
    assert counts == {"qconv_pointwise_tensor": 2, "qlinear_pointwise_tensor": 1}
    assert TARGETS["torch-aoti"].write(deployment.placed).files == deployment.written.files
