"""Windows of convolutions and pools: which padding TFLite's ``SAME`` means, and an explicit ``PAD`` for any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from kompakt.network.operators import arguments, fixed_size
from kompakt.targets.litert_emitter import Emitter, Value

Amounts = list[tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """How a kernel walks over its spatial dimensions.

    Attributes:
        stride: One for each.
        dilation: One for each.
        same: Whether the operator pads by itself.
        pads: What has to be added before it, at the start and the end of each dimension.
    """

    stride: list[int]
    dilation: list[int]
    same: bool
    pads: Amounts


def spread(setting: Any, count: int) -> list[int]:
    """A setting given once, or for each dimension."""
    numbers = [setting] if isinstance(setting, int) else [int(n) for n in setting]
    return numbers * count if len(numbers) == 1 else numbers


def window(
    before: Sequence[Any],
    after: Sequence[Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    pads: Amounts,
) -> Window:
    """The window of a kernel.

    Args:
        before: Spatial sizes that are read.
        after: Spatial sizes that result.
        kernel: Sizes of the kernel.
        stride: Its steps.
        dilation: Its gaps.
        pads: Padding at the start and the end of each dimension.
    """
    needed: Amounts = []
    same: Amounts = []
    for size, result, k, s, d, (start, end) in zip(
        before, after, kernel, stride, dilation, pads, strict=True
    ):
        known, wanted = fixed_size(size), fixed_size(result)
        if known is None or wanted is None:
            needed.append((start, end))
            same.append((-1, -1))
            continue
        # What lies behind the last window is never read.
        needed.append((start, max(0, min(end, (wanted - 1) * s + (k - 1) * d + 1 - known - start))))
        total = max(0, (-(-known // s) - 1) * s + (k - 1) * d + 1 - known)
        fits = -(-known // s) == wanted
        same.append((total // 2, total - total // 2) if fits else (-1, -1))
    is_same = needed == same and any(n != (0, 0) for n in needed)
    nothing = [(0, 0)] * len(needed)
    return Window(list(stride), list(dilation), is_same, nothing if is_same else needed)


def padding_of(node: fx.Node, spatial: int) -> Amounts:
    """What a padding call adds at the start and end of the last ``spatial`` dimensions."""
    given = [int(n) for n in arguments(node)["pad"]]
    given += [0] * (2 * spatial - len(given))
    pairs = list(zip(given[0::2], given[1::2], strict=True))
    return pairs[:spatial][::-1]


def pad_spatial(
    e: Emitter, x: Value, shape: Sequence[Any], wanted: Window, filler: float | None = None
) -> Value:
    """The image with what its window needs around it.

    Args:
        e: The graph.
        x: The image, channels last, rank 4.
        shape: The network's sizes of it (without a dimension added for one-dimensional kernels).
        wanted: The window.
        filler: What it is padded with; 0 when None.
    """
    pads = [(0, 0)] * (2 - len(wanted.pads)) + wanted.pads
    if not any(start or end for start, end in pads):
        return x
    row = e.tensors[x.tensor]
    amounts = [(0, 0), *pads, (0, 0)]
    sizes = [fixed_size(shape[0]), *row.shape[1:]]
    if row.signature is not None:
        sizes = [None if n < 0 else n for n in row.signature]
    padded = [
        None if size is None else size + sum(ends)
        for size, ends in zip(sizes, amounts, strict=True)
    ]
    made = e.stored_shape(padded, x, f"{row.name}_padded")
    table = e.constant([list(ends) for ends in amounts], "int32")
    if filler is None:
        e.op("PAD", (x.tensor, table), (made.tensor,), "PadOptions")
    else:
        number = e.constant([filler], x.dtype, row.quantization)
        e.op("PADV2", (x.tensor, table, number), (made.tensor,), "PadV2Options")
    return made


__all__ = ["Window", "pad_spatial", "padding_of", "spread", "window"]
