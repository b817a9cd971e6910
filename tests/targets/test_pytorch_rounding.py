"""oneDNN's rounding in TorchScript files: sums, a float bias, one factor after the other, the zero point before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.arithmetic import Float32, OneDnn
from kompakt.quantize.integer import run_in_integers
from kompakt.targets import TARGETS

from ..nets import Deployed, deploy


class Stage(nn.Module):
    """Layers whose outputs are large, so that a code in the middle of two has many ways to fall."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Conv2d(16, 8, 1)
        with torch.no_grad():
            for layer in (self.first, self.deep, self.last):
                assert layer.bias is not None
                layer.bias.normal_()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 8, H, W)."""
        return self.last(F.relu6(self.deep(F.relu6(self.first(x)))))


def made(seed: int) -> tuple[Deployed, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, x = Stage().eval(), torch.randn(16, 3, 48, 48)
    captured = inference_form(capture(model, x))
    batches = [Batch({captured.input_specs[0].name: x}, None, len(x))]
    return deploy(captured, batches, target="torchscript"), x


def differing(seed: int) -> int:
    """In how many output values the file differs from the referee."""
    deployment, x = made(seed)
    written = deployment.written
    session = TARGETS["torchscript"].load(written.files[written.main], written.options)
    found = session({session.input_names[0]: x.numpy()})[session.output_names[0]]
    (referee,) = torch.utils._pytree.tree_leaves(run_in_integers(deployment.placed, x))
    return int((torch.from_numpy(found) != referee).sum())


SEEDS = (5,)


def test_the_rounding_is_onednns(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = sum(map(differing, SEEDS))
    monkeypatch.setattr(OneDnn, "sums", Float32.sums)
    monkeypatch.setattr(OneDnn, "float_bias", False)
    assert 4 * ours < sum(map(differing, SEEDS))
    assert ours == 0
