"""Rewrites change how a network is written, not what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.network import rewrites
from kompakt.network.capture import capture
from kompakt.network.kinds import kind_of

PAIRS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), nn.BatchNorm1d, (4, 9)),
    "conv2d without bias": (lambda: nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d, (4, 8, 8)),
    "grouped conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d, (4, 8, 8)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2), nn.BatchNorm3d, (4, 3, 4, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), nn.BatchNorm2d, (4, 5, 5)),
    "grouped transposed": (
        lambda: nn.ConvTranspose1d(4, 6, 3, groups=2, bias=False),
        nn.BatchNorm1d,
        (4, 5),
    ),
    "linear": (lambda: nn.Linear(4, 6), nn.BatchNorm1d, (4,)),
}


def trained(norm: nn.Module) -> nn.Module:
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.1, 3.0)
    if norm.weight is not None:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def kinds(network) -> list[str]:
    return [kind_of(n) for n in network.graph.nodes]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_folding_is_exact_to_rounding(name, affine, relative_error):
    layer, norm, shape = PAIRS[name]
    model = nn.Sequential(layer(), trained(norm(6, affine=affine)), nn.ReLU()).eval()
    network = capture(model, torch.randn(2, *shape))
    folded = rewrites.fold_batch_norm(network)
    x = torch.randn(5, *shape)
    assert "batch_norm" not in kinds(folded)
    assert relative_error(folded(x), model(x)) < 1e-5
    assert set(folded.state_dict()) == {"0.weight", "0.bias"}
    assert torch.equal(network(x), model(x)), "the network passed in was changed"


class Shared(nn.Module):
    """One convolution with two norms, one norm for two convolutions, one output read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = (trained(nn.BatchNorm2d(3)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv(x)) + self.norm2(self.conv(x))
        x = self.norm2(self.other(x))
        y = self.third(x)
        return self.norm3(y) + y


def test_shared_layers_are_not_folded():
    model = Shared().eval()
    folded = rewrites.fold_batch_norm(capture(model, torch.randn(2, 3, 4, 4)))
    assert kinds(folded).count("batch_norm") == 4
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(folded(x), model(x))


def test_tied_weights_and_sequences_are_not_folded():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(3, 3, 1), nn.Conv1d(3, 3, 1)
            self.b.weight = self.a.weight
            self.norm = trained(nn.BatchNorm1d(3))
            self.linear, self.norm2 = nn.Linear(4, 4), trained(nn.BatchNorm1d(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.norm2(self.linear(self.norm(self.a(x)) + self.b(x)))

    model = Tied().eval()
    folded = rewrites.fold_batch_norm(capture(model, torch.randn(2, 3, 4)))
    assert kinds(folded).count("batch_norm") == 2
    x = torch.randn(2, 3, 4)
    assert torch.equal(folded(x), model(x))


class Pools(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.module = how, nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "module":
            return self.module(x)
        if self.how == "mean":
            return x.mean((2, 3))
        if self.how == "negative":
            return x.mean([-1, -2])
        if self.how == "keep":
            return x.mean((2, 3), keepdim=True)
        return nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)


@pytest.mark.parametrize("how", ["module", "mean", "negative", "keep", "functional"])
def test_global_average_pool_is_exact_and_one_operator(how):
    network = capture(Pools(how), torch.randn(2, 5, 6, 7))
    rewritten = rewrites.use_global_average_pool(network)
    assert kinds(rewritten).count("global_average_pool") == 1
    assert "mean" not in kinds(rewritten)
    x = torch.randn(3, 5, 6, 7)
    assert torch.equal(rewritten(x), network(x))
    pool = next(n for n in rewritten.graph.nodes if kind_of(n) == "global_average_pool")
    assert str(pool.target) == "kompakt.global_average_pool.default"
    assert tuple(pool.meta["val"].shape[1:]) == (5, 1, 1)
    for node in rewritten.graph.nodes:
        assert node.op == "output" or (node.meta["site"] and node.meta["val"] is not None)


@pytest.mark.parametrize("dims", [(2,), (1, 2), (0, 2, 3), (1, 2, 3)])
def test_other_means_are_left(dims):
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dims)

    rewritten = rewrites.use_global_average_pool(capture(Mean(), torch.randn(2, 3, 4, 5)))
    assert "global_average_pool" not in kinds(rewritten)


def test_dropout_and_identities_disappear():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.nothing = nn.Dropout(0.3), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.nothing(self.drop(x)).clone().detach().contiguous()[:, :]
            return x.to(torch.float32).transpose(1, 2).contiguous().view(x.shape[0], -1) + 1

    network = capture(Idle(), torch.randn(2, 3, 4))
    cleaned = rewrites.remove_identity(rewrites.remove_dropout(network))
    assert set(kinds(cleaned)) <= {"input", "transpose", "reshape", "add_scalar", "shape", "output"}
    x = torch.randn(3, 3, 4)
    assert torch.equal(cleaned(x), network(x))


def test_inference_form_is_all_of_them(relative_error):
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        trained(nn.BatchNorm2d(6)),
        nn.Hardtanh(0, 6),
        nn.Dropout2d(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    ).eval()
    form = rewrites.inference_form(capture(model, torch.randn(2, 3, 8, 8)))
    assert kinds(form) == [
        "input",
        "conv",
        "relu6",
        "global_average_pool",
        "reshape",
        "linear",
        "output",
    ]
    x = torch.randn(4, 3, 8, 8)
    assert relative_error(form(x), model(x)) < 1e-5
    assert [n.meta.get("site") for n in form.graph.nodes] == [
        "input",
        "0",
        "2",
        "4",
        "5",
        "6",
        None,
    ]


def test_the_form_captures_again():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1)).eval()
    form = rewrites.inference_form(capture(model, torch.randn(2, 3, 8, 8)))
    again = capture(form, torch.randn(2, 3, 8, 8))
    assert kinds(again) == kinds(form)
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(again(x), model(x))
