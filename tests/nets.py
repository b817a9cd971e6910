"""Small networks, grid-valued data and everything that is done to them before a test looks.

Importing it makes the exporter read its library of operators once instead of once for each file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from onnxscript._framework_apis import torch_2_11 as exporter_library
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe import Calibration, calibrate
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.plan import Site
from kompakt.quantize.ranges import set_ranges_
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme, w8a8
from kompakt.targets import TARGETS, Target, Written

exporter_library.get_torchlib_ops = cache(exporter_library.get_torchlib_ops)

ISA = "x86-vnni"
IMAGE = (3, 10, 10)
ONNXRUNTIME: Target = TARGETS["onnxruntime"]


def grid(*shape: int, seed: int = 0) -> Tensor:
    """Normalised bytes, like images: many values lie exactly between two codes."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 256, shape, generator=generator).float() / 255 - 0.45) / 0.25


def conv(
    channels_in: int, channels: int, act: Callable[[], nn.Module] | None = nn.ReLU, **settings: Any
) -> nn.Sequential:
    """A convolution, its batch norm with uneven statistics, and an activation."""
    kernel = settings.pop("kernel", 3)
    settings.setdefault("padding", kernel // 2)
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    body = [nn.Conv2d(channels_in, channels, kernel, bias=False, **settings), norm]
    return nn.Sequential(*body, *([act()] if act is not None else []))


class Net(nn.Module):
    """Layers as attributes, and a function that says how they are wired."""

    def __init__(self, wiring: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.wiring = wiring
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.wiring(self, x)


def _head(s: Any, x: Tensor) -> Tensor:
    return s.head(x.mean((2, 3)))


def _residual(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return _head(s, F.relu(y + s.b(y)))


def _input_residual(s: Any, x: Tensor) -> Tensor:
    return _head(s, s.b(F.relu(x + s.a(x))))


def _concat(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return _head(s, s.d(torch.cat([s.b(y), s.c(y)], 1)))


def _movers(s: Any, x: Tensor) -> Tensor:
    y = F.max_pool2d(s.a(F.pad(x, (0, 1, 0, 1))), 3, 2, 1)
    n, c, h, w = y.shape
    y = y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)[:, 1:]
    left, right = F.pad(y, (1, 2, 0, 1)).split([3, 4], 1)
    return _head(s, s.c(torch.cat([s.b(left), right], 1)))


def _gate(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return _head(s, s.b(y * torch.sigmoid(s.gate(y.mean((2, 3), keepdim=True)))))


def _darknet(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    y = F.avg_pool2d(y + s.b(y), 2)
    return _head(s, s.c(F.interpolate(y, scale_factor=2)))


def _twice(s: Any, x: Tensor) -> Tensor:
    return _head(s, F.relu(s.b(F.relu(s.b(F.relu(s.a(x)))))))


def _mlp(s: Any, x: Tensor) -> Tensor:
    return s.c(F.relu(s.b(F.relu(s.a(x)))))


class Encoder(nn.Module):
    """A transformer block between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)).mean(1))


class Words(nn.Module):
    """An embedding and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(F.relu(self.body(self.table(ids))).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.1)


def _layer(channels: int = 8, outputs: int = 5) -> nn.Linear:
    return nn.Linear(channels, outputs)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (
        lambda: Net(lambda s, x: _head(s, s.b(s.a(x))), a=conv(3, 8), b=conv(8, 8), head=_layer()),
        IMAGE,
    ),
    "residual": (
        lambda: Net(_residual, a=conv(3, 8), b=conv(8, 8, None), head=_layer()),
        IMAGE,
    ),
    "input residual": (
        lambda: Net(_input_residual, a=conv(3, 3, None), b=conv(3, 8), head=_layer()),
        IMAGE,
    ),
    "concat": (
        lambda: Net(
            _concat, a=conv(3, 8), b=conv(8, 8), c=conv(8, 8), d=conv(16, 8), head=_layer()
        ),
        IMAGE,
    ),
    "mixed concat": (
        lambda: Net(
            _concat, a=conv(3, 8), b=conv(8, 8, None), c=conv(8, 8), d=conv(16, 8), head=_layer()
        ),
        IMAGE,
    ),
    "movers": (
        lambda: Net(
            _movers,
            a=conv(3, 8, padding=0, stride=1),
            b=conv(3, 4, padding=1),
            c=conv(8, 8),
            head=_layer(),
        ),
        IMAGE,
    ),
    "depthwise": (
        lambda: Net(
            lambda s, x: _head(s, s.c(s.b(s.a(x)))),
            a=conv(3, 8, nn.ReLU6),
            b=conv(8, 8, nn.ReLU6, groups=8, stride=2),
            c=conv(8, 8, None, kernel=1),
            head=_layer(),
        ),
        IMAGE,
    ),
    "gate": (
        lambda: Net(
            _gate, a=conv(3, 8), gate=nn.Conv2d(8, 8, 1), b=conv(8, 8, stride=2), head=_layer()
        ),
        IMAGE,
    ),
    "darknet": (
        lambda: Net(
            _darknet, a=conv(3, 8, _leaky), b=conv(8, 8, _leaky), c=conv(8, 8), head=_layer()
        ),
        IMAGE,
    ),
    "twice": (
        lambda: Net(
            _twice,
            a=nn.Conv2d(3, 8, 3, padding=1),
            b=nn.Conv2d(8, 8, 3, padding=1),
            head=_layer(),
        ),
        IMAGE,
    ),
    "dense": (
        lambda: Net(_mlp, a=_layer(40, 48), b=_layer(48, 48), c=_layer(48, 5)),
        (40,),
    ),
    "dense 3d": (
        lambda: Net(_mlp, a=_layer(40, 48), b=_layer(48, 48), c=_layer(48, 5)),
        (7, 40),
    ),
    "encoder": (Encoder, (6, 12)),
    "recurrent": (Recurrent, (6, 12)),
    "words": (Words, ()),
}


@cache
def model(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MODELS[name][0]().eval()


def inputs(name: str, seed: int = 0, samples: int = 4) -> Tensor:
    if name == "words":
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 50, (samples, 6), generator=generator)
    return grid(samples, *MODELS[name][1], seed=seed)


@cache
def network(name: str, seed: int = 0) -> Network:
    """The model captured and in inference form; not to be changed."""
    return inference_form(capture(model(name, seed), inputs(name)))


@dataclass
class Deployed:
    """A network as it is written, and what it was calibrated on."""

    network: Network
    placed: Network
    written: Written
    batches: list[Batch]
    rules: Rules
    calibration: Calibration | None

    def sites(self, role: str = "activation") -> dict[str, Site]:
        return {s.name: s for s in plan_of(self.placed).sites if s.role == role}


def ranged(
    captured: Network,
    scheme: Scheme,
    batches: Sequence[Batch],
    isa: str = ISA,
    target: str = "onnxruntime",
) -> tuple[Network, Calibration | None]:
    """A placed network whose quantizers have min-max ranges."""
    placed = place(captured, scheme, TARGETS[target].rules(isa))
    taps = plan_of(placed).taps
    if not taps:
        return placed, None
    seen = calibrate(captured, taps, (batch.inputs for batch in batches))
    return set_ranges_(placed, seen, "minmax"), seen


def deploy(
    captured: Network,
    batches: Sequence[Batch],
    scheme: Scheme | None = None,
    isa: str = ISA,
    target: str = "onnxruntime",
) -> Deployed:
    """Place, calibrate, freeze and write a network."""
    placed, seen = ranged(captured, scheme or w8a8(), batches, isa, target)
    freeze_(placed)
    written = TARGETS[target].write(placed)
    return Deployed(captured, placed, written, list(batches), TARGETS[target].rules(isa), seen)


def batches_for(name: str, count: int = 2, seed: int = 0) -> list[Batch]:
    key = network(name).input_specs[0].name
    return [Batch({key: inputs(name, seed + i)}, None, 4) for i in range(count)]


@cache
def deployed(
    name: str,
    scheme: Scheme | None = None,
    isa: str = ISA,
    seed: int = 0,
    target: str = "onnxruntime",
) -> Deployed:
    """A model of :data:`MODELS` as it is written; not to be changed."""
    return deploy(network(name, seed), batches_for(name, seed=seed), scheme, isa, target)
