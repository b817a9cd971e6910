"""The demo: train a small network on real data within seconds, compress it, prove what came out.

The data are scikit-learn's 1,797 handwritten digits, which come with the package: nothing is
downloaded. :func:`trained_model` is also a SOURCE: ``kompakt.demo:trained_model``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kompakt.errors import KompaktError
from kompakt.measuring.data import Dataset, open_data
from kompakt.progress import note, track

if TYPE_CHECKING:
    from kompakt.compression import Result

DATA = "builtin:digits"
EPOCHS = 20
BATCH = 32
LEARNING_RATE = 1e-2
MAX_DROP = 0.02
LEAST_ACCURACY = 0.8
"""Below this the training has failed, and compressing would show nothing."""


class DigitNet(nn.Module):
    """A small CNN for 8×8 images of digits: three convolutions, a pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        pooling = nn.MaxPool2d(2)
        self.features = nn.Sequential(*_block(1, 32), *_block(32, 64), pooling, *_block(64, 64))
        self.classifier = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, 8, 8) in [0, 1] to logits (N, 10)."""
        scores: Tensor = self.classifier(self.features(image).mean((2, 3)))
        return scores


def _block(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(channels), nn.ReLU()


def train(seed: int = 0, epochs: int = EPOCHS) -> DigitNet:
    """Train on the digits' training split; a few seconds on one core.

    Args:
        seed: Of the initial weights and of the order of the images.
        epochs: Passes over the training data.

    Returns:
        The trained network in evaluation mode.
    """
    images, labels = _digits("train")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitNet()
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    model.train()
    for _ in track(range(epochs), "training", epochs):
        order = torch.randperm(len(labels), generator=generator)
        for rows in torch.split(order, BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def trained_model() -> tuple[DigitNet, Tensor]:
    """The trained network and its example input, as a SOURCE."""
    return train(), torch.zeros(2, 1, 8, 8)


def accuracy(model: nn.Module, split: str) -> float:
    """Share of a split's digits that the model names correctly, in [0, 1]."""
    images, labels = _digits(split)
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def run_demo(out: Path, seed: int = 0) -> Result:
    """Train, compress and measure; the artifact with its report is written to ``out``.

    Raises:
        KompaktError: K023 when training failed.
    """
    from kompakt.compression import compress
    from kompakt.search.budget import Budget

    model = train(seed)
    reached = accuracy(model, "validation")
    note(
        f"trained a network of {sum(p.numel() for p in model.parameters()):,} parameters: "
        f"{reached:.1%} of the validation digits are right"
    )
    if reached < LEAST_ACCURACY:
        raise KompaktError("K023", "training the demo's network", why=f"accuracy is {reached:.1%}")
    return compress(
        model,
        example_inputs=torch.zeros(2, 1, 8, 8),
        calibration=_dataset("calibration"),
        validation=_dataset("validation"),
        test=_dataset("test"),
        metric="top1",
        budget=Budget(max_drop=MAX_DROP),
        seed=seed,
        out=out,
        name="digits",
    )


def _dataset(split: str) -> Dataset:
    return open_data(DATA, ["image"], split)


def _digits(split: str) -> tuple[Tensor, Tensor]:
    batches = list(_dataset(split))
    images = torch.cat([batch.inputs["image"] for batch in batches])
    return images, torch.cat([batch.labels for batch in batches])
