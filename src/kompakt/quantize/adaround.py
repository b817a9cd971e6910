"""AdaRound: whether each weight is rounded up or down is learned, layer by layer.

What it does
    Rounding every weight to the nearest code is not best for a layer's output: errors of several weights can cancel.
    For each layer the second moments of its input are summed once; the output's squared error is then a quadratic in
    the weights, so learning needs no more data: hundreds of steps cost less than one forward pass. A soft choice
    between the two neighbouring codes is learned for every weight and made hard, then single codes are changed as long
    as that helps. Inputs are those of the already rounded network, the aim is the float network's output, so each layer
    makes up for the ones before it; the bias takes what is left of the mean.
When to use
    Weights in 4 bits or fewer, static or not; alone where minutes count, or as a start for ``reconstruction``.
Cost
    One float and one simulated forward pass over a few hundred samples, fewer where their activations would need more
    than 1.5 gigabytes, and matrix products of the size of the weights. Costs no speed: only numbers change.
Formula
    With H = E[x̂ x̂ᵀ] + λI and W* = W (E[x x̂ᵀ] + λI) H⁻¹: minimise tr((Ŵ − W*) H (Ŵ − W*)ᵀ) over
    Ŵ = s · clip(⌊W*/s⌋ + h(V)), h a rectified sigmoid that a growing penalty 1 − abs(2h − 1)^β drives to 0 or 1; then
    coordinate descent on the codes. All moments are taken about their means. s: least error weighted by diag H.
Limits
    Linear layers and convolutions that are called once; transposed convolutions and embeddings keep nearest rounding.
Reference
    Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, arXiv:2004.10568 (there with samples of
    inputs in every step).
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.numerics.formats import Format, get_format
from kompakt.numerics.granularity import expand
from kompakt.progress import track
from kompakt.quantize.layers import Treated, fix_grid_
from kompakt.quantize.least_error_grid import least_error_grid
from kompakt.quantize.method import Batches
from kompakt.quantize.quantizer import stage
from kompakt.quantize.second_moments import Moments, Pair, as_matrices, moments_of

MEMORY = 3 * 2**29
"""Bytes that activations of all samples may take, about."""
DAMPING = 0.01
"""λ as a share of the mean of H's diagonal."""
STEPS = 300
RATE = 0.1
WARM_UP = 0.2
"""Share of the steps without a penalty."""
STRETCH = 1.2, -0.1
"""The rectified sigmoid is clip(1.2 · sigmoid(v) − 0.1)."""
SHARPEST, FLATTEST = 20.0, 2.0
"""First and last exponent of the penalty."""
SWEEPS = 3
"""Passes over all codes in the end."""


def adaround_(placed: Network, reference: Network, batches: Batches) -> int:
    """Choose the rounding of every linear layer and convolution, in place.

    Args:
        placed: A placed network whose quantizers have ranges; not yet frozen.
        reference: The float network it was placed from.
        batches: A few hundred samples.

    Returns:
        How many layers were rounded so.
    """
    calls = Counter(str(n.target) for n in placed.graph.nodes if n.op == "call_module")
    pairs = [Pair(placed, reference, inputs) for inputs in _that_fit(batches, reference)]
    rounded = 0
    with torch.no_grad(), stage(placed, "simulate"):
        for node in track(list(placed.graph.nodes) if pairs else [], "choosing roundings"):
            layer = _layer(placed, node)
            if layer is not None and calls[str(node.target)] == 1:
                moments, _ = moments_of(layer, node, pairs)
                _round_(layer, moments)
                rounded += 1
            for pair in pairs:
                pair.run(node)
    return rounded


def _layer(placed: Network, node: Node) -> Treated | None:
    layer = placed.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(layer, Treated) or isinstance(layer, nn.Embedding):
        return None
    return None if not layer.on_integers or getattr(layer, "transposed", False) else layer


def _numbers(value: Tensor) -> int:
    """How many numbers one sample of a value has, dynamic sizes as in the example.

    Comparing dynamic sizes with numbers would fix them for good: only their examples are read.
    """
    sizes = [n if isinstance(n, int) else n.node.hint or 1 for n in value.shape[1:]]
    return math.prod(sizes)


def _that_fit(batches: Batches, reference: Network) -> Batches:
    """Evenly fewer samples of every batch, where all would take too much memory."""
    values = (n.meta.get("val") for n in reference.graph.nodes)
    largest = max((_numbers(v) for v in values if isinstance(v, Tensor)), default=1)
    # Two networks, and about two values alive in each.
    room = MEMORY // (4 * 4 * largest)
    total = sum(len(batch[0]) for batch in batches if batch)
    share = min(1.0, max(1, room) / max(1, total))
    kept = [[t[: math.ceil(len(t) * share)] for t in batch] for batch in batches]
    return [batch for batch in kept if batch and len(batch[0])]


def _round_(layer: Treated, moments: Moments) -> None:
    """Give a layer the weights whose output is closest, and the bias that goes with them."""
    groups = int(getattr(layer, "groups", 1))
    exact = as_matrices(layer.weight.detach().clone(), groups)
    centred = moments.centred()
    gram, aim = _problem(exact, centred)
    rows = aim.flatten(0, 1)
    importance = gram.diagonal(dim1=-2, dim2=-1).repeat_interleave(len(rows) // groups, 0)
    grid = least_error_grid(layer, rows, importance)
    granularity = layer.treatment.granularity
    step, zero = (
        as_matrices(
            expand(p.float(), layer.weight.shape, granularity).expand_as(layer.weight), groups
        )
        for p in grid
    )
    fmt = get_format(str(layer.treatment.weight))
    chosen = _codes(aim, gram, step, zero, fmt) * step
    layer.weight.copy_(chosen.reshape(layer.weight.shape))
    fix_grid_(layer, *grid)
    means = (m.unsqueeze(-1).float() for m in (moments.exact_mean, moments.mean))
    shift = (torch.matmul(exact, next(means)) - torch.matmul(chosen, next(means))).flatten()
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(shift))
    layer.bias.add_(shift)


def _problem(exact: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """H (G, K, K) and W* (G, O / G, K), float32."""
    size = moments.gram.shape[-1]
    diagonal = moments.gram.diagonal(dim1=-2, dim2=-1)
    damping = (DAMPING * diagonal.mean(-1)).clamp(min=1e-12)[:, None, None] * torch.eye(
        size, dtype=torch.float64
    )
    gram = moments.gram + damping
    aim = torch.linalg.solve(gram, (moments.cross + damping).mT @ exact.double().mT).mT
    return gram.float(), aim.float()


def _codes(aim: Tensor, gram: Tensor, step: Tensor, zero: Tensor, fmt: Format) -> Tensor:
    """Codes minus zero point, as floats, shape of ``aim``: the better of two starts for every output."""
    low, high = fmt.qmin - zero, fmt.qmax - zero
    exact = aim / step
    starts = (exact.round().clamp(low, high), _learned(aim, gram, step, low, high))
    found = [_descended(codes, exact, gram, step, low, high) for codes in starts]
    errors = [_quadratic((codes - exact) * step, gram).sum(-1, keepdim=True) for codes in found]
    return torch.where(errors[0] <= errors[1], found[0], found[1])


def _quadratic(difference: Tensor, gram: Tensor) -> Tensor:
    return torch.matmul(difference, gram) * difference


def _learned(aim: Tensor, gram: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Codes whose rounding up or down is learned."""
    exact = (aim / step).clamp(low, high)
    floor = exact.floor()
    start = torch.logit(((exact - floor) - STRETCH[1]) / STRETCH[0])
    unit = _quadratic((exact.round() - exact) * step, gram).sum().clamp(min=1e-30)
    with torch.enable_grad():
        choice = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([choice], lr=RATE)
        for at in range(STEPS):
            up = (torch.sigmoid(choice) * STRETCH[0] + STRETCH[1]).clamp(0, 1)
            codes = torch.minimum(floor + up, high)
            loss = _quadratic(codes * step - aim, gram).sum() / unit
            done = (at / STEPS - WARM_UP) / (1 - WARM_UP)
            if done > 0:
                power = SHARPEST + (FLATTEST - SHARPEST) * done
                loss = loss + done * (1 - (2 * up - 1).abs().pow(power)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return torch.minimum(floor + (choice.detach() >= 0), high)


def _descended(
    codes: Tensor, exact: Tensor, gram: Tensor, step: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Codes after passes in which each is set to its best, given all others."""
    codes = codes.clone()
    slope = torch.matmul((codes - exact) * step, gram)
    for _ in range(SWEEPS):
        changed = False
        for k in range(codes.shape[-1]):
            best = codes[..., k] - slope[..., k] / (gram[:, k, k, None] * step[..., k])
            best = best.round().clamp(low[..., k], high[..., k])
            move = (best - codes[..., k]) * step[..., k]
            if bool(move.any()):
                changed = True
                codes[..., k] = best
                slope += move[..., None] * gram[:, None, k, :]
        if not changed:
            break
    return codes


__all__ = ["adaround_"]
