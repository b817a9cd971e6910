"""How many scales a tensor has: one, one a channel, one a group of neighbours, or one a token.

Every granularity answers three questions: what shape the scales have, what the extremes of each
scale's elements are, and how scales are laid back over the tensor. Scales keep the tensor's rank
where they vary along several axes, so that they print and slice like the tensor they belong to.

================== ==================== ====================
granularity        tensor (8, 70)       scale and zero point
================== ==================== ====================
``PerTensor()``    one                  ``()``
``PerChannel(0)``  one a row            ``(8,)``
``PerGroup(1,32)`` one a run of 32      ``(8, 3)``: the last group has 6 elements
``PerToken()``     one a last-axis row  ``(8, 1)``
================== ==================== ====================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kompakt.errors import NumericsError, SchemeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor; parameters have shape ``()``."""

    def parameter_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """``()`` whatever the tensor's shape."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """Plain data that :func:`granularity_from_json` reads back."""
        return {"kind": "per_tensor"}


@dataclass(frozen=True)
class PerChannel:
    """One scale for every index along ``axis``; parameters have shape ``(C,)``.

    Attributes:
        axis: The channel axis; negative counts from the end.
    """

    axis: int

    def parameter_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """``(shape[axis],)``."""
        return (shape[resolve_axis(self.axis, shape)],)

    def to_json(self) -> dict[str, Any]:
        """Plain data that :func:`granularity_from_json` reads back."""
        return {"kind": "per_channel", "axis": self.axis}


@dataclass(frozen=True)
class PerGroup:
    """One scale for every run of ``size`` elements along ``axis``.

    A length that ``size`` does not divide is allowed: the last group is shorter. Parameters have
    the tensor's shape with ``ceil(n / size)`` in place of ``n`` at ``axis``.

    Attributes:
        axis: The axis that is cut into groups; negative counts from the end.
        size: Elements in one group, at least 1.
    """

    axis: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SchemeError(
                "K303",
                f"groups of {self.size} elements",
                why="a group has at least one element",
                help="use a group size such as 32, 64 or 128",
            )

    def parameter_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The tensor's shape with the number of groups at ``axis``."""
        axis = resolve_axis(self.axis, shape)
        return (*shape[:axis], -(-shape[axis] // self.size), *shape[axis + 1 :])

    def to_json(self) -> dict[str, Any]:
        """Plain data that :func:`granularity_from_json` reads back."""
        return {"kind": "per_group", "axis": self.axis, "size": self.size}


@dataclass(frozen=True)
class PerToken:
    """One scale for every row of the last axis; parameters have shape ``(*shape[:-1], 1)``."""

    def parameter_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The tensor's shape with 1 as its last axis."""
        resolve_axis(-1, shape)
        return (*shape[:-1], 1)

    def to_json(self) -> dict[str, Any]:
        """Plain data that :func:`granularity_from_json` reads back."""
        return {"kind": "per_token"}


Granularity = PerTensor | PerChannel | PerGroup | PerToken

_KINDS: dict[str, type[PerTensor] | type[PerChannel] | type[PerGroup] | type[PerToken]] = {
    "per_tensor": PerTensor,
    "per_channel": PerChannel,
    "per_group": PerGroup,
    "per_token": PerToken,
}


def granularity_from_json(data: Mapping[str, Any]) -> Granularity:
    """Read what ``to_json`` wrote.

    Raises:
        SchemeError: K305 for an unknown kind, and for missing, unknown or non-integer settings.
    """
    settings = dict(data)
    kind = settings.pop("kind", None)
    if kind not in _KINDS:
        raise SchemeError(
            "K305",
            f"the granularity {kind!r}",
            why="no granularity has that name",
            help=f"use one of {', '.join(_KINDS)}",
        )
    wanted = tuple(_KINDS[kind].__dataclass_fields__)
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in settings.values())
    if set(settings) != set(wanted) or not whole:
        raise SchemeError(
            "K305",
            f"the granularity {dict(data)!r}",
            why=f"{kind} takes {', '.join(wanted) or 'no settings'}"
            + (", each a whole number" if wanted else ""),
        )
    return _KINDS[kind](**settings)


def resolve_axis(axis: int, shape: Sequence[int]) -> int:
    """The non-negative form of ``axis`` for a tensor of that shape.

    Raises:
        NumericsError: K303 when the tensor has no such axis.
    """
    rank = len(shape)
    if not -rank <= axis < rank:
        raise NumericsError(
            "K303",
            f"axis {axis} of a tensor of shape {tuple(shape)}",
            why=f"it has {rank} axes",
            help="choose an axis the tensor has, or PerTensor()",
        )
    return axis % rank


def extremes(x: Tensor, granularity: Granularity) -> tuple[Tensor, Tensor]:
    """Smallest and largest element under each scale.

    Args:
        x: Any real tensor. NaN anywhere makes both extremes of its scale NaN.
        granularity: Which elements share a scale.

    Returns:
        ``lo`` and ``hi`` of shape ``granularity.parameter_shape(x.shape)`` and the dtype of ``x``.
        Where a scale has no elements at all (an empty tensor) both are 0.
    """
    shape = granularity.parameter_shape(x.shape)
    if x.numel() == 0:
        return x.new_zeros(shape), x.new_zeros(shape)
    match granularity:
        case PerTensor():
            lo, hi = x.aminmax()
            return lo, hi
        case PerChannel(axis):
            rows = x.movedim(axis, 0).reshape(shape[0], -1)
            lo, hi = rows.aminmax(dim=1)
            return lo, hi
        case PerGroup(axis, size):
            return _group_extremes(x, resolve_axis(axis, x.shape), size)
        case PerToken():
            lo, hi = x.aminmax(dim=-1, keepdim=True)
            return lo, hi


def expand(parameter: Tensor, shape: Sequence[int], granularity: Granularity) -> Tensor:
    """Lay scales (or zero points) over a tensor.

    Args:
        parameter: Shape ``granularity.parameter_shape(shape)``.
        shape: Shape of the tensor the parameter belongs to.
        granularity: Which elements share a scale.

    Returns:
        A tensor of the parameter's dtype that broadcasts against ``shape``.

    Raises:
        NumericsError: K303 when the parameter has another shape.
    """
    wanted = granularity.parameter_shape(shape)
    if tuple(parameter.shape) != wanted and not (wanted == () and parameter.numel() == 1):
        raise NumericsError(
            "K303",
            f"parameters of shape {tuple(parameter.shape)} for a tensor of shape {tuple(shape)}",
            why=f"{granularity} needs shape {wanted}",
        )
    match granularity:
        case PerTensor():
            return parameter.reshape(())
        case PerChannel(axis):
            view = [1] * len(shape)
            view[resolve_axis(axis, shape)] = -1
            return parameter.reshape(view)
        case PerGroup(axis, size):
            axis = resolve_axis(axis, shape)
            return parameter.repeat_interleave(size, axis).narrow(axis, 0, shape[axis])
        case PerToken():
            return parameter


def _group_extremes(x: Tensor, axis: int, size: int) -> tuple[Tensor, Tensor]:
    length = x.shape[axis]
    whole = length - length % size
    head = x.narrow(axis, 0, whole)
    head = head.reshape(*x.shape[:axis], whole // size, size, *x.shape[axis + 1 :])
    parts = [head.aminmax(dim=axis + 1)] if whole else []
    if whole < length:
        rest = x.narrow(axis, whole, length - whole)
        parts.append(rest.aminmax(dim=axis, keepdim=True))
    if len(parts) == 1:
        return parts[0][0], parts[0][1]
    import torch

    return torch.cat([p[0] for p in parts], axis), torch.cat([p[1] for p in parts], axis)
