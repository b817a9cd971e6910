"""``.pte`` files run in XNNPACK's int8 kernels and compute what the integer referee says."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import ArtifactError, SchemeError, TargetError
from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.integer import run_in_integers
from kompakt.schemes import w8a8, w8a8_dynamic
from kompakt.targets import TARGETS, executorch
from kompakt.targets import decomposed as rewriting

from ..nets import MODELS, Deployed, batches_for, deploy, deployed, grid, inputs, network

pytestmark = pytest.mark.skipif(
    TARGETS["executorch"].version() is None, reason="executorch is not installed"
)
TARGET = TARGETS["executorch"]
EXACT = set(MODELS) - {"darknet", "gate"}
"""The others compute something in float whose last bit differs."""


class Shared(nn.Module):
    """One tensor of codes read by an integer layer and by a float operator."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return torch.tanh(y) - self.b(y)


@cache
def shared() -> Deployed:
    torch.manual_seed(0)
    captured = inference_form(capture(Shared().eval(), grid(2, 12)))
    batches = [Batch({captured.input_specs[0].name: grid(8, 12, seed=1)}, None, 8)]
    return deploy(captured, batches, w8a8(), target="executorch")


def made(name: str) -> Deployed:
    return deployed(name, target="executorch")


def outputs(deployment: Deployed, x: Tensor) -> Tensor:
    runnable = executorch.load(deployment.written.files["model.pte"])
    found = runnable({runnable.input_names[0]: x.numpy()})
    return torch.from_numpy(found[runnable.output_names[0]])


def saved(deployment: Deployed, folder: Path) -> Path:
    return deployment.written.save(folder)


def test_a_convolution_network_is_one_delegate_in_int8(tmp_path: Path) -> None:
    counts = TARGET.operators(saved(made("plain"), tmp_path), {})
    layers = {k: n for k, n in counts.items() if "Conv2d" in k or "Connected" in k or "Pool" in k}
    assert layers == {
        "XNNConv2d:int8": 2,
        "XNNFullyConnected:int8": 1,
        "XNNGlobalAvgPooling2d:int8": 1,
    }
    assert not [name for name in counts if name.startswith("aten")]
    assert counts["XNNConvert:int8"] == counts["XNNConvert:float"] == 1, "only at the ends"


@pytest.mark.parametrize("samples", [1, 5])
def test_it_computes_what_the_integer_referee_computes(samples: int) -> None:
    x = inputs("plain", seed=5, samples=samples)
    deployment = made("plain")
    (exact,) = run_in_integers(deployment.placed, x)
    assert torch.equal(outputs(deployment, x), exact)


def test_codes_that_a_float_operator_reads_too_are_not_taken_for_numbers() -> None:
    x = grid(6, 12, seed=3)
    with torch.no_grad():
        exact = shared().placed(x)
    found = outputs(shared(), x)
    assert float((found - exact).norm() / exact.norm()) < 0.02


def test_a_lowering_that_went_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "_one_dequantize_for_each_reader", lambda graph: None)
    with pytest.raises(TargetError) as caught:
        executorch.write(shared().placed)
    assert caught.value.code == "K402"
    assert "lowered to something else" in str(caught.value)


def test_the_file_tells_its_own_names(tmp_path: Path) -> None:
    runnable = TARGET.load(saved(made("plain"), tmp_path))
    captured = network("plain")
    assert runnable.input_specs == captured.input_specs
    assert runnable.output_names == tuple(s.name for s in captured.output_specs)


def test_inputs_that_do_not_fit_are_refused() -> None:
    runnable = executorch.load(made("plain").written.files["model.pte"])
    bad: list[dict[str, Any]] = [
        {},
        {"x": np.zeros((1, 3, 9), np.float32)},
        {"x": np.zeros((1, 3, 11, 10), np.float32)},
        {"x": np.zeros((1, 3, 10, 10))},
        {"x": np.zeros((0, 3, 10, 10), np.float32)},
    ]
    for inputs_ in bad:
        with pytest.raises(TargetError) as caught:
            runnable(inputs_)
        assert caught.value.code == "K403"


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = saved(made("plain"), tmp_path)
    content = path.read_bytes()
    damaged = (
        content[: len(content) // 2], b"", b"this is no model", bytes(b ^ 0x5A for b in content)
    )  # fmt: skip
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ArtifactError) as caught:
            TARGET.load(path, {}, 1)
        assert caught.value.code == "K530"
        assert str(path) in caught.value.where
    with pytest.raises(ArtifactError):
        TARGET.load(tmp_path / "absent.pte", {}, 1)


def test_two_writes_give_the_same_bytes() -> None:
    assert TARGET.write(shared().placed).files == shared().written.files


def test_what_it_cannot_execute_says_why() -> None:
    with pytest.raises(SchemeError) as caught:
        deploy(network("dense"), batches_for("dense"), w8a8_dynamic(), target="executorch")
    assert caught.value.code == "K345"
    assert "XNNPACK" in caught.value.why


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_computes_what_was_simulated(name: str) -> None:
    deployment, x = made(name), inputs(name, seed=5)
    with torch.no_grad():
        (exact,) = run_in_integers(deployment.placed, x)
    found = outputs(deployment, x)
    error = float((found - exact).norm() / exact.norm())
    assert error <= (0.0 if name in EXACT else 0.02)
