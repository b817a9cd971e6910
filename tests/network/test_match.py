"""Selectors find what they say, and say so when they find nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import SchemeError
from kompakt.network.capture import capture
from kompakt.network.match import match, select

NAMES = ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer10.conv1", "fc"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("fc", ["fc"]),
        ("layer1.*", NAMES[:3]),
        ("layer1", NAMES[:3]),
        ("*.conv?", NAMES[:4]),
        ("*conv1", [NAMES[0], NAMES[2], NAMES[3]]),
        ("*", NAMES),
    ],
)
def test_globs(pattern, found):
    assert match(NAMES, pattern) == found


def test_nothing_found_names_the_nearest():
    with pytest.raises(SchemeError, match="K320") as error:
        match(NAMES, "layer1.0.conv3")
    assert "layer1.0.conv1" in error.value.help
    with pytest.raises(SchemeError, match="no layers"):
        match([], "anything")


@pytest.fixture(scope="module")
def network():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).mean((2, 3))) * 2

    return capture(Net().eval(), torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("kind:conv", ["features.0", "features.2"]),
        ("kind:relu", ["features.1"]),
        ("type:Linear", ["head"]),
        ("features", ["features.0", "features.1", "features.2"]),
        ("m*", ["mean", "mul"]),
    ],
)
def test_selectors(network, selector, found):
    assert select(network, selector) == found


@pytest.mark.parametrize(
    ("selector", "code", "near"),
    [
        ("kind:convolution", "K320", "conv"),
        ("type:Conv2D", "K320", "Conv2d"),
        ("features.9", "K320", "features.0"),
        ("typ:Conv2d", "K321", "type:"),
    ],
)
def test_wrong_selectors(network, selector, code, near):
    with pytest.raises(SchemeError, match=code) as error:
        select(network, selector)
    assert near in str(error.value)
