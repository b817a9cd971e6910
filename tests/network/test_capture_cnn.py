"""Convolutional networks: names, modules, equality, batches, modes, copies."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.kinds import kind_of


class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        padding = 0 if stride == 2 else 1
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            x = F.pad(x, (0, 1, 0, 1))
        x = self.act(self.bn1(self.depthwise(x)))
        return self.act(self.bn2(self.pointwise(x)))


class MobileNetLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Separable(8, 16, 1), Separable(16, 16, 2))
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.classifier(self.dropout(x.mean((2, 3))))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding="same", bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class ResNetLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(Residual(8), Residual(8))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        return self.fc(torch.flatten(self.pool(self.layer1(x)), 1))


class Upsampler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv1d(2, 6, 4, stride=2, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm1d(6, momentum=None)
        self.up = nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1, groups=2, output_padding=1)
        self.act = nn.PReLU(4)
        self.out = nn.ConvTranspose2d(1, 3, 2, bias=False)
        self.group = nn.GroupNorm(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.up(self.norm(self.down(x)))).unsqueeze(1)
        y = self.group(self.out(y))
        return torch.cat([y, F.interpolate(y, scale_factor=1.0)], dim=1)


def perturbed(model: nn.Module) -> nn.Module:
    """Batch norms with statistics as after training, so that forgetting one shows."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


CASES = {
    "mobilenet": (MobileNetLike, (3, 32, 32)),
    "resnet": (ResNetLike, (3, 16, 16)),
    "upsampler": (Upsampler, (2, 20)),
}


@pytest.mark.parametrize("name", CASES)
def test_bit_equal_at_every_batch(name, same):
    build, shape = CASES[name]
    model = perturbed(build())
    network = capture(model, torch.randn(4, *shape))
    for batch in (1, 3, 4):
        assert same(model, network, torch.randn(batch, *shape))
    assert network.notes == ()


@pytest.mark.parametrize("name", CASES)
def test_state_dict_is_the_models(name, same):
    build, shape = CASES[name]
    model = perturbed(build())
    network = capture(model, torch.randn(2, *shape))
    assert list(network.state_dict()) == list(model.state_dict())
    other = perturbed(build())
    network.load_state_dict(other.state_dict())
    assert same(other, network, torch.randn(2, *shape))


@pytest.mark.parametrize("name", CASES)
def test_train_mode_follows_the_model(name, same):
    build, shape = CASES[name]
    model = perturbed(build())
    network = capture(model, torch.randn(2, *shape))
    x = torch.randn(4, *shape)
    assert same(model, network, x, train=True)
    assert same(model, network, x), "running statistics were updated differently"


@pytest.mark.parametrize("name", CASES)
def test_captures_again_with_the_same_sites(name, same):
    build, shape = CASES[name]
    model = perturbed(build())
    first = capture(model, torch.randn(2, *shape))
    second = capture(first, torch.randn(2, *shape))
    assert same(model, second, torch.randn(3, *shape))
    assert sites(second) == sites(first)
    assert second.original_class == first.original_class


def sites(network):
    return [(kind_of(n), n.meta.get("site")) for n in network.graph.nodes]


def test_batch_of_one_stays_dynamic(same):
    model = perturbed(MobileNetLike())
    network = capture(model, torch.randn(1, 3, 32, 32))
    assert network.input_specs[0].shape == ("batch", 3, 32, 32)
    assert network.output_specs[0].shape == ("batch", 5)
    assert same(model, network, torch.randn(5, 3, 32, 32))


def test_static_when_asked():
    network = capture(MobileNetLike().eval(), torch.randn(2, 3, 32, 32), batch_dim=None)
    assert network.input_specs[0].shape == (2, 3, 32, 32)


def test_layers_are_modules_under_their_names():
    model = perturbed(MobileNetLike())
    network = capture(model, torch.randn(2, 3, 32, 32))
    assert isinstance(network.get_submodule("blocks.0.depthwise"), nn.Conv2d)
    called = {n.target for n in network.graph.nodes if n.op == "call_module"}
    layers = {
        name for name, module in model.named_modules() if list(module.parameters(recurse=False))
    }
    assert called == layers | {"dropout"}


def test_sites_are_unique_and_every_tensor_has_a_shape():
    network = capture(perturbed(ResNetLike()), torch.randn(2, 3, 16, 16))
    nodes = [n for n in network.graph.nodes if n.op != "output"]
    names = [n.meta["site"] for n in nodes]
    assert len(set(names)) == len(names)
    assert {"layer1.0.relu", "layer1.0.relu@1", "layer1.1.add", "max_pool2d", "pool"} <= set(names)
    for node in nodes:
        assert hasattr(node.meta["val"], "shape"), node


def test_in_place_operators_are_gone():
    network = capture(perturbed(ResNetLike()), torch.randn(2, 3, 16, 16))
    targets = [str(n.target) for n in network.graph.nodes if n.op == "call_function"]
    assert not [t for t in targets if t.split(".")[1].endswith("_")]
    assert "aten.add.Tensor" in targets


def test_the_model_is_left_alone():
    model = MobileNetLike().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    network = capture(model, torch.randn(2, 3, 32, 32))
    assert model.training
    assert not network.training
    with torch.no_grad():
        network.stem.weight.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_deepcopy_is_a_network_of_its_own(same):
    model = perturbed(MobileNetLike())
    network = capture(model, torch.randn(2, 3, 32, 32))
    twin = copy.deepcopy(network)
    assert isinstance(twin, type(network).__mro__[1])
    assert sites(twin) == sites(network)
    with torch.no_grad():
        twin.classifier.weight.zero_()
    assert same(model, network, torch.randn(2, 3, 32, 32))
    assert list(twin.state_dict()) == list(network.state_dict())


def test_every_parameter_gets_a_gradient():
    network = capture(perturbed(MobileNetLike()), torch.randn(2, 3, 32, 32)).train()
    network(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_flat_module_has_named_tensor_inputs():
    network = capture(perturbed(MobileNetLike()), torch.randn(2, 3, 32, 32))
    x = torch.randn(3, 3, 32, 32)
    (flat,) = network.flat()(x=x)
    assert torch.equal(flat, network(x))
    assert torch.equal(network.call_flat([x])[0], flat)


def test_interpreter_runs_the_graph():
    network = capture(perturbed(MobileNetLike()), torch.randn(2, 3, 32, 32))
    x = torch.randn(3, 3, 32, 32)
    assert torch.equal(torch.fx.Interpreter(network).run(x), network(x))


def test_same_channels_last(same):
    model = perturbed(ResNetLike()).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    assert same(model, capture(model, x), x)


def test_forward_hooks_run_once(same):
    model = perturbed(MobileNetLike())
    model.stem.register_forward_hook(lambda module, args, output: output * 2)
    assert same(model, capture(model, torch.randn(2, 3, 32, 32)), torch.randn(2, 3, 32, 32))


def test_subclass_with_its_own_forward_keeps_its_name(same):
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2 + self.bias

    model = nn.Sequential(Scaled(4, 3)).eval()
    network = capture(model, torch.randn(2, 4))
    assert same(model, network, torch.randn(3, 4))
    assert [n.target for n in network.graph.nodes if n.op == "call_module"] == ["0"]
    assert list(network.state_dict()) == list(model.state_dict())


def test_a_lone_layer(same):
    model = nn.Linear(3, 2).eval()
    network = capture(model, torch.randn(2, 3))
    assert same(model, network, torch.randn(4, 3))
    assert network.interface.renamed == {"weight": ("linear.weight",), "bias": ("linear.bias",)}


def test_a_user_attribute_called_modules(same):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 1)
            self.modules = [self.convolution]

        def forward(self, x: Tensor) -> Tensor:
            return self.modules[0](x)

    model = Net().eval()
    assert same(model, capture(model, torch.randn(2, 3, 4, 4)), torch.randn(3, 3, 4, 4))
