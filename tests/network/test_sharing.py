"""Tied weights, layers called twice, buffers, unused parameters: what a state dict must keep."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from kompakt.network.capture import capture


class Tied(nn.Module):
    """An output head tied to the embedding, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).tanh())


def ids(batch: int = 2) -> Tensor:
    return torch.randint(0, 11, (batch, 4))


def test_tied_weights_stay_one_parameter(same):
    model = Tied().eval()
    network = capture(model, ids())
    assert network.head.weight is network.embedding.weight
    assert list(network.state_dict()) == list(model.state_dict())
    assert same(model, network, ids(3))
    twin = copy.deepcopy(network)
    assert twin.head.weight is twin.embedding.weight
    assert twin.head.weight is not network.head.weight
    assert len(list(network.parameters())) == 1


def test_functional_tied_head_is_a_linear_layer(same):
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 6)

        def forward(self, ids: Tensor) -> Tensor:
            return self.embedding(ids) @ self.embedding.weight.t()

    model = Functional().eval()
    network = capture(model, ids())
    assert same(model, network, ids(3))
    layers = [network.get_submodule(n.target) for n in network.graph.find_nodes(op="call_module")]
    assert [type(layer).__name__ for layer in layers] == ["Embedding", "Linear"]
    assert layers[0].weight is layers[1].weight


def test_a_layer_called_twice_is_one_layer_with_two_sites(same):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(4, 4)
            self.norm = nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.shared(self.norm(self.shared(x))))

    model = Twice().eval()
    network = capture(model, torch.randn(2, 4))
    calls = network.graph.find_nodes(op="call_module")
    assert [n.target for n in calls] == ["shared", "norm", "shared", "norm"]
    assert [n.meta["site"] for n in calls] == ["shared", "norm", "shared@1", "norm@1"]
    assert same(model, network, torch.randn(3, 4))


def test_one_module_under_two_names_keeps_both(same):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = Two().eval()
    network = capture(model, torch.randn(2, 4))
    assert set(network.state_dict()) == set(model.state_dict())
    assert network.first.weight is network.second.weight
    assert same(model, network, torch.randn(3, 4))


def test_loose_parameters_and_both_kinds_of_buffers(same):
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Module()
            self.inner.scale = nn.Parameter(torch.randn(4))
            self.register_buffer("shift", torch.randn(4))
            self.register_buffer("mask", torch.ones(4), persistent=False)
            self.constant = torch.full((4,), 2.0)

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.inner.scale + self.shift) * self.mask / self.constant + torch.tensor(3)

    model = Loose().eval()
    network = capture(model, torch.randn(2, 4))
    assert set(network.state_dict()) == set(model.state_dict())
    assert set(copy.deepcopy(network).state_dict()) == set(model.state_dict())
    assert same(model, network, torch.randn(3, 4))
    again = capture(network, torch.randn(2, 4))
    assert set(again.state_dict()) == set(model.state_dict())


def test_functional_layers_get_modules_under_the_parameters_names(same):
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Module()
            self.first.weight = nn.Parameter(torch.randn(5, 4))
            self.first.bias = nn.Parameter(torch.randn(5))
            self.kernel_weight = nn.Parameter(torch.randn(3, 5))
            self.transposed = nn.Parameter(torch.randn(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            x = F.linear(F.linear(x, self.first.weight, self.first.bias), self.kernel_weight)
            return torch.addmm(x.new_zeros(2), x, self.transposed) + x @ self.transposed

    model = Functional().eval()
    network = capture(model, torch.randn(2, 4))
    assert same(model, network, torch.randn(3, 4))
    assert "first.weight" in network.state_dict()
    assert network.interface.renamed["kernel_weight"] == ("kernel.weight",)
    assert [n.target for n in network.graph.find_nodes(op="call_module")][:2] == ["first", "kernel"]


def test_gpt_style_layers_become_linear_to_the_bit(same):
    class Conv1D(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(inputs, outputs))
            self.bias = nn.Parameter(torch.randn(outputs))

        def forward(self, x: Tensor) -> Tensor:
            size = (*x.shape[:-1], self.bias.shape[0])
            return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(size)

    model = nn.Sequential(Conv1D(6, 5), nn.GELU(), Conv1D(5, 7)).eval()
    network = capture(model, torch.randn(2, 3, 6))
    assert same(model, network, torch.randn(4, 3, 6))
    assert type(network.get_submodule("0")) is nn.Linear
    assert list(network.state_dict()) == list(model.state_dict())
    assert network.state_dict()["0.weight"].shape == (5, 6)
    assert any("stored transposed" in note for note in network.notes)


def test_unused_parameters_are_dropped_and_named():
    model = nn.Module()
    model.used, model.unused = nn.Linear(3, 3), nn.Linear(3, 3)
    model.forward = lambda x: model.used(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    network = capture(Net().eval(), torch.randn(2, 3))
    assert network.interface.dropped == ("unused.weight", "unused.bias")
    assert list(network.state_dict()) == ["used.weight", "used.bias"]


def test_parametrized_weights_become_parameters_and_the_model_keeps_them(same):
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv1d(3, 4, 3)), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].parametrizations.weight.original0.mul_(2)
    network = capture(model, torch.randn(2, 3, 8))
    assert same(model, network, torch.randn(3, 3, 8))
    assert list(network.state_dict()) == ["0.bias", "0.weight"] or set(network.state_dict()) == {
        "0.bias",
        "0.weight",
    }
    assert network.interface.renamed["0.parametrizations.weight.original0"] == ("0.weight",)
    assert any("parametrized" in note for note in network.notes)
    model[0].weight.sum().backward()
    assert model[0].parametrizations.weight.original0.grad is not None


def test_stateful_buffers_still_change(same):
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    network = capture(Counting().eval(), torch.randn(2, 3))
    x = torch.randn(2, 3)
    assert torch.equal(network(x), x)
    assert torch.equal(network(x), x * 2)
    assert any("buffer" in note for note in network.notes)


def test_a_buffer_that_is_changed_is_noted_once():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    network = capture(Counting().eval(), torch.randn(2, 3))
    assert len(network.notes) == 1
    assert "'calls'" in network.notes[0]
