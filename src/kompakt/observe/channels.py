"""The largest magnitude of every channel of an edge, exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kompakt.observe.histogram import Floats


@dataclass(kw_only=True, eq=False)
class ChannelMagnitudes:
    """Largest magnitude per channel.

    Attributes:
        absmax: float64 ``(channels,)``; ``None`` while nothing was seen, or when it is not known.
        varied: Whether tensors disagreed about the number of channels; then there is no answer.
    """

    absmax: Floats | None = None
    varied: bool = False

    def merge(self, other: ChannelMagnitudes) -> ChannelMagnitudes:
        """The magnitudes over both; exact, in any order."""
        if self.varied or other.varied:
            return ChannelMagnitudes(varied=True)
        if self.absmax is None or other.absmax is None:
            return ChannelMagnitudes(absmax=other.absmax if self.absmax is None else self.absmax)
        if self.absmax.shape != other.absmax.shape:
            return ChannelMagnitudes(varied=True)
        return ChannelMagnitudes(absmax=np.maximum(self.absmax, other.absmax))

    def silent(self) -> list[int] | None:
        """Channels whose every value was exactly 0; ``None`` when not known."""
        if self.absmax is None:
            return None
        return [int(channel) for channel in np.flatnonzero(self.absmax == 0.0)]
