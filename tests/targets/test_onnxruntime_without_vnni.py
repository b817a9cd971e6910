"""ONNX Runtime on an emulated processor without VNNI: what was predicted to saturate does, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.avoid_saturation import avoid_saturation_
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.saturation import pair_sums
from kompakt.schemes import w8a8
from kompakt.targets import get_target

from ..nets import ranged

EMULATOR = "qemu-x86_64"
RUN = """
import sys, numpy as np, onnxruntime
settings = onnxruntime.SessionOptions()
settings.log_severity_level = 4
x = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, {session.get_inputs()[0].name: x})[0])
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(which(EMULATOR) is None, reason=f"{EMULATOR} (qemu-user) is not installed"),
]


def run(model: Path, inputs: Path, *before: str) -> NDArray[Any]:
    result = inputs.with_name("outputs.npy")
    command = [*before, sys.executable, "-c", RUN, str(model), str(inputs), str(result)]
    subprocess.run(command, check=True, capture_output=True)
    return np.load(result)


def test_files_for_any_processor_are_equal_on_both(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8)),
        *(nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 5)),
    ]
    model = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 3, 6, 6, generator=generator) * 2 - 0.1
    network = inference_form(capture(model, x))
    batch = Batch({network.input_specs[0].name: x}, None, 16)
    inputs = tmp_path / "inputs.npy"
    np.save(inputs, x.numpy())
    target, equal = get_target("onnxruntime"), {}
    for isa in ("x86-vnni", "any"):
        rules = target.rules(isa)
        placed, _ = ranged(network, w8a8(), [batch], isa)
        if rules.avoid_saturation:
            avoid_saturation_(placed, lambda: [[x]], rules)
        freeze_(placed)
        at_risk = any(found.at_risk for found in pair_sums(placed, [[x]], rules))
        assert at_risk is (isa == "x86-vnni")
        folder = tmp_path / isa
        folder.mkdir()
        path = target.write(placed).save(folder)
        there = run(path, inputs, EMULATOR, "-cpu", "Haswell-v4")
        here = target.load(path)({network.input_specs[0].name: x.numpy()})
        equal[isa] = np.array_equal(next(iter(here.values())), there)
    assert equal == {"x86-vnni": False, "any": True}
