"""The table of ATen calls with an ONNX form, and what the forms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from kompakt.network.operators import value
from kompakt.targets.onnx_emitter import Form, dtype_of

FORMS: dict[str, Form] = {}
"""Operator name (``aten.add``) to its form; the modules ``onnx_*_forms`` fill it."""


def form(*names: str) -> Callable[[Form], Form]:
    """Decorator: this function writes the operators of these names."""

    def register(function: Form) -> Form:
        FORMS.update(dict.fromkeys(names, function))
        return function

    return register


def rank_of(node: fx.Node) -> int:
    """The number of dimensions of a node's tensor."""
    return int(value(node).dim())


def element_type(node: fx.Node) -> torch.dtype:
    """The element type of a node's tensor."""
    found = dtype_of(node)
    assert found is not None
    return found


def common_type(*arguments: Any) -> torch.dtype:
    """The element type PyTorch computes these operands in."""
    fakes = [value(a) for a in arguments]
    tensors = [f for f in fakes if isinstance(f, Tensor)]
    result = tensors[0].dtype
    for a in fakes:
        for b in fakes:
            if isinstance(a, Tensor):
                number = b if isinstance(b, Tensor | int | float | bool) else 1
                result = torch.promote_types(result, torch.result_type(a, number))
    return result


def spread(setting: Any, count: int) -> list[int]:
    """A setting of a window for each of its dimensions."""
    numbers = [setting] * count if isinstance(setting, int) else [int(n) for n in setting]
    return numbers * count if len(numbers) == 1 and count > 1 else numbers
