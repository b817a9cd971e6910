"""One pass over the data that fills the statistics of every site."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, fx, nn

from kompakt.errors import DataError
from kompakt.observe.batches import Batch, InputBinding
from kompakt.observe.edge_summary import BlockSampler, EdgeSummary, fingerprints
from kompakt.observe.histogram import Floats
from kompakt.observe.input_scalars import InputScalars, describe
from kompakt.observe.statistics import EdgeStatistics, SampleExtremes
from kompakt.observe.taps import TapContext, observing
from kompakt.progress import note, track

MICRO_BATCH = 8
"""Samples that go through the network at once, unless told otherwise."""

_PENDING_VALUES = 1 << 21
_FEW_SAMPLES = 2


@dataclass(kw_only=True)
class Calibration:
    """What one pass (or several, merged) over calibration data found.

    Attributes:
        statistics: Statistics of every observed site.
        inputs: Scalars per sample of every input.
        samples: Samples seen.
        batches: Batches seen.
    """

    statistics: dict[str, EdgeStatistics] = field(default_factory=dict)
    inputs: dict[str, InputScalars] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0

    def merge(self, later: Calibration) -> Calibration:
        """A new calibration, as if ``later``'s data had followed this one's.

        Raises:
            DataError: K336 when the two did not observe the same sites and inputs.
        """
        for what, mine, others in (
            ("sites", set(self.statistics), set(later.statistics)),
            ("inputs", set(self.inputs), set(later.inputs)),
        ):
            if mine != others:
                raise DataError(
                    "K336",
                    "merging two calibrations",
                    why=f"only one of them has the {what} {', '.join(sorted(mine ^ others))}",
                )
        return Calibration(
            statistics={s: e.merge(later.statistics[s]) for s, e in self.statistics.items()},
            inputs={n: v.extend(later.inputs[n]) for n, v in self.inputs.items()},
            samples=self.samples + later.samples,
            batches=self.batches + later.batches,
        )


def calibrate(
    network: fx.GraphModule,
    taps: Mapping[str, str],
    batches: Iterable[Batch],
    *,
    max_samples: int | None = None,
    micro_batch: int | None = MICRO_BATCH,
    channels_last: bool | None = None,
) -> Calibration:
    """Stream data through a network once and remember a little of every observed edge.

    The network is run in evaluation mode without gradients and is unchanged afterwards. Memory does not
    grow with the number of samples, but for a few scalars of each of the first 2000. All observers are
    served by the one pass.

    Args:
        network: A Network, or any ``GraphModule`` with tensor placeholders and samples along dimension 0.
        taps: For each site to observe, the name of the graph node whose output it is.
        batches: Inputs without labels: a tensor, a sequence (positional) or a mapping (by name). They are
            moved to the network's device.
        max_samples: Stop after this many samples.
        micro_batch: Cut larger batches into pieces of this many samples, which is faster on CPUs; ``None``
            runs them as they come. Statistics do not depend on it, but for float rounding inside the
            network.
        channels_last: Feed images in channels-last layout. ``None`` decides: yes for a network with 2-D
            convolutions on a CPU, where it is faster. Results agree up to float rounding.

    Raises:
        DataError: K330 without data, K331 for NaN or infinity on a site, K332 in an input, K333 for batches
            that do not fit, K334 for a site that is not floating-point.
        SchemeError: K334 when a tap names no node.
    """
    binding = InputBinding(network)
    device = _device(network)
    if channels_last is None:
        channels_last = device.type == "cpu" and _has_convolutions(network)
    context = TapContext()
    runner = observing(
        network, taps, context, batch_symbol=binding.batch_symbol, layout_free=channels_last
    )
    collector = _Collector(list(taps))
    with torch.no_grad(), _evaluating(network):
        for number, tensors, samples in _pieces(batches, binding, max_samples, micro_batch):
            arranged = [_arranged(x, device, channels_last) for x in tensors]
            by_name = binding.samples_first(tensors)
            context.sampler = BlockSampler(fingerprints(list(by_name.values()), samples))
            collector.describe_inputs(by_name, number)
            collector.add(number, samples, runner(*arranged))
    return collector.finish()


def _pieces(
    batches: Iterable[Batch],
    binding: InputBinding,
    max_samples: int | None,
    micro_batch: int | None,
) -> Iterator[tuple[int, list[Tensor], int]]:
    """Yields (batch number, input tensors, samples)."""
    seen = 0
    with closing(track(batches, "calibrating")) as tracked:
        for number, batch in enumerate(tracked):
            tensors = binding.tensors(batch, number)
            samples = binding.samples(tensors, number)
            if max_samples is not None and seen + samples > max_samples:
                samples = max_samples - seen
                tensors = binding.first(tensors, samples)
            seen += samples
            for piece in binding.pieces(tensors, samples, micro_batch or samples):
                yield number, piece, binding.samples(piece, number)
            if max_samples is not None and seen >= max_samples:
                return


@dataclass
class _Pending:
    batch: int
    samples: int
    summaries: tuple[EdgeSummary | None, ...]


class _Collector:
    """Gathers summaries and enters them into the statistics a few batches at a time.

    Entering several batches at once costs one transfer from the device and one histogram per site instead
    of one per batch.
    """

    def __init__(self, sites: Sequence[str]) -> None:
        self.statistics = [EdgeStatistics(site=site) for site in sites]
        self.inputs: dict[str, InputScalars] = {}
        self.pending: list[_Pending] = []
        self.pending_values = 0
        self.samples = 0
        self.batches = 0

    def describe_inputs(self, inputs: Mapping[str, Tensor], batch: int) -> None:
        """Check the inputs of one piece for NaN and keep their scalars."""
        for name, x in inputs.items():
            known = self.inputs.get(name, InputScalars())
            if known.is_full:
                _refuse_bad_input(name, x, batch)
                continue
            scalars = describe(x)
            if not np.isfinite(scalars.rows).all():
                _refuse_bad_input(name, x, batch)
            self.inputs[name] = known.extend(scalars)

    def add(self, batch: int, samples: int, summaries: tuple[EdgeSummary | None, ...]) -> None:
        """Add what the taps took from one piece of a batch."""
        self.pending.append(_Pending(batch, samples, summaries))
        self.pending_values += sum(
            s.sampled.numel() + s.highs.numel() for s in summaries if s is not None
        )
        self.samples += samples
        self.batches = max(self.batches, batch + 1)
        if self.pending_values >= _PENDING_VALUES:
            self._flush()

    def finish(self) -> Calibration:
        """The finished calibration.

        Raises:
            DataError: K330 when there was no data.
        """
        self._flush()
        if self.samples == 0:
            raise DataError("K330", "calibrating", why="the data holds no batch")
        if self.samples < _FEW_SAMPLES:
            note("calibrated with one sample: ranges from one sample are unreliable", "calibrating")
        return Calibration(
            statistics={s.site: s for s in self.statistics},
            inputs=self.inputs,
            samples=self.samples,
            batches=self.batches,
        )

    def _flush(self) -> None:
        pending, self.pending, self.pending_values = self.pending, [], 0
        taken = [
            (index, entry, summary)
            for entry in pending
            for index, summary in enumerate(entry.summaries)
            if summary is not None
        ]
        if not taken:
            return
        lows = _to_arrays([summary.lows for _, _, summary in taken])
        highs = _to_arrays([summary.highs for _, _, summary in taken])
        of_site: dict[int, list[tuple[SampleExtremes, EdgeSummary]]] = {}
        for (index, entry, summary), low, high in zip(taken, lows, highs, strict=True):
            extremes = SampleExtremes.of(low, high, entry.samples)
            extremes.refuse_nonfinite(self.statistics[index].site, entry.batch)
            of_site.setdefault(index, []).append((extremes, summary))
        for index, mine in of_site.items():
            self.statistics[index].absorb(
                [extremes for extremes, _ in mine],
                torch.cat([summary.sampled for _, summary in mine]),
                sum(summary.values for _, summary in mine),
            )


def _to_arrays(tensors: Sequence[Tensor]) -> list[Floats]:
    """The 2-D tensors as float64 arrays, by one transfer from the device."""
    flat = torch.cat([t.flatten() for t in tensors]).double().cpu().numpy()
    parts = np.split(flat, np.cumsum([t.numel() for t in tensors])[:-1])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]


def _refuse_bad_input(name: str, x: Tensor, batch: int) -> None:
    if not x.is_floating_point():
        return
    low, high = (float(v) for v in x.aminmax())
    if np.isfinite(low) and np.isfinite(high):
        return
    raise DataError(
        "K332",
        f"input {name!r} of batch {batch}",
        where=name,
        why=f"it holds {'NaN' if np.isnan(low) or np.isnan(high) else 'infinity'}",
    )


def _arranged(x: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    x = x.to(device)
    if channels_last and x.dim() == 4 and x.is_floating_point():
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _device(network: nn.Module) -> torch.device:
    tensors = [*nn.Module.parameters(network), *nn.Module.buffers(network)]
    return tensors[0].device if tensors else torch.device("cpu")


def _has_convolutions(network: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) for m in nn.Module.modules(network))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode for a while; each returns to its own mode."""
    training = [module for module in nn.Module.modules(network) if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
