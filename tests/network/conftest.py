"""Comparing a captured network with the model it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kompakt.network.network import Network

Same = Callable[..., bool]


def call(module: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


@pytest.fixture
def same() -> Same:
    """``same(model, network, inputs)``: equal outputs to the bit, in eval mode and with fixed seed."""

    def compare(model: nn.Module, network: Network, inputs: Any, *, train: bool = False) -> bool:
        outputs = []
        for module in (model, network):
            nn.Module.train(module, train)
            torch.manual_seed(0)
            outputs.append(network.flatten_outputs(call(module, inputs)))
            nn.Module.eval(module)
        assert len(outputs[0]) == len(outputs[1]) > 0
        return all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))

    return compare


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """``‖got − wanted‖ / ‖wanted‖`` in float64."""

    def compute(got: Tensor, wanted: Tensor) -> float:
        got, wanted = got.detach(), wanted.detach()
        return float((got.double() - wanted.double()).norm() / wanted.double().norm())

    return compute
