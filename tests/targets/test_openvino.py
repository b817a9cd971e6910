"""OpenVINO's files: integer kernels everywhere, the simulation's codes, the same bytes at every write."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kompakt.errors import ArtifactError, TargetError
from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.place import quantizer_calls, quantizer_of
from kompakt.schemes import Scheme, Treatment, float32, fp16, w4, w8, w8a8
from kompakt.targets import TARGETS

from ..nets import Deployed, deploy, deployed, inputs, network

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
)
OPENVINO = TARGETS["openvino"]
STATIC = ["plain", "residual", "input residual", "concat", "movers", "depthwise", "gate", "darknet"]


def made(name: str, scheme: Scheme | None = None) -> Deployed:
    return deployed(name, scheme or w8a8(), target="openvino")


def saved(name: str, folder: Path, scheme: Scheme | None = None) -> tuple[Path, dict[str, str]]:
    written = made(name, scheme).written
    return written.save(folder), written.options


def executed(name: str, folder: Path, scheme: Scheme | None = None) -> dict[str, int]:
    return OPENVINO.operators(*saved(name, folder, scheme))


@pytest.mark.parametrize("name", [*STATIC, "dense", "dense 3d", "twice", "encoder"])
def test_every_convolution_and_linear_layer_runs_in_integers(name: str, tmp_path: Path) -> None:
    counts = executed(name, tmp_path)
    layers = {k: n for k, n in counts.items() if k.startswith(("Convolution:", "FullyConnected:"))}
    assert layers
    assert {key.split(":")[1] for key in layers} <= {"u8", "i8"}, counts


@pytest.mark.parametrize("name", [*STATIC, "dense", "twice", "encoder"])
def test_codes_are_the_simulations(name: str, tmp_path: Path) -> None:
    """Fed with the file's own codes, each quantizer makes the file's next codes."""
    deployment = made(name)
    path, options = saved(name, tmp_path)
    codes = deployment.written.codes
    assert set(codes) == set(quantizer_calls(deployment.placed))
    x = inputs(name, seed=5)
    key = deployment.network.input_specs[0].name
    found = OPENVINO.probe(path, options, list(codes.values()))({key: x.numpy()})
    differing = total = 0

    def follow(site: str, simulated: Tensor) -> Tensor:
        nonlocal differing, total
        theirs = torch.from_numpy(found[codes[site]].astype(np.int32))
        off = (theirs - simulated).abs()
        assert int(off.max()) <= OPENVINO.parity.step, site
        differing, total = differing + int((off > 0).sum()), total + off.numel()
        return theirs

    run_in_integers(deployment.placed, x, on_codes=follow)
    assert differing <= OPENVINO.parity.share * total + 1


def test_images_become_exactly_the_simulated_codes(tmp_path: Path) -> None:
    """Pixels lie between two codes: another order of roundings would be seen at once."""
    x = torch.arange(256).float().repeat(4 * 3)[: 4 * 3 * 100].reshape(4, 3, 10, 10) / 127.5 - 1
    captured = network("plain")
    made_ = deploy(captured, [Batch({"x": x}, None, 4)], w8a8(), target="openvino")
    path, name = made_.written.save(tmp_path), made_.written.codes["x"]
    found = OPENVINO.probe(path, made_.written.options, [name])({"x": x.numpy()})[name]
    quantizer = quantizer_of(made_.placed, quantizer_calls(made_.placed)["x"])
    assert np.array_equal(found, quantizer.codes(x).numpy())


@pytest.mark.parametrize("name", [*STATIC, "dense", "twice", "encoder"])
def test_looking_at_codes_changes_nothing(name: str, tmp_path: Path) -> None:
    deployment = made(name)
    path, options = saved(name, tmp_path)
    fed = {deployment.network.input_specs[0].name: inputs(name, seed=5).numpy()}
    shipped = OPENVINO.load(path, options)(fed)
    probed = OPENVINO.probe(path, options, list(deployment.written.codes.values()))(fed)
    for output, values in shipped.items():
        assert np.array_equal(values, probed[output])


@pytest.mark.parametrize("name", ["residual", "encoder", "words"])
def test_two_writes_give_the_same_bytes(name: str) -> None:
    assert OPENVINO.write(made(name).placed).files == made(name).written.files
    assert list(made(name).written.files) == ["model.xml", "model.bin"]


@pytest.mark.parametrize(
    "scheme", [float32(), fp16(), w8(group=16), w4(group=16)], ids=lambda s: s.name
)
@pytest.mark.parametrize("name", ["plain", "encoder", "words"])
def test_weight_formats_compute_what_is_simulated(
    name: str, scheme: Scheme, tmp_path: Path
) -> None:
    deployment = made(name, scheme)
    path, options = saved(name, tmp_path, scheme)
    x = inputs(name, seed=3)
    found = OPENVINO.load(path, options)({deployment.network.input_specs[0].name: x.numpy()})
    with torch.no_grad():
        simulated = deployment.placed(x).numpy()
    error = np.linalg.norm(next(iter(found.values())) - simulated) / np.linalg.norm(simulated)
    assert error < 1e-5


def test_dynamic_dimensions_keep_their_names(tmp_path: Path) -> None:
    session = OPENVINO.load(*saved("plain", tmp_path))
    wanted = network("plain").input_specs
    assert [(s.name, tuple(s.shape), s.dtype) for s in session.input_specs] == [
        (s.name, tuple(s.shape), s.dtype) for s in wanted
    ]
    for samples in (1, 3, 8):
        x = inputs("plain", samples=samples)
        assert len(session({"x": x.numpy()})["output"]) == samples


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    session = OPENVINO.load(*saved("plain", tmp_path))
    for bad in ({}, {"x": np.zeros((1, 3, 9), np.float32)}, {"x": np.zeros((1, 3, 10, 10))}):
        with pytest.raises(TargetError) as caught:
            session(bad)
        assert caught.value.code == "K403"


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path, options = saved("plain", tmp_path)
    content, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    for damaged in (
        content[: len(content) // 2],
        b"",
        b"no model",
        bytes(b ^ 0x5A for b in content),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError) as caught:
            OPENVINO.load(path, options)
        assert caught.value.code == "K530"
        assert str(path) in caught.value.where
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ArtifactError):
        OPENVINO.load(path, options)


def test_the_float_file_is_computed_in_float32(tmp_path: Path) -> None:
    written = OPENVINO.write(network("plain"))
    assert written.options["INFERENCE_PRECISION_HINT"] == "f32"
    counts = OPENVINO.operators(written.save(tmp_path), {})  # also where the options are lost
    assert {key.split(":")[1] for key in counts if key.startswith("Convolution")} == {"f32"}


def test_attention_is_one_kernel_and_a_hidden_row_stays_zero(tmp_path: Path) -> None:
    class Hidden(torch.nn.Module):
        def forward(self, x: Tensor, shown: Tensor) -> Tensor:
            heads = x.unflatten(-1, (2, 8)).transpose(1, 2)
            return torch.nn.functional.scaled_dot_product_attention(
                heads, heads, heads, attn_mask=shown[:, None]
            )

    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    shown = torch.ones(2, 5, 5, dtype=torch.bool)
    shown[0, 1] = False
    shown[1, :, 3:] = False
    captured = capture(Hidden().eval(), (x, shown))
    written = OPENVINO.write(captured)
    assert written.files["model.xml"].count(b'type="ScaledDotProductAttention"') == 1
    path = written.save(tmp_path)
    assert not any(key.startswith("Softmax") for key in OPENVINO.operators(path, written.options))
    fed = {"x": x.numpy(), "shown": shown.numpy()}
    found = OPENVINO.load(path, written.options)(fed)["output"]
    assert np.allclose(found, captured(x, shown).numpy(), atol=1e-6)
    assert not found[0, :, 1].any()


ISA = """
import os, sys
from pathlib import Path
import numpy as np
from kompakt.targets.openvino import OPENVINO, OPTIONS
session = OPENVINO.load(Path(sys.argv[1]), OPTIONS)
found = session({session.input_names[0]: np.load(sys.argv[2])["x"]})
np.save(sys.argv[3], found[session.output_names[0]])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "equal"), [("int7_narrow", True), ("int8_narrow", False)])
def test_seven_bit_weights_cannot_saturate_without_vnni(
    weight: str, equal: bool, tmp_path: Path
) -> None:
    """Where pair sums saturate (8-bit weights at the end of their range), 7 bits give equal outputs."""
    layer = torch.nn.Conv2d(16, 16, 3, padding=1)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.abs())
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), torch.nn.Conv2d(16, 4, 1)).eval()
    x = torch.rand(4, 16, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.8
    captured = inference_form(capture(model, x))
    treatment = Treatment(mode="static", weight=weight, activation="auto8")
    batches = [Batch({captured.input_specs[0].name: x}, None, 4)]
    scheme = Scheme(name=weight, default=treatment)
    written = deploy(captured, batches, scheme, target="openvino").written
    path = written.save(tmp_path)
    np.savez(tmp_path / "x.npz", x=x.numpy())
    found = []
    for isa in ("AVX2", "AVX512_CORE_VNNI"):
        out = tmp_path / f"{isa}.npy"
        command = [sys.executable, "-c", ISA, str(path), str(tmp_path / "x.npz"), str(out)]
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        found.append(np.load(out))
    assert np.array_equal(*found) == equal
