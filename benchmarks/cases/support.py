"""What each runtime was seen to do: every scheme on three small networks, written, loaded, run and certified."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import kompakt
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.errors import KompaktError
from kompakt.measuring.data import prepare
from kompakt.measuring.environment import resolved_isa
from kompakt.measuring.parity import certify
from kompakt.network.rewrites import inference_form
from kompakt.observe import calibrate
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.schemes import PRESETS, get_scheme
from kompakt.targets import TARGETS, Target

TITLE = "What each runtime was seen to do"
NOT_RUN = ("tensorrt", "coreml", "torch", "torch-aoti", "torchscript")
"""They need another machine, or a minute of compiling for each network: their own tests run them."""


class _Residual(nn.Module):
    """Convolutions, a depthwise one, a residual sum, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(torch.relu(y + self.body(y)).mean((2, 3)))


class _Dense(nn.Module):
    """Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Block(nn.Module):
    """Attention and a feed-forward part, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split(32, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "CNN": (_Residual, (3, 16, 16)),
    "MLP": (_Dense, (64,)),
    "transformer": (_Block, (10, 32)),
}


def run(setup: Setup) -> Outcome:
    """Every installed runtime with every scheme."""
    rows, seen = [], {}
    for name, target in TARGETS.items():
        if target.version() is None or name in NOT_RUN:
            continue
        seen[name] = {scheme: _seen(target, scheme) for scheme in PRESETS}
        works = sum(
            verdict in ("exact", "within tolerance")
            for found in seen[name].values()
            for verdict in found.values()
        )
        failed = [
            f"{scheme} on {net}"
            for scheme, found in seen[name].items()
            for net, verdict in found.items()
            if verdict == "failed"
        ]
        rows.append(
            Row(
                what=f"{name} {target.version()}: certified, of {len(PRESETS) * len(NETWORKS)}",
                figure=float(works),
                met=not failed,
                target="none fails its certificate",
                note=f"failed: {', '.join(failed)}"
                if failed
                else "all others were refused with a reason",
            )
        )
    return Outcome(rows=rows, details={"title": TITLE, "seen": seen})


def _seen(target: Target, scheme: str) -> dict[str, str]:
    return {name: _one(target, scheme, *made) for name, made in NETWORKS.items()}


def _one(target: Target, scheme: str, build: type[nn.Module], shape: tuple[int, ...]) -> str:
    """The verdict of the certificate, or why nothing was written."""
    torch.manual_seed(0)
    data: list[Any] = [torch.randn(16, *shape) for _ in range(2)]
    captured = kompakt.capture(build().eval(), data[0][:2])
    prepared = inference_form(captured)
    rules = target.rules(resolved_isa("auto"))
    batches = list(prepare(data, captured.input_specs))
    try:
        placed = place(prepared, get_scheme(scheme), rules)
        if plan_of(placed).taps:
            seen = calibrate(prepared, plan_of(placed).taps, (b.inputs for b in batches))
            set_ranges_(placed, seen, "minmax")
        written = target.write(freeze_(placed))
        return certify(placed, written, target, batches, rules=rules).verdict
    except KompaktError as error:
        return f"{error.code}: {error.why or error.what}"
