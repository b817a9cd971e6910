"""Residual additions in LiteRT: XNNPACK's fixed-point factors, to the code, on values between codes."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.measuring.certificate import Certificate
from kompakt.measuring.data import Batch
from kompakt.measuring.parity import certify
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.arithmetic import Float32, Xnnpack
from kompakt.targets import TARGETS

from ..nets import deploy

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="LiteRT is not installed"
)


class Blocks(nn.Module):
    """Three residual blocks; the branches of each addition have scales of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for branch in self.branches:
                branch.weight.mul_(float(torch.empty(()).uniform_(1.0, 4.0)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 5)."""
        x = F.relu(self.stem(x))
        for branch in self.branches:
            x = F.relu(x + branch(x))
        return self.head(x.mean((2, 3)))


def certificate(seed: int) -> Certificate:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Blocks().eval()
        samples = [torch.randn(8, 3, 32, 32) for _ in range(2)]
    captured = inference_form(capture(model, samples[0]))
    batches = [Batch({captured.input_specs[0].name: x}, None, len(x)) for x in samples]
    made = deploy(captured, batches, target="litert")
    return certify(made.placed, made.written, TARGETS["litert"], batches, rules=made.rules)


SEEDS = (4, 9, 11, 21, 22)


@pytest.mark.parametrize("seed", SEEDS)
def test_residual_networks_on_gaussian_data_are_exact(seed: int) -> None:
    found = certificate(seed)
    assert (found.verdict, found.free_running_differing) == ("exact", 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_with_float32_additions_they_would_not_be(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each of these networks some sum lies so close to the middle of two codes that the factors' bits decide."""
    monkeypatch.setattr(Xnnpack, "addition", Float32.addition)
    found = certificate(seed)
    assert found.verdict == "failed"
    assert found.free_running_differing > 0
