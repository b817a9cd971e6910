"""Example inputs: from what the user passed to what is exported, with the dimensions that may
change.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kompakt.errors import CaptureError, DataError
from kompakt.network import tree
from kompakt.network.interface import bind


@dataclass(frozen=True, kw_only=True)
class Example:
    """Example inputs, taken apart.

    Attributes:
        signature: Parameters of ``forward``.
        leaves: Every leaf of the bound arguments, tensors and others.
        structure: Their structure as ``{parameter: value}``.
        names: One identifier for each leaf.
        dynamic: Leaf position → {axis: dimension name}.
    """

    signature: inspect.Signature
    leaves: tuple[Any, ...]
    structure: tree.TreeSpec
    names: tuple[str, ...]
    dynamic: Mapping[int, Mapping[int, str]]

    @property
    def bound(self) -> dict[str, Any]:
        """Arguments by parameter name."""
        arguments: dict[str, Any] = tree.unflatten(list(self.leaves), self.structure)
        return arguments

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensor leaves, in order."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names of the tensor leaves, in order."""
        pairs = zip(self.names, self.leaves, strict=True)
        return tuple(name for name, leaf in pairs if isinstance(leaf, Tensor))

    @property
    def tensor_axes(self) -> tuple[Mapping[int, str], ...]:
        """For each tensor leaf, its dynamic axes by dimension name."""
        return tuple(
            self.dynamic.get(i, {})
            for i, leaf in enumerate(self.leaves)
            if isinstance(leaf, Tensor)
        )

    def bound_to(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """Arguments by parameter name, with other tensors in place of the example's."""
        rest = iter(tensors)
        leaves = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        arguments: dict[str, Any] = tree.unflatten(leaves, self.structure)
        return arguments


def read_example(
    signature: inspect.Signature,
    example_inputs: Any,
    dynamic: Mapping[str, Mapping[int, str]] | None,
    batch_dim: int | None,
    floating: torch.dtype | None = None,
) -> Example:
    """Bind the user's example to the parameters of ``forward`` and decide which dimensions are
    dynamic.

    Args:
        signature: Parameters of ``forward``.
        example_inputs: A tensor, a tuple of positional or a dict of keyword inputs; numpy arrays count as tensors.
        dynamic: Input name → {axis: dimension name}.
        batch_dim: Axis of the batch in every input, or ``None`` when nothing is batched.
        floating: What float64 arrays become: it is numpy's default and seldom the model's type.

    Raises:
        CaptureError: K103 when the example does not fit ``forward``.
        DataError: K104 when ``dynamic`` names an input or axis that does not exist.
    """
    args, kwargs = _split(example_inputs)
    try:
        bound = bind(signature, args, kwargs)
    except TypeError as error:
        raise CaptureError(
            "K103", f"example inputs for forward{signature}", why=str(error)
        ) from None
    tree.register_dataclasses(bound)
    leaves, structure = tree.flatten(bound)
    leaves = _distinct([_tensor(leaf, floating) for leaf in leaves])
    names = tuple(tree.leaf_names(bound, "input"))
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise CaptureError(
            "K103", "example inputs without a tensor", why="nothing could be captured"
        )
    axes = _batch_axes(leaves, batch_dim)
    _add_requested(axes, names, leaves, dynamic or {})
    return Example(
        signature=signature,
        leaves=tuple(leaves),
        structure=structure,
        names=names,
        dynamic=axes,
    )


def widened(example: Example) -> Example:
    """The example with every dynamic dimension at least 2 long.

    ``torch.export`` treats sizes 0 and 1 as special cases that never change, so an example with a
    batch of 1 is repeated.
    """
    leaves = list(example.leaves)
    for position, axes in example.dynamic.items():
        for axis in axes:
            if leaves[position].shape[axis] == 1:
                leaves[position] = torch.cat([leaves[position]] * 2, dim=axis)
    return _with(example, leaves=tuple(leaves))


def narrowed(example: Example, size: int = 2) -> Example:
    """The example with at most ``size`` samples in the batch, so that keeping it costs nothing."""
    leaves = list(example.leaves)
    for position, axes in example.dynamic.items():
        for axis, name in axes.items():
            if name == "batch" and leaves[position].shape[axis] > size:
                leaves[position] = leaves[position].narrow(axis, 0, size).clone()
    return _with(example, leaves=tuple(leaves))


def static(example: Example) -> Example:
    """The example with no dynamic dimension."""
    return _with(example, dynamic={})


def _with(example: Example, **changes: Any) -> Example:
    values = {name: getattr(example, name) for name in Example.__dataclass_fields__}
    return Example(**{**values, **changes})


def _split(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, (Tensor, np.ndarray)):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    raise CaptureError(
        "K103",
        f"example inputs of type {type(example_inputs).__name__}",
        why="they must be a tensor, a tuple of positional or a dict of keyword inputs",
    )


def _tensor(leaf: Any, floating: torch.dtype | None) -> Any:
    """A numeric array as a tensor with a copy of its values; anything else as it is."""
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "fiubc":
        return leaf
    tensor = torch.from_numpy(leaf.astype(leaf.dtype.newbyteorder("="), order="C"))
    return tensor.to(floating) if floating and tensor.dtype == torch.float64 else tensor


def _distinct(leaves: list[Any]) -> list[Any]:
    """The leaves, with a copy where one tensor was passed twice: each input has sizes of its own."""
    seen: set[int] = set()
    distinct = []
    for leaf in leaves:
        repeated = isinstance(leaf, Tensor) and id(leaf) in seen
        seen.add(id(leaf))
        distinct.append(leaf.clone() if repeated else leaf)
    return distinct


def _batch_axes(leaves: list[Any], batch_dim: int | None) -> dict[int, dict[int, str]]:
    """Every tensor whose size along ``batch_dim`` is that of the first tensor has it dynamic."""
    if batch_dim is None:
        return {}
    candidates = {
        i: leaf.shape[batch_dim]
        for i, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf.ndim > batch_dim
    }
    if not candidates:
        return {}
    batch = next(iter(candidates.values()))
    return {i: {batch_dim: "batch"} for i, size in candidates.items() if size == batch}


def _add_requested(
    axes: dict[int, dict[int, str]],
    names: tuple[str, ...],
    leaves: list[Any],
    dynamic: Mapping[str, Mapping[int, str]],
) -> None:
    for name, wanted in dynamic.items():
        if name not in names or not isinstance(leaves[names.index(name)], Tensor):
            tensors = [n for n, leaf in zip(names, leaves, strict=True) if isinstance(leaf, Tensor)]
            raise DataError(
                "K104",
                f"dynamic dimensions for input '{name}'",
                why="there is no such input tensor",
                help=f"inputs are: {', '.join(tensors)}",
            )
        position = names.index(name)
        for axis, dimension in wanted.items():
            rank = leaves[position].ndim
            if not -rank <= axis < rank:
                raise DataError(
                    "K104",
                    f"dynamic axis {axis} of input '{name}'",
                    why=f"its shape is {list(leaves[position].shape)}",
                )
            axes.setdefault(position, {})[axis % rank] = dimension
