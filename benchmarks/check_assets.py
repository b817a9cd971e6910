"""Measure every float model on its data in PyTorch and compare with the published figure.

KOMPAKT_ASSETS=… python -m benchmarks.check_assets [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import datasets, models


@dataclass(frozen=True, kw_only=True)
class Check:
    """One figure: expected and measured, on how many samples, and how far apart they may be."""

    name: str
    expected: float
    measured: float
    samples: int
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the two agree."""
        return abs(self.measured - self.expected) <= self.tolerance


@torch.inference_mode()
def correct_in_top(model: nn.Module, data: datasets.Labelled, k: int = 1, size: int = 50) -> float:
    """Share of samples whose label is among the ``k`` largest logits."""
    hits = 0
    for x, labels in data.batches(size):
        hits += int((model(x).topk(k).indices == labels[:, None]).any(1).sum())
    return hits / len(data)


def imagenet_checks(assets: Path) -> Iterator[Check]:
    model = models.load_mobilenet_v1_075(assets)
    figures = {
        "calibration": (0.695, 0.945),
        "validation": (0.723, 0.910),
        "test": (0.756, 0.930),
    }
    for split, expected in figures.items():
        data = datasets.imagenet(assets, split)
        for k, figure in zip((1, 5), expected, strict=True):
            measured = correct_in_top(model, data, k)
            name = f"mobilenet_v1_075 imagenet/{split} top-{k}"
            yield Check(
                name=name, expected=figure, measured=measured, samples=len(data), tolerance=6e-4
            )


def cifar_checks(assets: Path, cache: Path) -> Iterator[Check]:
    sets = {
        "lossless test": datasets.cifar_lossless(assets, "test"),
        "JPEG test": datasets.cifar_jpeg(assets, "test", cache),
    }
    figures = {"resnet20": (0.9173, 0.8103), "resnet56": (0.9326, 0.8320)}
    for name, expected in figures.items():
        model = models.MODELS[name].load(assets)
        for (split, data), figure in zip(sets.items(), expected, strict=True):
            yield Check(
                name=f"{name} CIFAR-10 {split} top-1",
                expected=figure,
                measured=correct_in_top(model, data, size=200),
                samples=len(data),
                tolerance=6e-5,
            )


def keyword_check(assets: Path) -> Check:
    data = datasets.kws(assets, "all")
    measured = correct_in_top(models.load_kws_dscnn(assets), data, size=100)
    return Check(
        name="kws_dscnn all clips top-1",
        expected=0.913,
        measured=measured,
        samples=len(data),
        tolerance=6e-4,
    )


@torch.inference_mode()
def sentence_check(assets: Path) -> Check:
    data, model = datasets.stsb(assets, "dev"), models.load_minilm(assets)
    outputs = torch.cat([model(**inputs) for inputs, _ in data.batches(100)]).numpy()
    return Check(
        name="minilm STS-B dev Spearman",
        expected=0.8672,
        measured=datasets.sts_spearman({"embedding": outputs}, data.labels),
        samples=len(data) // 2,
        tolerance=6e-5,
    )


@torch.inference_mode()
def stories_check(assets: Path) -> Check:
    stories, model = datasets.tinystories(assets), models.load_stories260k(assets)
    loss, tokens = 0.0, 0
    for story in stories:
        ids = torch.from_numpy(story)
        logits_TV = model(ids[None, :-1])[0]
        loss += float(F.cross_entropy(logits_TV, ids[1:], reduction="sum"))
        tokens += len(ids) - 1
    perplexity = float(np.exp(loss / tokens))
    return Check(
        name="stories260k perplexity, context 256",
        expected=3.99,
        measured=perplexity,
        samples=tokens,
        tolerance=6e-3,
    )


def checks(assets: Path, cache: Path) -> Iterator[Check]:
    """All figures, one model after another."""
    yield from imagenet_checks(assets)
    yield from cifar_checks(assets, cache)
    yield keyword_check(assets)
    yield sentence_check(assets)
    yield stories_check(assets)


def main() -> int:
    parser = argparse.ArgumentParser(description="compare the float models with their figures")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "kompakt-bench")
    options = parser.parse_args()
    assets = os.environ.get("KOMPAKT_ASSETS")
    if not assets:
        parser.error("KOMPAKT_ASSETS is not set")
    found = []
    for check in checks(Path(assets), options.cache):
        found.append(check)
        mark = "ok " if check.holds else "NO "
        figures = f"{check.measured:.4f}, expected {check.expected} (n = {check.samples})"
        print(f"{mark} {check.name}: {figures}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(check) for check in found], indent=2) + "\n")
    return 0 if all(check.holds for check in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
