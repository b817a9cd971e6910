"""A small classifier of handwritten digits, its data, and a quick way to compress it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from kompakt.compression import Result, compress
from kompakt.measuring.record import Record

Pairs = list[tuple[Tensor, Tensor]]
REPRODUCED = ("model.onnx", "golden.npz", "calibration.npz")
"""Files that depend on the model, the data and the seed alone."""


class Digits(nn.Module):
    """Two convolutions and a linear layer, for 8×8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, padding=1, stride=2), nn.BatchNorm2d(24), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(24, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).mean((2, 3)))


@cache
def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    images = torch.from_numpy(found.images.astype(np.float32))[:, None] / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.from_numpy(found.target)[order]


def part(start: int, end: int, size: int = 50) -> Pairs:
    images, labels = (t[start:end] for t in digits())
    return list(zip(images.split(size), labels.split(size), strict=True))


@cache
def trained() -> Digits:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for epoch in range(5):
        for images, labels in part(0, 800, 40):
            optimizer.param_groups[0]["lr"] = 0.02 / (epoch + 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


def calibration() -> list[Tensor]:
    return [images for images, _ in part(800, 900)]


def validation() -> Pairs:
    return part(900, 1300)


def squeeze(out: Path, **settings: Any) -> Result:
    """Compress without the measurements that take long."""
    quick = {"measure_latency": False, "measure_memory": False, "name": "digits"}
    return compress(
        trained(), example_inputs=torch.zeros(2, 1, 8, 8), out=out, **{**quick, **settings}
    )


def timeless(record: Record) -> dict[str, Any]:
    """A record without what differs from run to run: the clock and where it was written."""
    data = record.to_json()
    for key in ("timings", "environment", "artifact"):
        del data[key]
    for trial in data["trials"]:
        del trial["seconds"]
    return data


def nothing_is_left(folder: Path) -> bool:
    return list(folder.iterdir()) == []
