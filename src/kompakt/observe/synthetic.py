"""Calibration inputs made from what a network's batch norms remember of its training data.

What it does
    Starts from smooth random inputs and changes them until the mean and the spread of every channel behind every batch
    norm are those of the training data. What comes out looks like nothing, but drives every layer as data would.
When to use
    There is no data at all. A handful of real samples is better.
Cost
    As many forward and backward passes as steps; 30 steps on 16 images of 224² take MobileNet about a CPU-minute.
Formula
    minimise Σ_l mean_c [((m − μ)/σ)² + (s/σ − 1)²] + λ · mean |neighbouring pixels' difference|² by Adam on the inputs,
    m and s the batch's mean and standard deviation of channel c behind batch norm l, μ and σ the batch norm's own.
Limits
    Needs batch norms (also folded ones, but not those that a file has lost) and floating-point inputs. Says nothing
    about inputs the training data had too seldom to move a mean.
Reference
    Cai et al., ZeroQ: A Novel Zero Shot Quantization Framework, arXiv:2001.00281, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.nn import functional as F

from kompakt.errors import DataError
from kompakt.network.folding import NORMALIZED, normalized_statistics
from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.network import Network
from kompakt.progress import track

SAMPLES = 16
STEPS = 30
RATE = 0.15
SMOOTHNESS = 0.02
COARSE = 8
"""Side of a patch of the smooth start, as a share of the image's: one eighth."""
LEAST_SPREAD = 1e-3
"""Channels with a smaller share of the mean spread are constant, and count like it."""


def generate_inputs(
    network: Network, *, samples: int = SAMPLES, steps: int = STEPS, seed: int = 0
) -> dict[str, Tensor]:
    """Inputs that drive a network like its training data, by name.

    Args:
        network: A captured network, batch norms folded or not; it is not changed.
        samples: How many.
        steps: How often they are improved.
        seed: Of the start.

    Returns:
        float32 tensors, samples along dimension 0.

    Raises:
        DataError: K247 when the network has no batch norms, K248 when an input is not floating-point, K249 when the
            network's outputs have no derivative by its inputs.
    """
    targets = _targets(network)
    if not targets:
        raise DataError(
            "K247",
            "generating calibration inputs",
            why="the network has no batch norm whose statistics are known",
            help="give a few real samples (8 are often enough), or use --level 1, which needs none",
        )
    inputs = _start(network, samples, torch.Generator().manual_seed(seed))
    leaves = [x.requires_grad_() for x in inputs.values()]
    optimizer = torch.optim.Adam(leaves, lr=RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    watch = _Watch(network, targets)
    parameters = [p for p in nn.Module.parameters(network) if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            for _ in track(range(steps), "generating calibration inputs"):
                optimizer.zero_grad()
                loss = watch.loss(leaves)
                _backward(loss)
                optimizer.step()
                decay.step()
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    return {name: x.detach() for name, x in inputs.items()}


def _backward(loss: Tensor) -> None:
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise DataError(
            "K249",
            "generating calibration inputs",
            why="a part of the network runs outside of PyTorch and has no derivative",
            help="give a few real samples (8 are often enough), or use --level 1, which needs none",
        ) from error


def _targets(network: Network) -> dict[Node, tuple[Tensor, Tensor]]:
    """Mean and spread, float32 (C,), of every tensor whose batch norm is known."""
    found = {}
    for node in network.graph.nodes:
        norm = layer_of(node) if kind_of(node) == "batch_norm" else None
        if NORMALIZED in node.meta:
            found[node] = cast("tuple[Tensor, Tensor]", node.meta[NORMALIZED])
        elif norm is not None and getattr(norm, "running_var", None) is not None:
            found[node] = normalized_statistics(norm)
    scaled = {}
    for node, (mean, spread) in found.items():
        least = LEAST_SPREAD * float(spread.mean()) + 1e-12
        scaled[node] = mean.float(), spread.clamp(min=least).float()
    return scaled


def _start(network: Network, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random inputs; images are smooth, with structure of every size."""
    inputs = {}
    for spec, example in zip(network.input_specs, network.example_inputs(), strict=True):
        if not example.is_floating_point() or not example.dim():
            raise DataError(
                "K248",
                "generating calibration inputs",
                where=spec.name,
                why=f"it is {spec.dtype}, and only floating-point inputs can be improved by steps",
                help="give a few real samples, or use --level 1, which needs none",
            )
        first = spec.shape[0] if spec.shape else 1
        count = first if isinstance(first, int) else samples
        x = torch.randn(count, *example.shape[1:], generator=generator)
        if x.dim() == 4 and min(x.shape[2:]) >= COARSE:
            x = _smooth(x, generator)
        inputs[spec.name] = x
    return inputs


def _smooth(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of several sizes of patches, together of variance 1 or so."""
    total, side, parts = 0.3 * x, 2, 1
    while side < min(x.shape[2:]):
        patches = torch.randn(*x.shape[:2], side, side, generator=generator)
        total = total + F.interpolate(
            patches, size=x.shape[2:], mode="bilinear", align_corners=False
        )
        side, parts = side * 2, parts + 1
    return total / math.sqrt(parts)


class _Watch(fx.Interpreter):
    """Runs the network and adds up how far its channels are from what batch norms remember."""

    def __init__(self, network: Network, targets: Mapping[Node, tuple[Tensor, Tensor]]) -> None:
        super().__init__(network)
        self.targets = targets
        self.total: Tensor = torch.zeros(())

    def loss(self, inputs: list[Tensor]) -> Tensor:
        """The distance for these inputs, with their roughness."""
        self.total = torch.zeros(())
        self.run(*inputs, enable_io_processing=False)
        rough = sum((_roughness(x) for x in inputs), torch.zeros(()))
        return self.total / len(self.targets) + SMOOTHNESS * rough

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if n in self.targets:
            mean, spread = self.targets[n]
            axis = 1 if result.dim() > 1 else 0
            over = [d for d in range(result.dim()) if d != axis]
            away = (result.mean(over) - mean) / spread
            wider = result.std(over, unbiased=False) / spread - 1
            # Bounded slopes: a single dead channel must not drown all others.
            self.total = self.total + F.smooth_l1_loss(away, torch.zeros_like(away))
            self.total = self.total + F.smooth_l1_loss(wider, torch.zeros_like(wider))
        return result


def _roughness(x: Tensor) -> Tensor:
    if x.dim() != 4:
        return torch.zeros(())
    steps = [x.diff(dim=d).square().mean() for d in (2, 3) if x.shape[d] > 1]
    return sum(steps, torch.zeros(()))


__all__ = ["generate_inputs"]
