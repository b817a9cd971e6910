"""What every target promises, whatever the runtime and the network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kompakt.errors import ArtifactError, TargetError, UsageError
from kompakt.measuring.parity import certify
from kompakt.network.capture import capture
from kompakt.quantize.place import quantizer_calls
from kompakt.schemes import float32, w8a8, w8a8_dynamic
from kompakt.targets import TARGETS, Target, get_target

from ..nets import Deployed, deployed, inputs, network

NETS = {
    "plain": w8a8(),
    "dense": w8a8_dynamic(),
    "encoder": w8a8(),
    "words": w8a8(),
    "recurrent": float32(),
}

CONTRACTED = ("onnxruntime",)
"""The others need seconds for each file, and keep the promises in tests of their own."""

every_target = pytest.mark.parametrize(
    "target", [TARGETS[name] for name in CONTRACTED], ids=CONTRACTED
)
every_net = pytest.mark.parametrize("name", NETS)


def made(name: str) -> Deployed:
    return deployed(name, NETS[name])


def saved(target: Target, name: str, folder: Path) -> Path:
    assert target.name == "onnxruntime", "nets.deployed writes for this one"
    return made(name).written.save(folder)


@every_target
@every_net
def test_it_loads_and_runs_any_batch_under_its_own_names(
    target: Target, name: str, tmp_path: Path
) -> None:
    path = saved(target, name, tmp_path)
    session = target.load(path, made(name).written.options, 1)
    captured = network(name)
    assert session.input_names == tuple(s.name for s in captured.input_specs)
    assert session.output_names == tuple(s.name for s in captured.output_specs)
    for spec, wanted in zip(session.input_specs, captured.input_specs, strict=True):
        assert (spec.name, spec.dtype) == (wanted.name, wanted.dtype)
        assert tuple(spec.shape) == tuple(wanted.shape), "dynamic dimensions keep their names"
    for samples in (1, 3, 8):
        x = inputs(name, seed=9, samples=samples)
        found = session({session.input_names[0]: x.numpy()})
        with torch.no_grad():
            exact = captured(x)
        got = torch.from_numpy(found[session.output_names[0]])
        assert got.shape == exact.shape
        error = float((got - exact).norm() / exact.norm())
        assert error < (1e-5 if NETS[name] == float32() else 0.4)


@every_target
@every_net
def test_the_file_computes_what_was_simulated(target: Target, name: str) -> None:
    deployment = made(name)
    certificate = certify(
        deployment.placed, deployment.written, target, deployment.batches, rules=deployment.rules
    )
    assert certificate.verdict != "failed", certificate.first_difference
    assert certificate.probe_agrees
    assert certificate.unfused == ()
    assert {row.site for row in certificate.rows} == set(quantizer_calls(deployment.placed))
    assert sum(certificate.operators.values()) > 0


@every_target
@every_net
def test_two_writes_give_the_same_bytes(target: Target, name: str) -> None:
    again = target.write(made(name).placed)
    assert again.files == made(name).written.files
    assert again.options == made(name).written.options
    assert again.codes == made(name).written.codes


WRITE = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from tests.nets import deployed
from tests.targets.test_contract import NETS
print(json.dumps({name: [hashlib.sha256(f).hexdigest() for f in deployed(name, NETS[name]).written.files.values()]
                  for name in sys.argv[2:]}))
"""


def test_two_processes_give_the_same_bytes() -> None:
    root = Path(__file__).resolve().parents[2]
    names = ["plain", "encoder"]
    ours = {
        name: [hashlib.sha256(f).hexdigest() for f in made(name).written.files.values()]
        for name in names
    }
    # Another order of sets and dicts, if any of them decided anything.
    run = subprocess.run(
        [sys.executable, "-c", WRITE, str(root), *reversed(names)],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert json.loads(run.stdout.splitlines()[-1]) == ours


@every_target
def test_a_damaged_file_is_refused(target: Target, tmp_path: Path) -> None:
    path = saved(target, "plain", tmp_path)
    content = path.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"this is no model",
        "scrambled": bytes(b ^ 0x5A for b in content),
    }
    for kind, data in damaged.items():
        path.write_bytes(data)
        with pytest.raises(ArtifactError) as caught:
            target.load(path, {}, 1)
        assert caught.value.code == "K530", kind
        assert caught.value.why
        assert str(path) in caught.value.where
    with pytest.raises(ArtifactError):
        target.load(tmp_path / "absent.onnx", {}, 1)


@every_target
def test_inputs_that_do_not_fit_are_refused(target: Target, tmp_path: Path) -> None:
    session = target.load(saved(target, "plain", tmp_path), {}, 1)
    for bad in ({}, {"x": np.zeros((1, 3, 9), np.float32)}, {"x": np.zeros((1, 3, 10, 10))}):
        with pytest.raises(TargetError) as caught:
            session(bad)
        assert caught.value.code == "K403"


@every_target
def test_codes_come_out_beside_the_outputs(target: Target, tmp_path: Path) -> None:
    deployment = made("plain")
    path = deployment.written.save(tmp_path)
    values = list(deployment.written.codes.values())
    found = target.probe(path, deployment.written.options, values)({"x": inputs("plain").numpy()})
    assert set(values) < set(found)
    assert all(found[name].dtype == np.uint8 for name in values)
    kernels = target.kernels(path, deployment.written.options, values)
    assert list(kernels) == values
    assert all(kernels.values())


def test_unknown_and_missing_targets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        get_target("onnxruntme")
    assert caught.value.code == "K404"
    assert "onnxruntime" in caught.value.help
    absent = dict(TARGETS)
    absent["onnxruntime"] = replace(TARGETS["onnxruntime"], package="no-such-runtime")
    monkeypatch.setattr("kompakt.targets.TARGETS", absent)
    with pytest.raises(UsageError) as caught:
        get_target("onnxruntime")
    assert caught.value.code == "K405"
    assert "pip install" in caught.value.help


def test_an_operator_without_a_form_in_the_file_is_named() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.matrix_exp(x)

    captured = capture(Odd().eval(), torch.zeros(2, 3, 3))
    with pytest.raises(TargetError) as caught:
        TARGETS["onnxruntime"].write(captured)
    assert caught.value.code == "K401"
