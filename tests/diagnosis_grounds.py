"""A small trained network with everything a fault can be planted in: depthwise, a concatenation, a gate, a residual."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from .digits import part

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # the benchmarks plant the same faults in real models

from benchmarks.faults import diagnosis_of, faults_for, hit, judged, planted  # noqa: E402
from benchmarks.grounds import Ground, Stage  # noqa: E402
from benchmarks.planting import Planter  # noqa: E402

__all__ = ["Planter", "diagnosis_of", "digits_ground", "faults_for", "hit", "judged", "planted"]


def _block(channels_in: int, channels: int, kernel: int = 3, **settings: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False, **settings)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


class Branches(nn.Module):
    """Stem, depthwise and pointwise layer, two branches side by side, a gate, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = _block(1, 16), _block(16, 16, groups=16)
        self.point = _block(16, 32, 1)
        self.left, self.right = _block(32, 16), _block(32, 16, 1)
        self.join = _block(32, 32, stride=2)
        self.gate = nn.Conv2d(32, 32, 1)
        self.last = _block(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, 8, 8) to logits (N, 10)."""
        x = self.point(self.deep(self.stem(image)))
        x = self.join(torch.cat([self.left(x), self.right(x)], 1))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.head(self.last(x).mean((2, 3)))


STAGES = (
    Stage(layer="stem.0", norm="stem.1", edge="stem.2", following="deep.0"),
    Stage(layer="deep.0", norm="deep.1", edge="deep.2", following="point.0", depthwise=True),
    Stage(layer="left.0", norm="left.1", edge="left.2", following="join.0"),
    Stage(layer="last.0", norm="last.1", edge="last.2", following="head"),
)
BRANCHES = (
    (STAGES[2], "right.2"),
    (Stage(layer="right.0", norm="right.1", edge="right.2", following="join.0[16]"), "left.2"),
)


@cache
def trained(seed: int = 0) -> Branches:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Branches()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(4):
        for images, labels in part(0, 800, 40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


@cache
def digits_ground() -> Ground:
    return Ground(
        name="digits",
        model=trained(),
        example=torch.zeros(2, 1, 8, 8),
        calibration=[images for images, _ in part(800, 1000)],
        data=[images for images, _ in part(1000, 1200)],
        stages=STAGES,
        branches=BRANCHES,
        gates=("gate",),
    )
