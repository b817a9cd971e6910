"""One pass over the data that fills the statistics of every site."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import cast

import torch
from torch import Tensor, fx, nn

from kompakt.observe.batches import Batch, InputBinding, micro_batches
from kompakt.observe.calibration import Calibration
from kompakt.observe.collector import Collector
from kompakt.observe.edge_summary import BlockSampler, fingerprints
from kompakt.observe.taps import TapContext, observing
from kompakt.progress import track


def calibrate(
    network: fx.GraphModule,
    taps: Mapping[str, str],
    batches: Iterable[Batch],
    *,
    max_samples: int | None = None,
    micro_batch: int | None = None,
    channels_last: bool | None = None,
) -> Calibration:
    """Stream data through a network once and remember a little of every observed edge.

    The network is run in evaluation mode without gradients and is unchanged afterwards. Memory does
    not grow with the number of samples, but for a few scalars of each of the first 2000. All
    observers are served by the one pass.

    Args:
        network: A Network, or any ``GraphModule`` with tensor placeholders and samples along
            dimension 0.
        taps: For each site to observe, the name of the graph node whose output it is.
        batches: Inputs without labels: a tensor, a sequence (positional) or a mapping (by name).
            They are moved to the network's device.
        max_samples: Stop after this many samples.
        micro_batch: Samples to run at once: larger batches of a Network are cut and smaller ones
            joined, which is faster on CPUs. ``None`` cuts to 8 (small images to 64) and joins up to
            8. Statistics do not depend on it, but for float rounding inside the network.
        channels_last: Feed images in channels-last layout. ``None`` decides: yes for a network with
            2-D convolutions on a CPU, where it is faster. Results agree up to float rounding.

    Raises:
        DataError: K330 without data, K331 for NaN or infinity on a site, K332 in an input, K333 for
            batches that do not fit, K334 for a site that is not floating-point.
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
    collector = Collector(list(taps))
    tracked = cast("Generator[Batch]", track(batches, "calibrating"))
    with torch.no_grad(), _evaluating(network), closing(tracked):
        for piece in micro_batches(tracked, binding, micro_batch, max_samples):
            arranged = [_arranged(x, device, channels_last) for x in piece.tensors]
            by_name = binding.samples_first(piece.tensors)
            context.sampler = BlockSampler(fingerprints(list(by_name.values()), piece.samples))
            collector.describe_inputs(by_name, piece.numbers)
            collector.add(piece.numbers, runner(*arranged))
    return collector.finish()


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
