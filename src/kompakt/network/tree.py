"""Nested inputs and outputs, taken apart and put together again.

PyTorch registers every container that ``torch.export`` understands (dict, tuple, named tuple,
dataclasses, the output classes of transformers) in one registry and offers no public door to it.
This file is the only one that opens the private one; everything else in kompakt uses the functions
below.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from torch.utils import _pytree as pytree

TreeSpec = pytree.TreeSpec


def flatten(tree: Any) -> tuple[list[Any], TreeSpec]:
    """The leaves of ``tree`` in order, and its structure."""
    return pytree.tree_flatten(tree)


def unflatten(leaves: list[Any], structure: TreeSpec) -> Any:
    """The inverse of :func:`flatten`."""
    return pytree.tree_unflatten(leaves, structure)


def leaf_names(tree: Any, alone: str) -> list[str]:
    """A distinct identifier for every leaf, made from its path: ``{"a": (x, y)}`` gives ``a_0``,
    ``a_1``.

    Args:
        tree: Any nested container.
        alone: The name of a leaf without a path (``tree`` is itself a leaf), and the prefix of
            purely numeric paths.
    """
    names: list[str] = []
    for path, _ in pytree.tree_flatten_with_path(tree)[0]:
        words = [re.sub(r"\W+", "_", _key_text(key)).strip("_") for key in path]
        name = "_".join(word for word in words if word) or alone
        name = f"{alone}_{name}" if name[0].isdigit() else name
        names.append(_distinct(name, names))
    return names


def register_dataclasses(tree: Any) -> None:
    """Make every dataclass inside ``tree`` that PyTorch does not know yet a container it can see
    into.
    """
    leaves = flatten(tree)[0]
    for leaf in leaves:
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            torch.export.register_dataclass(type(leaf))
            register_dataclasses(leaf)


def _key_text(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _distinct(name: str, taken: list[str]) -> str:
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"
