"""In-place operators become ordinary ones, or stay with a note; the result never changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture


class Chain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y += x
        y.mul_(3).relu_()
        z = y.clamp_(max=4)
        return y + z


class ThroughDropout(nn.Module):
    """Dropout in eval mode returns its input, so ``z += 1`` changes ``h`` as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        z = F.dropout(h, 0.5, self.training)
        z += 1
        return h * z


class ThroughSlices(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape)
        y[:, 1:] = x[:, :-1].clone()
        y[:, 0] = 7
        y.masked_fill_(y < 0, -1.0)
        return y


class ThroughRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        for i in range(2):
            y[:, i] += y[:, i + 1]
        y[:, :, 2:4].mul_(2)
        return y


class ThroughTransposed(nn.Module):
    """A view that no scatter can express: kept in place."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        t = y.transpose(1, 2)
        t += 1
        return y


class ThroughTwoViews(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        first, whole = y[:, 0], y.reshape(-1)
        first.add_(5)
        return whole * 2


class AfterRead(nn.Module):
    """What was read before the change keeps its old value."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        before = y + 0
        y.add_(1)
        return before * 10 + y


class OfTheInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze_(1).squeeze_(1)
        return F.relu(x + 0, inplace=True)


KEPT = {ThroughTransposed, ThroughTwoViews}
ALL = [
    Chain,
    ThroughDropout,
    ThroughSlices,
    ThroughRows,
    ThroughTransposed,
    ThroughTwoViews,
    AfterRead,
    OfTheInput,
]


@pytest.mark.parametrize("model", ALL)
def test_same_result(model):
    model = model().eval()
    network = capture(model, torch.randn(2, 4, 4))
    x = torch.randn(3, 4, 4)
    assert torch.equal(network(x.clone()), model(x.clone()))
    changing = [
        n
        for n in network.graph.nodes
        if getattr(getattr(n.target, "_schema", None), "is_mutable", False)
    ]
    assert bool(changing) == (type(model) in KEPT)
    assert bool(network.notes) == (type(model) in KEPT)


def test_the_users_input_is_not_changed():
    class Changing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1)

    network = capture(Changing(), torch.zeros(2, 3))
    x = torch.zeros(2, 3)
    assert torch.equal(network(x), torch.ones(2, 3))
    assert torch.equal(x, torch.zeros(2, 3))
