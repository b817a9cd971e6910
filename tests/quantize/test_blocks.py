"""Blocks are read off the wiring."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.blocks import find_blocks

from ..nets import Net, conv, grid, network


def targets(name: str) -> list[list[str]]:
    return [[str(n.target) for n in block.layers] for block in find_blocks(network(name))]


def test_a_chain_is_cut_behind_every_layer_and_its_activation() -> None:
    blocks = find_blocks(network("plain"))
    assert [[str(n.target) for n in b.layers] for b in blocks] == [["a.0"], ["b.0"], ["head"]]
    assert blocks[0].output.name.startswith("relu"), "the activation belongs to the block"


def _residual(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return s.head(F.relu(s.c(s.b(y)) + y).mean((2, 3)))


def test_a_residual_branch_is_not_cut() -> None:
    layers = {"a": conv(3, 8), "b": conv(8, 8), "c": conv(8, 8, None), "head": nn.Linear(8, 3)}
    captured = inference_form(capture(Net(_residual, **layers).eval(), grid(2, 3, 8, 8)))
    found = [[str(n.target) for n in block.layers] for block in find_blocks(captured)]
    assert found == [["a.0"], ["b.0", "c.0"], ["head"]]


def test_parallel_layers_are_one_block() -> None:
    assert targets("concat") == [["a.0"], ["b.0", "c.0"], ["d.0"], ["head"]]


def test_what_no_weight_has_touched_may_cross() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x * mask)) * mask) * mask[:, :1]

    captured = capture(Masked().eval(), (grid(4, 6), grid(4, 6, seed=1)))
    assert [len(block.layers) for block in find_blocks(captured)] == [1, 1]


@pytest.mark.parametrize("heads", [1, 2])
def test_several_heads_are_in_no_block(heads: int) -> None:
    def wiring(s: Any, x: Tensor) -> Any:
        y = F.relu(s.a(x))
        return tuple(getattr(s, f"h{n}")(y) for n in range(heads))

    last = {f"h{n}": nn.Linear(6, 2) for n in range(heads)}
    model = Net(wiring, a=nn.Linear(6, 6), **last).eval()
    found = find_blocks(capture(model, grid(4, 6)))
    assert len(found) == (2 if heads == 1 else 1)
