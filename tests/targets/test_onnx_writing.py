"""Every form a network is written with, against PyTorch: no tracing, same numbers, any batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.targets import onnxruntime as target
from kompakt.targets.onnx_export import traced_onnx
from kompakt.targets.onnx_forms import FORMS
from kompakt.targets.onnx_writing import emit_onnx, emitted_or_none


class Call(nn.Module):
    """A function as a model, with a parameter for functions that want one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.p = nn.Parameter(torch.linspace(-1, 1, 6))

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.p)


IMAGE, ROWS = (3, 8, 6), (5, 6)

CALLS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "arithmetic": (lambda x, p: (x + p) * 2 - p / 3 + (1 - x) * x.square(), ROWS),
    "alpha": (lambda x, p: torch.add(x, p, alpha=3) - torch.sub(x, p, alpha=0.5), ROWS),
    "functions": (lambda x, p: x.abs().sqrt() + x.exp().log() + x.sin() * x.cos() - x.neg(), ROWS),
    "rounding": (lambda x, p: (x * 3).ceil() + (x * 3).floor() + x.sign() + x.round(), ROWS),
    "rsqrt": (lambda x, p: (x * x + 1).rsqrt() + (x * x + 1).reciprocal(), ROWS),
    "powers": (lambda x, p: x**2 + x.abs().pow(1.5) + (x * x + 0.5).pow(p), ROWS),
    "limits": (lambda x, p: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + x.clamp(max=0.2), ROWS),
    "extremes": (lambda x, p: torch.minimum(x, p) + torch.maximum(x, p), ROWS),
    "comparisons": (lambda x, p: (x > 0).float() + (x <= p) * 2 + ((x != p) & ~(x >= 0.3)), ROWS),
    "choices": (lambda x, p: torch.where(x > p, x, 0.5).masked_fill(x < -0.5, 2.0), ROWS),
    "activations": (
        lambda x, p: F.silu(x) + F.gelu(x) + F.gelu(x, approximate="tanh") + F.hardswish(x)
        + F.leaky_relu(x, 0.2) + F.elu(x) + F.softplus(x) + F.hardsigmoid(x) + F.mish(x),
        ROWS,
    ),
    "clipped": (lambda x, p: F.relu6(x * 9) + F.hardtanh(x) + torch.tanh(x) + torch.sigmoid(x), ROWS),
    "softmax": (lambda x, p: F.softmax(x, -1) + F.log_softmax(x, 1), ROWS),
    "products": (lambda x, p: torch.bmm(x, x.transpose(1, 2)) @ x, ROWS),
    "linear": (lambda x, p: F.linear(x, p.repeat(4, 1), p[:4]), ROWS),
    "baddbmm": (lambda x, p: torch.baddbmm(x, x @ x.mT, x, beta=0.5, alpha=2.0), ROWS),
    "attention": (lambda x, p: F.scaled_dot_product_attention(x, x * 2, x + 1), (2, 5, 6)),
    "masked attention": (
        lambda x, p: F.scaled_dot_product_attention(x, x, x, attn_mask=(x @ x.mT) > 0), (2, 5, 6)
    ),
    "reshapes": (lambda x, p: x.reshape(-1, 5, 2, 3).flatten(2).unflatten(2, (3, 2)), ROWS),
    "batch in the middle": (lambda x, p: x.reshape(x.shape[0] * 5, 6).view(x.shape[0], 5, 6), ROWS),
    "squeezes": (lambda x, p: x.unsqueeze(1).unsqueeze(-1).squeeze(1).squeeze(-1), ROWS),
    "orders": (lambda x, p: x.permute(0, 2, 1).contiguous().transpose(0, 1), ROWS),
    "slices": (lambda x, p: x[:, 1:4, ::2] + x[:, -3:, :3] + x[:, 0].unsqueeze(1)[..., :3], ROWS),
    "narrow": (lambda x, p: x.narrow(2, 1, 3), ROWS),
    "joins": (lambda x, p: torch.cat([x, torch.stack([x[:, 0], x[:, 1]], 1)], 1), ROWS),
    "splits": (
        lambda x, p: (lambda a, b, c: a + b * c)(*x.split(2, 2)) + sum(x.chunk(3, -1)), ROWS
    ),
    "unbind": (lambda x, p: (lambda a, *r: a * r[-1])(*x.unbind(1)), ROWS),
    "repeat": (lambda x, p: x.repeat(1, 2, 3), ROWS),
    "expand": (lambda x, p: p.expand(x.shape[0], 5, 6) + x[:, :1].expand_as(x), ROWS),
    "roll": (lambda x, p: torch.roll(x, (2, -1), (1, 2)), ROWS),
    "pads": (
        lambda x, p: F.pad(x, (1, 2, 0, 1), value=0.5) + F.pad(x, (1, 2, 0, 1), mode="reflect")
        + F.pad(x, (1, 2, 0, 1), mode="replicate"), IMAGE,
    ),
    "pools": (
        lambda x, p: F.max_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 2) + F.adaptive_avg_pool2d(x, (4, 3)),
        IMAGE,
    ),
    "average pool that leaves out padding": (
        lambda x, p: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE
    ),
    "global pools": (lambda x, p: x.mean((2, 3)) + F.adaptive_avg_pool2d(x, 1).flatten(1), IMAGE),
    "reductions": (lambda x, p: x.sum(-1) + x.mean(-1) + x.amax(-1) - x.amin(2), ROWS),
    "norm": (lambda x, p: F.normalize(x, dim=-1), ROWS),
    "cumsum": (lambda x, p: x.cumsum(1), ROWS),
    "resizing": (
        lambda x, p: F.interpolate(x, scale_factor=2) + F.interpolate(x, size=(16, 12), mode="bilinear"),
        IMAGE,
    ),
    "ranges": (lambda x, p: x + torch.arange(6) + torch.zeros(5, 1) + torch.full((5, 6), 2.0), ROWS),
    "like": (lambda x, p: torch.ones_like(x) + x.new_zeros(6) + torch.arange(x.shape[0])[:, None, None], ROWS),
    "lookups": (
        lambda x, p: p[(x * 2).abs().long().clamp(max=5)]
        + x.gather(2, (x * 2).abs().long().clamp(max=5)), ROWS
    ),
    "layer norm": (lambda x, p: F.layer_norm(x, (6,), p, p * 2), ROWS),
    "casts": (lambda x, p: x.double().float() + (x > 0).to(torch.int64).type_as(x), ROWS),
}  # fmt: skip

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), IMAGE),
    "same": (lambda: nn.Conv2d(3, 4, (4, 3), padding="same", dilation=2), IMAGE),
    "reflecting": (lambda: nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="reflect"), IMAGE),
    "one dimension": (lambda: nn.Conv1d(5, 4, 3, bias=False), ROWS),
    "three dimensions": (lambda: nn.Conv3d(2, 3, 2), (2, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), IMAGE),
    "rows": (lambda: nn.Linear(6, 4), (6,)),
    "deeper rows": (lambda: nn.Linear(6, 4), ROWS),
    "batch norm": (lambda: nn.BatchNorm2d(3), IMAGE),
    "group norm": (lambda: nn.GroupNorm(3, 6), (6, 4, 4)),
    "layer norm": (lambda: nn.LayerNorm(6), ROWS),
    "prelu": (lambda: nn.PReLU(3), IMAGE),
}


def agree(model: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = inference_form(capture(model.eval(), torch.randn(3, *shape)))
    written = emit_onnx(network)
    assert written.opset_imports[""] == 21
    file = target.write(network)
    session = target.load(file.files["model.onnx"], file.options)
    for batch in (1, 4):
        x = torch.randn(batch, *shape)
        with torch.no_grad():
            exact = network(x)
        (found,) = session({session.input_names[0]: x.numpy()}).values()
        np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", CALLS)
def test_a_call(name: str) -> None:
    function, shape = CALLS[name]
    agree(Call(function), shape)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str) -> None:
    build, shape = LAYERS[name]
    agree(build(), shape)


def test_names_are_the_users() -> None:
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 4, 3))
    net.add_module("act", nn.ReLU())
    written = onnx.load_model_from_string(
        target.write(capture(net, torch.randn(2, *IMAGE))).files["model.onnx"]
    )
    assert [n.name for n in written.graph.node] == ["stem/Conv", "act/Relu"]
    assert {i.name for i in written.graph.initializer} == {"stem.weight", "stem.bias"}
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_tied_weights_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    written = onnx.load_model_from_string(
        target.write(capture(Tied(), torch.randn(2, 6))).files["model.onnx"]
    )
    assert sum(i.dims == [6, 6] for i in written.graph.initializer) == 1


def test_an_output_that_is_an_input_or_given_twice() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y = x * 2
            return x, y, y

    written = target.write(capture(Odd(), torch.randn(2, 6)))
    session = target.load(written.files["model.onnx"], {})
    x = np.ones((3, 6), np.float32)
    first, second, third = session({session.input_names[0]: x}).values()
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second, third)


def test_what_has_no_form_is_traced() -> None:
    network = capture(Call(lambda x, p: torch.flip(x, [1])), torch.randn(2, *ROWS))
    assert "aten.flip" not in FORMS
    assert emitted_or_none(network) is None
    written = target.write(network)
    session = target.load(written.files["model.onnx"], {})
    x = torch.randn(3, *ROWS)
    (found,) = session({session.input_names[0]: x.numpy()}).values()
    np.testing.assert_array_equal(found, x.flip(1).numpy())


def test_both_ways_write_the_same_network() -> None:
    network = inference_form(
        capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6()), torch.randn(2, *IMAGE))
    )
    operators = [
        [node.op_type for node in model.graph if node.op_type != "Constant"]
        for model in (emit_onnx(network), traced_onnx(network))
    ]
    assert operators[0] == operators[1]
