"""The weight grid of a layer that rounds with the least error."""

from __future__ import annotations

import torch
from torch import Tensor

from kompakt.numerics.formats import get_format
from kompakt.quantize.layers import Treated, grid_of
from kompakt.quantize.weight_ranges import best_grid, can_search, group_columns


def least_error_grid(
    layer: Treated, weight: Tensor | None = None, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of least error; those a method fixed before, or the full range's where none can be searched.

    Args:
        layer: A treated layer that is not frozen.
        weight: What is to be rounded, (O, K); the layer's own weights when None.
        importance: What a squared error costs, (O, K); the same everywhere when None.

    Returns:
        As :func:`kompakt.quantize.layers.weight_parameters` gives them.
    """
    scale, zero_point = (parameter.clone() for parameter in grid_of(layer))
    if layer.grid_scale is not None or not can_search(layer):
        return scale, zero_point
    fmt, symmetric = get_format(str(layer.treatment.weight)), layer.treatment.symmetric_weight
    rows = layer.weight.detach().flatten(1) if weight is None else weight
    cost = torch.ones_like(rows) if importance is None else importance
    for index, columns in enumerate(group_columns(layer)):
        best = best_grid(rows[:, columns], cost[:, columns], fmt, symmetric=symmetric)
        for kept, new in zip((scale, zero_point), best, strict=True):
            kept.view(len(rows), -1)[:, index] = new.to(kept.dtype)
    return scale, zero_point


__all__ = ["least_error_grid"]
