"""Fake tensors for the values of an ONNX graph: shape and element type, dynamic sizes as symbols."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from kompakt.network.onnx.facts import Facts

_HINT = 7
"""The size a symbol stands for when somebody asks for a number; no size a model would have by itself."""


class Shapes:
    """Makes fake tensors.

    Args:
        facts: What is known about the graph.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.environment = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self.environment)
        self.symbols: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        first = [
            v.shape[0] for v in facts.model.graph.inputs if v.shape is not None and len(v.shape)
        ]
        self._batch = next(
            (str(d.value) for d in first if not isinstance(d, int) and d.value), None
        )

    def fake(self, value: ir.Value) -> Any:
        """A fake tensor, or None where element type or rank are unknown."""
        dtype, shape = self.facts.dtype(value), self.facts.shape(value)
        if dtype is None or shape is None:
            return None
        sizes = [
            size
            if isinstance(size, int) and size > 0
            else self._symbol(size, f"{value.name}_{axis}")
            for axis, size in enumerate(shape)
        ]
        with self.mode:
            return torch.empty(sizes, dtype=dtype)

    def fake_like(self, tensor: Tensor, name: str) -> Any:
        """A fake tensor of the rank and type of one that was seen, all of whose sizes may change."""
        sizes = [self._symbol(None, f"{name}_{axis}") for axis in range(tensor.dim())]
        with self.mode:
            return torch.empty(sizes, dtype=tensor.dtype)

    def fake_constant(self, tensor: Tensor) -> Any:
        """A fake tensor like a constant."""
        with self.mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype)

    def named(self, value: ir.Value) -> tuple[int | str, ...]:
        """Sizes, dynamic ones by name; a file that names none gets names from where they are."""
        shape = self.facts.shape(value) or ()
        return tuple(
            size
            if isinstance(size, int) and size > 0
            else self._name(size, f"{value.name}_{axis}", axis)
            for axis, size in enumerate(shape)
        )

    def _name(self, size: int | str | None, otherwise: str, axis: int) -> str:
        if isinstance(size, str) and size:
            return "batch" if size == self._batch and axis == 0 else size
        return "batch" if axis == 0 and self._batch is None else otherwise

    def _symbol(self, size: int | str | None, otherwise: str) -> Any:
        name = size if isinstance(size, str) and size else otherwise
        if name not in self.symbols:
            from torch._dynamo.source import ConstantSource  # loads PyTorch's compiler

            source = ConstantSource(name)
            hint = _HINT + len(self.symbols)
            symbol = self.environment.create_symbol(hint, source, DimDynamic.DYNAMIC)
            self.symbols[name] = self.environment.create_symintnode(
                symbol, hint=hint, source=source
            )
        return self.symbols[name]
