"""How a network is called: the names, structure, shapes and types of what goes in and out."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kompakt.network import tree


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor.

    Attributes:
        name: A Python identifier, unique among the inputs (or outputs).
        shape: Sizes; a dynamic dimension is its name (``"batch"``), or a formula of names
            (``"2*sequence"``).
        dtype: Element type.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        sizes = ", ".join(str(size) for size in self.shape)
        return f"{self.name}: {str(self.dtype).removeprefix('torch.')}[{sizes}]"


@dataclass(frozen=True, kw_only=True)
class Interface:
    """How a Network is called and what it was made from.

    Attributes:
        signature: The parameters of the model's ``forward``, without annotations.
        input_structure: Structure of the bound arguments ``{parameter name: value}``.
        constants: Position among the leaves → value, for every argument that is not a tensor.
        leaf_names: A name for every leaf of the arguments, tensor or not.
        input_specs: Name, shape and dtype of every input tensor, in placeholder order.
        output_structure: Structure of what the model returns.
        output_specs: Name, shape and dtype of every output tensor, flattened.
        ranges: Dynamic dimension → (smallest, largest) size the model accepts; ``None`` means
            unbounded.
        example: One small tensor for each input, in placeholder order.
        original_class: Qualified name of the model's class.
        notes: What the user should know about this capture, in sentences.
        renamed: Parameter or buffer name in the model → its names in the Network, where they
            differ.
        dropped: Names of parameters and buffers of the model that no operator reads.
    """

    signature: inspect.Signature
    input_structure: tree.TreeSpec
    constants: Mapping[int, Any]
    leaf_names: tuple[str, ...]
    input_specs: tuple[TensorSpec, ...]
    output_structure: tree.TreeSpec
    output_specs: tuple[TensorSpec, ...]
    ranges: Mapping[str, tuple[int, int | None]]
    example: tuple[Tensor, ...]
    original_class: str
    notes: tuple[str, ...] = ()
    renamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    def replace(self, **changes: Any) -> Interface:
        """The same interface with some fields changed."""
        return dataclasses.replace(self, **changes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Interface:
        return self

    def bound(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """Arguments by parameter name, from one tensor for each input."""
        rest = iter(tensors)
        leaves = [
            self.constants[i] if i in self.constants else next(rest)
            for i in range(len(self.leaf_names))
        ]
        arguments: dict[str, Any] = tree.unflatten(leaves, self.input_structure)
        return arguments


def bind(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments by parameter name, in the order of the signature.

    Raises:
        TypeError: When the arguments do not fit the signature.
    """
    return dict(signature.bind(*args, **kwargs).arguments)


def call_arguments(
    signature: inspect.Signature, bound: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for a call, from arguments by parameter name."""
    arguments = inspect.BoundArguments(signature, dict(bound))
    return arguments.args, arguments.kwargs


def plain_signature(forward: Any) -> inspect.Signature:
    """The signature of ``forward`` without annotations, so that it can be copied and stored."""
    signature = inspect.signature(forward)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return inspect.Signature(parameters)
