"""Attention written as matrix products computes what PyTorch's operator computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.targets.onnx_attention import expand_attention_
from kompakt.targets.onnxruntime import load, write

LENGTH, WIDTH = 5, 8


class Attention(nn.Module):
    """Self-attention over (N, heads, length, width) with some settings and perhaps a mask."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        key = x[:, :2] if self.settings.get("enable_gqa") else x
        return F.scaled_dot_product_attention(
            x, key * 0.5, key + 1.0, attn_mask=mask, **self.settings
        )


def boolean_mask() -> Tensor:
    mask = torch.rand(3, 1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[:, :, 2] = False  # a row that attends to nothing
    mask[:, :, 3] = True
    return mask


def float_mask() -> Tensor:
    mask = torch.randn(3, 1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(2))
    mask[:, :, 1, 2:] = float("-inf")
    mask[:, :, 2] = float("-inf")
    return mask


def x() -> Tensor:
    return torch.randn(3, 4, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))


def captured(settings: dict[str, Any], mask: Tensor | None) -> Network:
    inputs = (x(),) if mask is None else (x(), mask)
    return inference_form(capture(Attention(**settings).eval(), inputs))


EXPANDED = {
    "no mask": ({}, None),
    "boolean mask": ({}, boolean_mask()),
    "float mask": ({}, float_mask()),
    "own scale": ({"scale": 0.3}, None),
    "own scale and mask": ({"scale": 0.3}, boolean_mask()),
}
LEFT_ALONE = {
    "causal": ({"is_causal": True}, None),
    "grouped heads": ({"enable_gqa": True}, None),
}


def counted(graph: torch.fx.Graph, word: str) -> int:
    return sum(word in str(node.target) for node in graph.nodes)


@pytest.mark.parametrize("name", EXPANDED)
def test_plain_attention_is_expanded_and_equal(name: str) -> None:
    settings, mask = EXPANDED[name]
    network = captured(settings, mask)
    flat = expand_attention_(network.flat())
    assert counted(flat.graph, "scaled_dot_product_attention") == 0
    assert counted(flat.graph, "matmul") == 2
    inputs = [x()] if mask is None else [x(), mask]
    exact = network(*inputs)
    assert not exact.isnan().any()
    (expanded,) = flat(*inputs)
    assert torch.allclose(expanded, exact, atol=1e-6)
    if mask is not None:
        assert torch.equal(expanded[:, :, 2], torch.zeros_like(expanded[:, :, 2]))


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_other_attention_is_left_to_the_exporter(name: str) -> None:
    settings, mask = LEFT_ALONE[name]
    flat = expand_attention_(captured(settings, mask).flat())
    assert counted(flat.graph, "scaled_dot_product_attention") == 1


@pytest.mark.parametrize("name", ["boolean mask", "float mask", "own scale", *LEFT_ALONE])
def test_the_written_file_attends_as_pytorch_does(name: str) -> None:
    settings, mask = {**EXPANDED, **LEFT_ALONE}[name]
    network = captured(settings, mask)
    session = load(write(network).files["model.onnx"])
    inputs = [x()] if mask is None else [x(), mask]
    fed = dict(zip(session.input_names, (t.numpy() for t in inputs), strict=True))
    got = torch.from_numpy(session(fed)[session.output_names[0]])
    assert torch.allclose(got, network(*inputs), atol=1e-5)
