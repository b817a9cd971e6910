"""How far the outputs of a changed network are from the float network's, and the directions in which that grows.

Both losses need no labels. ``kl`` is the Kullback-Leibler divergence of the class probabilities, for networks whose
last axis holds logits; ``relative`` is the squared error of the outputs over their squared norm.

Close to the float outputs z, the loss of a sample is a quadratic form ½ δᵀ F δ of their change δ. :func:`directions`
gives vectors v with E[Σ v vᵀ] = F, so that one backward pass of each v·z gives, at every tensor x of the network,
gradients g with

    loss(x + Δ) ≈ ½ Σ (g·Δ)².

Unlike gradients for labels drawn from the network's own probabilities (the usual estimate of Fisher information), every
sample counts in full, however sure the network is of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Loss = Literal["kl", "relative"]
CLASSIFYING = frozenset({"top1", "top5", "agreement"})
"""Metrics of networks whose last axis holds logits."""
POWER_STEPS = 20
_TINY = 1e-30


def loss_for(metric: str | None, outputs: Sequence[Tensor]) -> Loss:
    """The loss that suits a metric and the outputs.

    Args:
        metric: Name of the metric the network is judged by, if any.
        outputs: The float network's outputs for some samples.
    """
    if metric not in CLASSIFYING or outputs[0].dim() < 2 or outputs[0].shape[-1] < 2:
        return "relative"
    sums = outputs[0].sum(-1)
    even = torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    probabilities = even and bool((outputs[0] >= 0).all())
    return "relative" if probabilities else "kl"


def divergence(exact: Sequence[Tensor], other: Sequence[Tensor], loss: Loss) -> Tensor:
    """The loss of each sample: float64, shape (B,).

    Args:
        exact: The float network's outputs, each of shape (B, ...).
        other: The changed network's.
        loss: Which loss.
    """
    pairs = [
        (z.double(), y.double()) for z, y in zip(exact, other, strict=True) if z.is_floating_point()
    ]
    if loss == "kl":
        return torch.stack([_kl(z, y) for z, y in pairs]).sum(0)
    error = torch.stack([(y - z).square().flatten(1).sum(1) for z, y in pairs]).sum(0)
    return error / (_norms([z for z, _ in pairs]) + _TINY)


def _kl(z: Tensor, y: Tensor) -> Tensor:
    gap = torch.log_softmax(z, -1) - torch.log_softmax(y, -1)
    return (
        (torch.softmax(z, -1) * gap).sum(-1).flatten(1).mean(1)
        if z.dim() > 2
        else (torch.softmax(z, -1) * gap).sum(-1)
    )


def _norms(outputs: Sequence[Tensor]) -> Tensor:
    """Squared norm of each sample's outputs, shape (B,)."""
    return torch.stack([z.square().flatten(1).sum(1) for z in outputs]).sum(0)


def directions(
    outputs: Sequence[Tensor], loss: Loss, count: int, generator: torch.Generator
) -> list[list[Tensor]]:
    """Vectors v at the outputs with E[Σ v vᵀ] = F, the curvature of the loss, for each sample.

    Where the outputs are the logits of one decision, the first is the steepest direction of F itself (a network that
    hesitates does so between two classes), and only the rest is drawn at random.

    Args:
        outputs: The float network's outputs, each of shape (B, ...), floating point.
        loss: Which loss.
        count: How many vectors.
        generator: Source of randomness.

    Returns:
        ``count`` lists of one tensor for each output, of its shape.
    """
    exact = [z.detach() for z in outputs]
    drawn = [_drawn(exact, loss, generator) for _ in range(count)]
    if loss != "kl" or len(exact) > 1 or exact[0].dim() != 2:
        return [[v / count**0.5 for v in vectors] for vectors in drawn]
    first, unit = _steepest(exact[0])
    # A random sign for each sample, so that samples never add up where they cannot be told apart.
    sign = torch.randint(0, 2, (len(first), 1), generator=generator) * 2.0 - 1.0
    rest = [v[0] - unit * (unit * v[0]).sum(-1, keepdim=True) for v in drawn[1:]]
    return [[first * sign], *([v / (count - 1) ** 0.5] for v in rest)]


def _drawn(outputs: Sequence[Tensor], loss: Loss, generator: torch.Generator) -> list[Tensor]:
    """Vectors with the covariance F."""
    noise = [torch.randn(z.shape, generator=generator) for z in outputs]
    if loss == "relative":
        factor = (2.0 / (_norms(outputs) + _TINY)).sqrt()
        return [e * factor.reshape(-1, *[1] * (e.dim() - 1)) for e in noise]
    found = []
    for z, e in zip(outputs, noise, strict=True):
        p = torch.softmax(z, -1)
        # √p ε − p Σ√p ε has the covariance diag(p) − p pᵀ, the curvature of the divergence.
        v = p.sqrt() * e
        v = v - p * v.sum(-1, keepdim=True)
        found.append(v / max(1, z[0].numel() // z.shape[-1]) ** 0.5)
    return found


def _steepest(z: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the first eigenvector of F times the root of its eigenvalue; and of length 1. Both (B, K)."""
    p = torch.softmax(z.double(), -1)
    top = p.topk(2, -1).indices
    u = torch.zeros_like(p).scatter_(1, top[:, :1], 1.0).scatter_(1, top[:, 1:], -1.0)
    value = torch.ones(len(p), 1, dtype=torch.float64)
    for _ in range(POWER_STEPS):
        v = p * u - p * (p * u).sum(-1, keepdim=True)
        value = v.norm(dim=-1, keepdim=True)
        u = v / (value + _TINY)
    return (u * value.sqrt()).float(), u.float()
