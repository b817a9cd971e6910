"""The contract in short, for every runtime: what it writes loads, runs, is certified, and is refused when damaged.

The long form, with every network and scheme, is ``test_contract.py``; its rows are added here when a runtime is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kompakt.errors import KompaktError
from kompakt.measuring.parity import certify
from kompakt.schemes import w8a8
from kompakt.targets import TARGETS, Target

from ..nets import Deployed, deployed, inputs, network

QUICK = (
    "onnxruntime",
    "openvino",
    "litert",
    "tflite-micro",
    "executorch",
    "tensorrt",
    "torchscript",
)
COMPILED = ("torch", "torch-aoti", "coreml")
"""They take up to a minute to compile or convert a network."""
NOT_RUN = ("coreml",)
NETS = ("plain", "residual")
INTEGERS = {
    "onnxruntime": ("QLinearConv",),
    "openvino": ("Convolution:u8",),
    "litert": ("CONV_2D",),
    "tflite-micro": ("CONV_2D",),
}
"""Operators that only run in integers, where the runtime tells what it executes."""

targets = pytest.mark.parametrize(
    "target",
    [
        *(pytest.param(TARGETS[name], id=name) for name in QUICK),
        *(pytest.param(TARGETS[name], id=name, marks=pytest.mark.slow) for name in COMPILED),
    ],
)
nets = pytest.mark.parametrize("name", NETS)


def made(target: Target, name: str) -> Deployed:
    if target.version() is None:
        pytest.skip(f"{target.name} is not installed")
    return deployed(name, w8a8(), target=target.name)


def test_no_runtime_is_forgotten() -> None:
    assert set(QUICK) | set(COMPILED) == set(TARGETS)


@targets
@nets
def test_it_loads_runs_and_is_certified(target: Target, name: str, tmp_path: Path) -> None:
    if target.name in NOT_RUN:
        pytest.skip(f"{target.name} runs elsewhere")
    found = made(target, name)
    path = found.written.save(tmp_path)
    session = target.load(path, found.written.options, 1)
    captured = network(name)
    assert session.input_names == tuple(s.name for s in captured.input_specs)
    assert session.output_names == tuple(s.name for s in captured.output_specs)
    for samples in (1, 4):
        x = inputs(name, seed=9, samples=samples)
        got = session({session.input_names[0]: x.numpy()})[session.output_names[0]]
        with torch.no_grad():
            exact = captured(x).numpy()
        assert got.shape == exact.shape
        assert np.linalg.norm(got - exact) / np.linalg.norm(exact) < 0.4
    certificate = certify(found.placed, found.written, target, found.batches, rules=found.rules)
    assert certificate.verdict != "failed", certificate.first_difference
    for operator in INTEGERS.get(target.name, ()):
        assert certificate.operators.get(operator, 0) > 0, certificate.operators


@targets
def test_two_writes_give_the_same_bytes(target: Target) -> None:
    found = made(target, "plain")
    again = target.write(found.placed)
    assert again.files == found.written.files
    assert again.options == found.written.options


@targets
def test_a_damaged_file_is_refused(target: Target, tmp_path: Path) -> None:
    found = made(target, "plain")
    path = found.written.save(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def use() -> None:
        session = target.load(path, found.written.options, 1)
        session({session.input_names[0]: inputs("plain").numpy()})

    with pytest.raises(KompaktError):
        use()


@targets
def test_an_altered_weight_is_noticed(target: Target, tmp_path: Path) -> None:
    """The certificate compares the file with what was simulated, not with itself."""
    if target.name in NOT_RUN:
        pytest.skip(f"{target.name} runs elsewhere")
    found = made(target, "plain")
    other = deployed("plain", w8a8(), seed=1, target=target.name)
    certificate = certify(found.placed, other.written, target, found.batches, rules=found.rules)
    assert certificate.verdict == "failed"
