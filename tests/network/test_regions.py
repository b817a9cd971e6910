"""Parts of a model under no_grad, disabled autocast or inference code become part of the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kompakt.network.capture import capture


class Frozen(nn.Module):
    """A backbone under no_grad, and a region with autocast switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.backbone(x).relu()
        with torch.autocast("cpu", enabled=False):
            y, z = x * 2, x + 1
        return self.head(y + z)


def test_regions_are_put_in_line(same):
    model = Frozen().eval()
    network = capture(model, torch.randn(2, 4))
    assert same(model, network, torch.randn(3, 4))
    assert [n.target for n in network.graph.nodes if n.op == "call_module"] == ["backbone", "head"]
    assert [n for n in network.graph.nodes if "wrap_with" in str(n.target)] == []


def test_gradients_that_a_region_blocked_are_noted():
    model = Frozen().eval()
    network = capture(model, torch.randn(2, 4))
    (note,) = network.notes
    assert f"{__file__}:" in note
    assert "no_grad" in note


def test_a_decorated_forward(same):
    class Inference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).relu_()

    model = Inference().eval()
    network = capture(model, torch.randn(2, 3, 5, 5))
    assert same(model, network, torch.randn(3, 3, 5, 5))


def test_random_numbers_are_drawn_as_in_the_model(same):
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x) + nn.functional.dropout(x, 0.5, training=True)

    assert same(Noisy(), capture(Noisy(), torch.randn(2, 4)), torch.randn(3, 4))


def test_half_precision_and_complex_numbers(same):
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft(self.layer(x).float()).abs()

    model = Spectral().bfloat16().eval()
    x = torch.randn(2, 8, dtype=torch.bfloat16)
    assert same(model, capture(model, x), torch.randn(5, 8, dtype=torch.bfloat16))


def test_values_taken_out_of_a_tensor(same):
    class Scaling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.abs().max().item()

    assert same(Scaling(), capture(Scaling(), torch.randn(2, 4)), torch.randn(3, 4))


def test_sizes_that_depend_on_values(same):
    class Selecting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0] * 2

    assert same(Selecting(), capture(Selecting(), torch.randn(2, 40)), torch.randn(3, 40))
