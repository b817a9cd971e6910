"""One vocabulary for layers and operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.kinds import KINDS, kind_of, layer_of

FUNCTIONS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "relu": ("relu", F.relu),
    "relu6": ("relu6", F.relu6),
    "hardtanh 0..6": ("relu6", lambda x: F.hardtanh(x, 0.0, 6.0)),
    "clamp 0..6": ("relu6", lambda x: x.clamp(0, 6)),
    "clamp min 0": ("relu", lambda x: x.clamp(min=0)),
    "clamp": ("clamp", lambda x: x.clamp(-1, 1)),
    "leaky": ("leaky_relu", F.leaky_relu),
    "sigmoid": ("sigmoid", torch.sigmoid),
    "tanh": ("tanh", torch.tanh),
    "gelu": ("gelu", F.gelu),
    "silu": ("silu", F.silu),
    "hardswish": ("hardswish", F.hardswish),
    "hardsigmoid": ("hardsigmoid", F.hardsigmoid),
    "softmax": ("softmax", lambda x: x.softmax(-1)),
    "attention": ("attention", lambda x: F.scaled_dot_product_attention(x, x, x)),
    "add": ("add", lambda x: x + x),
    "add scalar": ("add_scalar", lambda x: x + 1),
    "sub": ("sub", lambda x: x - x),
    "mul": ("mul", lambda x: x * x),
    "mul scalar": ("mul_scalar", lambda x: 2 * x),
    "div": ("div", lambda x: x / x),
    "matmul": ("matmul", lambda x: x @ x),
    "cat": ("cat", lambda x: torch.cat([x, x], 1)),
    "max pool": ("max_pool", lambda x: F.max_pool2d(x, 2)),
    "avg pool": ("avg_pool", lambda x: F.avg_pool2d(x, 2)),
    "adaptive": ("avg_pool", lambda x: F.adaptive_avg_pool2d(x, 2)),
    "global": ("global_average_pool", lambda x: F.adaptive_avg_pool2d(x, 1)),
    "mean": ("mean", lambda x: x.mean(1)),
    "pad": ("pad", lambda x: F.pad(x, (1, 1))),
    "flatten": ("reshape", lambda x: x.flatten(1)),
    "unsqueeze": ("reshape", lambda x: x.unsqueeze(1)),
    "permute": ("transpose", lambda x: x.permute(0, 2, 3, 1)),
    "transpose": ("transpose", lambda x: x.transpose(1, 2)),
    "select": ("slice", lambda x: x.select(1, 0)),
    "expand": ("expand", lambda x: x[:, :1].expand(-1, 4, -1, -1)),
    "clone": ("identity", lambda x: x.clone()),
    "to the same": ("identity", lambda x: x.transpose(1, 2).contiguous()),
    "upsample": ("upsample", lambda x: F.interpolate(x, scale_factor=2)),
    "bilinear": ("upsample", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "sin": ("other", torch.sin),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators(name):
    wanted, function = FUNCTIONS[name]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    network = capture(Net(), torch.randn(2, 4, 4, 4))
    kind = kind_of(network.graph.output_node().args[0][0])
    assert kind == wanted
    assert kind in KINDS


LAYERS = {
    "conv": (nn.Conv1d(4, 4, 1), (4, 5)),
    "conv_transpose": (nn.ConvTranspose2d(4, 4, 1), (4, 5, 5)),
    "linear": (nn.Linear(4, 4), (4,)),
    "batch_norm": (nn.BatchNorm2d(4), (4, 5, 5)),
    "layer_norm": (nn.LayerNorm(4), (4,)),
    "group_norm": (nn.GroupNorm(2, 4), (4, 5)),
    "norm": (nn.RMSNorm(4), (4,)),
    "prelu": (nn.PReLU(), (4,)),
    "rnn": (nn.GRU(4, 4, batch_first=True), (5, 4)),
    "dropout": (nn.Dropout(0.5), (4,)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind):
    layer, shape = LAYERS[kind]
    network = capture(nn.Sequential(layer).eval(), torch.randn(2, *shape))
    (node,) = network.graph.find_nodes(op="call_module")
    assert kind_of(node) == kind
    assert type(layer_of(node)) is type(layer)


def test_structure_of_the_graph():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            first, second = x.chunk(2, dim=1)
            return first.reshape(x.shape[0] * 2, -1) + self.table[:1] + second.sum()

    kinds = [kind_of(n) for n in capture(Net(), torch.randn(2, 4)).graph.nodes]
    assert set(kinds) == {
        "input", "shape", "split", "getitem", "reshape", "constant", "slice", "add", "other", "output"
    }  # fmt: skip
    assert set(kinds) <= set(KINDS)
