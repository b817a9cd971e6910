"""The quantizer: a module on a site that simulates exactly what the target computes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from kompakt.errors import SchemeError
from kompakt.numerics.affine import choose_qparams, quantize
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import Granularity, PerChannel, PerGroup, PerTensor
from kompakt.numerics.ops import PER_TENSOR

Stage = Literal["simulate", "write", "off"]
FILE_ROUNDING = "divide_even"
"""The rounding of ``kompakt::quantize``, which is what is written to files."""


class Quantizer(nn.Module):
    """Maps a tensor to the grid of a format and back.

    Attributes:
        site: The dotted name of the tensor it treats.
        format: Name of the integer format of its codes.
        granularity: How many scales it has.
        symmetric: Whether its zero point is fixed (0 for signed formats).
        rounding: Name of the target's rounding formula.
        arithmetic: Name of the way the target's kernels scale their sums to these codes.
        fixed: Whether the runtime fixes its scale, so that no range changes it.
        stage: ``simulate`` computes float to float with a straight-through gradient; ``write`` emits a
            quantize/dequantize pair for the exporter; ``off`` passes the tensor through.
        scale: float32, one value or one per channel; ``None`` while not calibrated.
        zero_point: Same shape, in the format's storage dtype; ``None`` while not calibrated.
    """

    scale: Tensor | None
    zero_point: Tensor | None

    def __init__(
        self,
        site: str,
        format_name: str,
        granularity: Granularity | None = None,
        *,
        symmetric: bool,
        rounding: str,
    ) -> None:
        super().__init__()
        self.site, self.format, self.rounding = site, get_format(format_name), rounding
        self.granularity = granularity or PerTensor()
        self.symmetric = symmetric
        self.arithmetic, self.fixed = "float32", False
        self.stage: Stage = "simulate"
        self.register_buffer("scale", None)
        self.register_buffer("zero_point", None)

    @property
    def calibrated(self) -> bool:
        """Whether it has a scale."""
        return self.scale is not None

    @property
    def axis(self) -> int:
        """The channel axis as the operators want it."""
        granularity = self.granularity
        if isinstance(granularity, PerChannel | PerGroup):
            return granularity.axis
        return PER_TENSOR

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Choose scale and zero point so that [low, high] is covered (0 is always included).

        Args:
            low: Smallest value(s), one or one per channel.
            high: Largest value(s), same shape.
        """
        if self.fixed:
            return
        scale, zero_point = choose_qparams(low, high, self.format, symmetric=self.symmetric)
        self.set_parameters(scale, zero_point)

    def set_parameters(self, scale: Tensor, zero_point: Tensor) -> None:
        """Use this scale (float32) and zero point (any integer dtype)."""
        self.scale = scale.to(torch.float32)
        self.zero_point = zero_point.to(self.format.torch_dtype)

    def represented_range(self) -> tuple[float, float]:
        """The smallest and largest value its codes stand for."""
        scale, zero_point = self.parameters_()
        z = zero_point.to(torch.float64)
        low = (self.format.qmin - z) * scale.double()
        high = (self.format.qmax - z) * scale.double()
        return float(low.min()), float(high.max())

    def parameters_(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point.

        Raises:
            SchemeError: K343 when it was never calibrated.
        """
        if self.scale is None or self.zero_point is None:
            raise SchemeError(
                "K343",
                f"using the quantizer of {self.site}",
                why="it has no scale: nothing was calibrated",
                help="call calibrate(...) with a few batches first",
            )
        return self.scale, self.zero_point

    def codes(self, x: Tensor) -> Tensor:
        """The integer codes of ``x`` in the format's storage dtype, same shape."""
        scale, zero_point = self.parameters_()
        fmt = self.format
        if self.stage != "write" and self.rounding != FILE_ROUNDING:
            return quantize(x, scale, zero_point, fmt, self.granularity, self.rounding)
        codes: Tensor = torch.ops.kompakt.quantize(
            x, scale, zero_point, int(fmt.qmin), int(fmt.qmax), self.axis
        )
        return codes

    def forward(self, x: Tensor) -> Tensor:
        """Round ``x`` to the grid; same shape and dtype."""
        if self.stage == "off":
            return x
        scale, zero_point = self.parameters_()
        fmt = self.format
        if self.stage == "write":
            pair: Tensor = torch.ops.kompakt.dequantize(self.codes(x), scale, zero_point, self.axis)
            return pair
        rounded: Tensor = torch.ops.kompakt.qdq(
            x, scale, zero_point, int(fmt.qmin), int(fmt.qmax), self.axis, self.rounding
        )
        return rounded

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{self.site}, {self.format.name}, {self.granularity}, calibrated={self.calibrated}"


@contextmanager
def stage(network: nn.Module, value: Stage) -> Iterator[None]:
    """Put every quantizer (and quantized layer) of ``network`` in a stage for a while."""
    staged = [m for m in nn.Module.modules(network) if hasattr(m, "stage")]
    before = [m.stage for m in staged]
    for module in staged:
        module.stage = value  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, old in zip(staged, before, strict=True):
            module.stage = old
