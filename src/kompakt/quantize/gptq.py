"""GPTQ: weights are rounded one column after the other, and those still to be rounded make up for the error.

What it does
    For each layer, the second moments of its inputs say which errors of weights cancel in the output. Columns are
    rounded in the order of how much they matter; after each, the remaining ones move to where they cancel most of its
    error. Grids are searched on the moved weights (see ``weight_ranges``), when the turn comes to a group. Layers are
    taken in the order they run in, each fed by the rounded ones before it, and half of the way back to the float
    output is asked of it. A bias takes the mean error. What rounding to nearest does better on samples that were held
    out stays rounded to nearest.
When to use
    Weights of 4 bits and fewer, weight-only as well as static. Layers whose inputs are correlated gain most (behind a
    GELU or ReLU, wide layers); depthwise convolutions gain little.
Cost
    One float and one simulated pass over the samples; per layer K³ operations for K inputs of an output and O·K² for O
    outputs, twice (two dampings). The activations between two layers and one layer's moments (5 K² numbers) are held.
Formula
    H = E[x xᵀ] + δ·mean(diag E[x xᵀ])·I, δ the better of 0.01 and 0.1 on held-out samples; x the input, less its mean
    where the layer has a bias. Target: W + ½ W E[(z − x) xᵀ] H⁻¹, z the float network's input. With UᵀU = H⁻¹ (U upper
    triangular), for each column c: e = (w_c − q(w_c)) / U_cc, w_k ← w_k − e U_ck for k > c. A column's importance for
    its grid is 1 / U_cc²: what its error costs after the others made up for what they can.
Limits
    Linear layers and convolutions with one scale per output channel or per group of input features, called once.
    Eight samples or more; ten rows (tokens, positions) per input of the layer are better.
Reference
    Frantar et al., GPTQ, arXiv:2210.17323; Li et al., GPTAQ, arXiv:2504.02692 (asymmetric calibration; here the exact
    solution, half of it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.numerics.formats import Format, get_format
from kompakt.progress import track
from kompakt.quantize.layers import Treated, fix_grid_, grid_of
from kompakt.quantize.method import Batches
from kompakt.quantize.quantizer import stage
from kompakt.quantize.second_moments import Moments, Pair, as_matrices, moments_of
from kompakt.quantize.weight_ranges import best_grid, can_search, group_columns, rounded_codes

DAMPINGS = (0.01, 0.1)
"""Parts of the mean diagonal added to the diagonal of the Gram matrix; the better on held-out data is taken."""
CORRECTION = 0.5
"""How much of the error of the layers before is asked of a layer: all of it fits the calibration data too closely."""
BLOCK = 64
"""Columns after which the error is handed on to all remaining ones."""


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """Weights on a grid.

    Attributes:
        values: float32, (G, O / G, K).
        scale: (G, O / G, groups of columns).
        zero: Zero points as floats, the same shape.
    """

    values: Tensor
    scale: Tensor
    zero: Tensor


def compensate_(placed: Network, reference: Network, batches: Batches) -> int:
    """Decide the weight codes of every treated linear layer and convolution, in place.

    Args:
        placed: A placed network whose quantizers have ranges; not frozen.
        reference: The float network it was placed from.
        batches: Samples, a hundred or so.

    Returns:
        How many layers were decided.
    """
    calls = Counter(str(n.target) for n in placed.graph.nodes if n.op == "call_module")
    pairs = [Pair(placed, reference, list(inputs)) for inputs in batches]
    known: tuple[object, tuple[Moments, Moments] | None] = (None, None)
    decided = 0
    with torch.no_grad(), stage(placed, "simulate"):
        for node in track(list(placed.graph.nodes), "rounding with compensation"):
            layer = _layer(placed, node)
            if pairs and layer is not None and calls[str(node.target)] == 1:
                key = (node.args[0], _reading(layer))
                if key != known[0]:
                    known = key, moments_of(layer, node, pairs)
                assert known[1] is not None
                _decide_(layer, reference.get_submodule(str(node.target)), *known[1])
                decided += 1
            for pair in pairs:
                pair.run(node)
    return decided


def _layer(placed: Network, node: Node) -> Treated | None:
    if kind_of(node) not in ("linear", "conv") or node.op != "call_module":
        return None
    layer = placed.get_submodule(str(node.target))
    return layer if isinstance(layer, Treated) and can_search(layer) else None


def _reading(layer: nn.Module) -> tuple[object, ...]:
    """How a layer reads its input: layers that do it alike share moments."""
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return tuple(getattr(layer, name, None) for name in names)


def _decide_(layer: Treated, exact: nn.Module, fit: Moments, check: Moments) -> None:
    """Round one layer's weights, in place.

    Args:
        layer: The layer.
        exact: The float layer.
        fit: Moments to round by.
        check: Moments of held-out samples.
    """
    bias = getattr(exact, "bias", None)
    centred = fit if bias is None else fit.centred()
    judged = check if bias is None else check.centred()
    groups = int(getattr(layer, "groups", 1))
    wanted = as_matrices(exact.weight.detach().float(), groups)  # type: ignore[operator]
    nearest = as_matrices(layer.treated_weight().detach(), groups)
    least, best = judged.error(wanted, nearest), None
    fmt, symmetric = get_format(str(layer.treatment.weight)), layer.treatment.symmetric_weight
    for damping in DAMPINGS:
        found = _rounded(wanted, centred, damping, group_columns(layer), fmt, symmetric)
        error = least if found is None else judged.error(wanted, found.values)
        if error < least:
            least, best = error, found
    if best is not None:
        for_shape = grid_of(layer)
        layer.weight = nn.Parameter(
            best.values.reshape(layer.weight.shape), layer.weight.requires_grad
        )
        grid = zip((best.scale, best.zero), for_shape, strict=True)
        fix_grid_(layer, *(new.reshape(old.shape).to(old.dtype) for new, old in grid))
    if bias is not None:
        values = nearest if best is None else best.values
        shift = _times(wanted, fit.exact_mean) - _times(values, fit.mean)
        layer.bias = nn.Parameter((bias + shift.flatten()).float(), bias.requires_grad)


def _times(weight: Tensor, mean: Tensor) -> Tensor:
    """The mean output: (G, O / G)."""
    return (weight.double() @ mean[:, :, None])[:, :, 0]


def _rounded(
    wanted: Tensor,
    moments: Moments,
    damping: float,
    groups: Sequence[slice],
    fmt: Format,
    symmetric: bool,
) -> Rounded | None:
    """Weights rounded with one damping; None where the moments cannot be inverted."""
    mean = moments.gram.diagonal(dim1=1, dim2=2).mean(1)
    floor = float(mean.max()) * 1e-6
    if not floor > 0.0:
        return None
    added = (damping * mean).clamp(min=floor)[:, None, None]
    gram = moments.gram + added * torch.eye(moments.gram.shape[-1], dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if bool(failed.any()):
        return None
    astray = wanted.double() @ (moments.cross - moments.gram)
    back = torch.cholesky_solve(astray.mT, factor).mT
    target = (wanted + CORRECTION * back).float()
    return round_with_feedback(target, gram, groups, fmt, symmetric=symmetric)


def round_with_feedback(
    target: Tensor, gram: Tensor, groups: Sequence[slice], fmt: Format, *, symmetric: bool
) -> Rounded:
    """Round weights column by column; the remaining columns make up for the error.

    Args:
        target: float32 weights (G, O / G, K).
        gram: Positive definite, float64 (G, K, K).
        groups: The columns that share a scale.
        fmt: An integer format.
        symmetric: Whether the zero point is that of symmetric weights.
    """
    order, lengths, turns = _order(gram.diagonal(dim1=1, dim2=2), groups)
    feedback = _inverse_root(_along(_along(gram, order, 1), order, 2)).float()
    left = _along(target, order, 2).clone()
    scales = target.new_empty(*target.shape[:2], len(groups))
    zeros = torch.empty_like(scales)
    start = 0
    for turn, length in zip(turns, lengths, strict=True):
        stop = start + length
        own = feedback[:, start:stop, start:stop].diagonal(dim1=1, dim2=2)
        importance = own.reciprocal().square()[:, None, :]
        scale, zero = best_grid(left[:, :, start:stop], importance, fmt, symmetric=symmetric)
        scales[:, :, turn], zeros[:, :, turn] = scale, zero
        for first, last in _blocks(start, stop):
            errors = _round_block_(left, feedback, first, last, scale, zero, fmt)
            left[:, :, last:] -= errors @ feedback[:, first:last, last:]
        start = stop
    values = torch.empty_like(left)
    values.scatter_(2, order[:, None, :].expand_as(left), left)
    return Rounded(values=values, scale=scales, zero=zeros)


def _round_block_(
    left: Tensor, feedback: Tensor, first: int, last: int, scale: Tensor, zero: Tensor, fmt: Format
) -> Tensor:
    """Round some columns in place; returns their errors, (G, O / G, last − first)."""
    block = left[:, :, first:last]
    errors = torch.empty_like(block)
    for column in range(last - first):
        row = feedback[:, first + column, first + column : last]
        exact = block[:, :, column].clone()
        block[:, :, column] = rounded_codes(exact, scale, zero, fmt) * scale
        errors[:, :, column] = (exact - block[:, :, column]) / row[:, :1]
        block[:, :, column + 1 :] -= errors[:, :, column, None] * row[:, None, 1:]
    return errors


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK))


def _order(diagonal: Tensor, groups: Sequence[slice]) -> tuple[Tensor, list[int], list[int]]:
    """Columns in the order of their diagonal, groups that share a scale staying together.

    Returns:
        The order (G, K), the lengths of its runs, and the group that each run is.
    """
    turns = sorted(range(len(groups)), key=lambda i: -float(diagonal[:, groups[i]].sum()))
    runs = [diagonal[:, groups[i]].argsort(stable=True, dim=1, descending=True) for i in turns]
    order = torch.cat([run + groups[i].start for run, i in zip(runs, turns, strict=True)], 1)
    return order, [run.shape[1] for run in runs], turns


def _along(tensor: Tensor, order: Tensor, axis: int) -> Tensor:
    """Each of G tensors (…) with one axis in its own order (G, K)."""
    shape = [1] * tensor.dim()
    shape[0], shape[axis] = order.shape
    return tensor.gather(axis, order.reshape(shape).expand_as(tensor))


def _inverse_root(gram: Tensor) -> Tensor:
    """The upper triangular U with Uᵀ U = gram⁻¹, for each of G matrices."""
    lower = torch.linalg.cholesky(gram.flip(1, 2))
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype).expand_as(gram)
    inverse: Tensor = torch.linalg.solve_triangular(lower, unit, upper=False)
    return inverse.flip(1, 2)


__all__ = ["Rounded", "compensate_", "round_with_feedback"]
