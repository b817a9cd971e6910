"""Core ML packages hold our codes and scales, and compute what was simulated when they are interpreted."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from kompakt.errors import ArtifactError, TargetError
from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.schemes import float32, w8a8_dynamic
from kompakt.targets import TARGETS, coreml

from ..nets import Deployed, batches_for, deploy, deployed, grid, inputs, network
from .mil import Interpreter

TARGET = TARGETS["coreml"]
pytestmark = pytest.mark.skipif(TARGET.version() is None, reason="coremltools is not installed")


def made(name: str) -> Deployed:
    return deployed(name, target="coreml")


def content(deployment: Deployed) -> bytes:
    return deployment.written.files["model.mlpackage.zip"]


@pytest.mark.parametrize(
    "name", ["plain", "residual", "input residual", "depthwise", "dense", "twice"]
)
def test_the_file_computes_what_was_simulated(name: str) -> None:
    deployment = made(name)
    runnable = coreml.load(content(deployment))
    x = inputs(name, seed=5, samples=1)
    found = Interpreter(content(deployment))(**{runnable.input_names[0]: x})
    with torch.no_grad():
        assert torch.equal(found[runnable.output_names[0]], deployment.placed(x))


def test_weights_and_activations_are_quantized(tmp_path: Path) -> None:
    counts = TARGET.operators(made("residual").written.save(tmp_path), {})
    assert counts["constexpr_affine_dequantize"] == counts["conv"] + counts["linear"] == 3
    assert counts["quantize"] == counts["dequantize"] == 3


def test_it_stores_the_very_codes_and_scales() -> None:
    deployment = made("plain")
    interpreter = Interpreter(content(deployment))
    layer = deployment.placed.get_submodule("a.0")
    stored = [
        {name: interpreter._value(v) for name, v in operation.attributes.items()}
        for operation in coreml.operations(interpreter.spec)
        if operation.type == "constexpr_affine_dequantize"
    ]
    first = next(s for s in stored if s["quantized_data"].shape == layer.weight_codes.shape)
    assert torch.equal(first["quantized_data"], layer.weight_codes)
    assert torch.equal(first["scale"].reshape(-1), layer.weight_scale)


def test_it_is_a_package_with_the_networks_names(tmp_path: Path) -> None:
    path = made("plain").written.save(tmp_path)
    package = TARGET.load(path)
    captured = network("plain")
    assert package.input_specs == captured.input_specs
    assert package.output_names == tuple(s.name for s in captured.output_specs)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    import coremltools

    folder = str(tmp_path / "unpacked" / "model.mlpackage")
    spec = coremltools.models.MLModel(folder, skip_model_load=True).get_spec()
    assert spec.WhichOneof("Type") == "mlProgram"
    assert "2026" not in str(spec.description.metadata), "no date: the same network, the same bytes"


def test_names_keep_their_capitals() -> None:
    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(12, 5)

        def forward(self, x_BF: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"Scores": self.layer(x_BF)}

    captured = inference_form(capture(Named().eval(), grid(2, 12)))
    (name,) = (spec.name for spec in captured.input_specs)
    deployment = deploy(captured, [Batch({name: grid(4, 12)}, None, 4)], target="coreml")
    package = coreml.load(content(deployment))
    assert package.input_names == (name,)
    x = grid(1, 12, seed=2)
    with torch.no_grad():
        exact = deployment.placed.call_flat([x])[0]
    found = Interpreter(content(deployment))(**{name: x})[package.output_names[0]]
    assert torch.equal(found, exact)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_calling_it_elsewhere_says_that_it_needs_a_mac() -> None:
    package = coreml.load(content(made("plain")))
    with pytest.raises(TargetError) as caught:
        package({"x": inputs("plain").numpy()})
    assert caught.value.code == "K403"
    assert "macOS" in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = made("plain").written.save(tmp_path)
    whole = path.read_bytes()
    damaged = [
        whole[: len(whole) // 2],
        b"",
        b"no model",
        bytes(b ^ 0x5A for b in whole),
        _shortened(whole),
    ]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ArtifactError) as caught:
            TARGET.load(path, {}, 1)
        assert caught.value.code == "K530"
        assert str(path) in caught.value.where


def _shortened(whole: bytes) -> bytes:
    """The package with an empty weight file."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"" if name.endswith("weight.bin") else old.read(name))
    return out.getvalue()


def test_two_writes_give_the_same_bytes() -> None:
    assert TARGET.write(made("plain").placed).files == made("plain").written.files


def test_float_networks_and_refused_schemes() -> None:
    plain = deployed("plain", float32(), target="coreml")
    x = inputs("plain", seed=5, samples=1)
    found = Interpreter(content(plain))(x=x)["output"]
    with torch.no_grad():
        assert torch.allclose(found, plain.placed(x), atol=1e-5)
    with pytest.raises(Exception, match="K345"):
        deploy(network("dense"), batches_for("dense"), w8a8_dynamic(), target="coreml")
