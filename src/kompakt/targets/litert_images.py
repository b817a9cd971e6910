"""Images as TFLite's kernels want them: batch, height, width, channels. A sequence is an image of height 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from kompakt.network.operators import fixed_size, value
from kompakt.targets.litert_emitter import Emitter, Grid, Value, channels_last


@dataclass(frozen=True)
class Image:
    """The image an operator makes, and the tensor of the network it stands for.

    Attributes:
        value: Rank 4, channels last.
        result: What readers get: the same, or a sequence.
    """

    value: Value
    result: Value

    @staticmethod
    def behind(e: Emitter, node: fx.Node, grid: Grid | None) -> Image:
        """The image that a call makes."""
        rank = value(node).dim()
        result = e.result(node, channels_last(rank), grid)
        if rank == 4:
            return Image(result, result)
        name = f"{e.tensors[result.tensor].name}_image"
        image = e.new(_lifted(value(node).shape), channels_last(4), grid=grid, name=name)
        return Image(image, result)

    def close(self, e: Emitter, node: fx.Node) -> Value:
        """Make the sequence out of the image, where it is one."""
        if self.result is not self.value:
            shape = value(node).shape
            sizes = [fixed_size(shape[d]) for d in self.result.order]
            e.reshape(self.value, self.result, sizes)
        return self.result


def as_image(e: Emitter, node: fx.Node, spatial: int) -> Value:
    """The value of a node as an image of rank 4, channels last."""
    found = e.get(node, channels_last(spatial + 2))
    if spatial == 2:
        return found
    shape = _lifted(value(node).shape)
    order = channels_last(4)
    name = f"{e.tensors[found.tensor].name}_image"
    made = e.new(shape, order, grid=found.grid, dtype=found.dtype, name=name)
    e.reshape(found, made, [fixed_size(shape[d]) for d in order])
    return made


def _lifted(shape: Any) -> list[Any]:
    return [shape[0], shape[1], 1, shape[2]]
