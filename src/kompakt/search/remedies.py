"""Trying remedies: each changes a copy of a placed network alone, and what it does to the outputs is measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import escape
from typing import cast

import torch
from torch import Tensor, nn

from kompakt.errors import KompaktError
from kompakt.measuring.cause import Cause, Remedy
from kompakt.measuring.error_split import split_errors
from kompakt.network.network import Network
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerChannel
from kompakt.observe import Calibration, EdgeStatistics, calibrate
from kompakt.quantize import METHODS
from kompakt.quantize.avoid_saturation import NARROW
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.layers import (
    Treated,
    fix_grid_,
    release_grid_,
    thaw_layer_,
    weight_parameters,
)
from kompakt.quantize.method import Batches, FloatMethod, PlacedMethod
from kompakt.quantize.narrowing import reformat_
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.ranges import find_observer, set_ranges_
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme, Treatment

DYNAMIC = Treatment(mode="dynamic", weight="int8_narrow", activation="uint8")
CUTS = tuple(0.97**k for k in range(100))
"""Shares of a channel's largest weight that its grid may end at."""


@dataclass(kw_only=True)
class Subject:
    """What is diagnosed.

    Attributes:
        placed: A placed network whose quantizers have ranges.
        reference: The float network it was placed from.
        scheme: Its scheme.
        rules: The rules of its runtime.
        batches: Data to measure on.
        calibration: What calibration saw, where that is known.
        calibrator: The observer its ranges come from, or one for each site.
        saturates: Whether the processor clips pair sums to 16 bits.
        fresh: Other data of the same kind as ``batches``, to calibrate with; may be empty.
        judges_calibration: Whether calibration had data of its own, which can be unlike this.
    """

    placed: Network
    reference: Network
    scheme: Scheme
    rules: Rules
    batches: Batches
    calibration: Calibration | None = None
    calibrator: str | Mapping[str, str] = "mse"
    saturates: bool = False
    fresh: Batches = ()
    judges_calibration: bool = True

    @cached_property
    def exact(self) -> list[list[Tensor]]:
        """The float outputs, batch by batch."""
        with torch.no_grad():
            return [self.reference.call_flat(list(b)) for b in self.batches]

    def error(self, placed: Network) -> float:
        """Relative error of a placed network's outputs, ‖simulated − float‖ / ‖float‖; it is frozen."""
        if self.saturates:
            found = split_errors(
                placed, self.reference, self.batches, rules=self.rules, saturates=True
            )
            return found.output
        frozen, gone, energy = freeze_(placed), 0.0, 0.0
        with torch.no_grad():
            for inputs, exact in zip(self.batches, self.exact, strict=True):
                for ours, theirs in zip(frozen.call_flat(list(inputs)), exact, strict=True):
                    gone += float((ours.double() - theirs.double()).square().sum())
                    energy += float(theirs.double().square().sum())
        return math.sqrt(gone / energy) if energy > 0 else math.nan

    @cached_property
    def fresh_calibration(self) -> Calibration | None:
        """Statistics of the fresh data."""
        taps = plan_of(self.placed).taps
        return calibrate(self.reference, taps, self.fresh) if self.fresh and taps else None


def try_remedy(subject: Subject, cause: Cause, remedy: Remedy) -> float | None:
    """The output error with one remedy alone; None where it cannot be had here."""
    change = _CHANGES.get(remedy.step)
    if change is None:
        return None
    try:
        changed = change(subject, cause, remedy)
        error = None if changed is None else subject.error(changed)
    except (KompaktError, NotImplementedError):
        return None
    return error if error is not None and math.isfinite(error) else None


def thawed(placed: Network) -> Network:
    """A copy over the same tensors that computes its weights again."""
    shared = [*placed.parameters(), *placed.buffers()]
    found = copy.deepcopy(placed, {id(tensor): tensor for tensor in shared})
    for layer in nn.Module.modules(found):
        if isinstance(layer, Treated):
            thaw_layer_(layer)
    return found


def _recalibrate(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    seen = subject.fresh_calibration
    if seen is None:
        return None
    known = subject.calibrator
    return set_ranges_(thawed(subject.placed), seen, known)


def _calibrator(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    found = thawed(subject.placed)
    statistics = _statistics(subject, found, cause.site)
    if not statistics:
        return None
    quantizer = _quantizer(found, cause.site)
    _set_range(quantizer, statistics, remedy.value)
    return found


def _set_range(quantizer: Quantizer, statistics: Sequence[EdgeStatistics], observer: str) -> None:
    ends = [
        find_observer(observer).range(s, quantizer.format, quantizer.symmetric) for s in statistics
    ]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))


def _statistics(subject: Subject, placed: Network, site: str) -> list[EdgeStatistics]:
    """What calibration saw of a site and of those that share its range; empty where it is not known."""
    if subject.calibration is None:
        return []
    path = _row(placed, site).quantizer
    sites = [s.name for s in plan_of(placed).quantized("activation") if s.quantizer == path]
    known = [subject.calibration.statistics.get(name) for name in sites]
    return [s for s in known if s is not None and not s.is_empty] if all(known) else []


def _wide(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    """16 bits for the activation, over all that calibration (or this data) brings."""
    wide = subject.rules.activation16
    if cause.role != "activation" or wide not in subject.rules.activation_formats:
        return None
    found = thawed(subject.placed)
    quantizer = _quantizer(found, cause.site)
    statistics = _statistics(subject, found, cause.site)
    low, high = quantizer.represented_range()
    quantizer.format = get_format(wide)
    quantizer.symmetric = wide in subject.rules.symmetric_activations
    if statistics:
        _set_range(quantizer, statistics, "minmax")
    else:
        quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return found


def _float(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    found = thawed(subject.placed)
    if cause.role == "activation":
        _quantizer(found, cause.site).stage = "off"
    else:
        _layer(found, cause.site).stage = "off"
    return found


def _format(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    found = thawed(subject.placed)
    layer = _layer(found, cause.site)
    old = layer.treatment
    weight = "int8_narrow" if remedy.step == "eight_bits" else str(old.weight)
    if weight not in subject.rules.weight_formats[old.mode]:
        return None
    layer.treatment = replace(old, weight=weight, granularity=PerChannel(0), symmetric_weight=True)
    release_grid_(layer)
    return None if layer.treatment == old else found


def _clip_weights(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    """For every channel the grid of least squared error among narrower ones."""
    found = thawed(subject.placed)
    layer = _layer(found, cause.site)
    if not isinstance(layer.treatment.granularity, PerChannel) or layer.has_zero_point:
        return None
    if not layer.on_integers:
        return None
    weight = subject.reference.get_submodule(cause.site).get_parameter("weight").detach()
    scale, zero_point = weight_parameters(weight, layer.treatment)
    fmt = get_format(str(layer.treatment.weight))
    axis = layer.treatment.granularity.axis
    rows = weight.movedim(axis, 0).flatten(1)
    best, least = scale.clone(), torch.full_like(scale, math.inf)
    for cut in CUTS:
        narrow = (scale * cut).reshape(-1, 1)
        rounded = (rows / narrow).round().clamp(int(fmt.qmin), int(fmt.qmax)) * narrow
        error = (rounded - rows).square().sum(1)
        best = torch.where(error < least, scale * cut, best)
        least = torch.minimum(error, least)
    fix_grid_(layer, best, zero_point)
    return found


def _seven_bits(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    return reformat_(thawed(subject.placed), NARROW, {cause.site: "its sums would saturate"})


def _dynamic(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    """Ranges at run time for the linear layers that read the edge."""
    readers = _linear_readers(subject, cause)
    scheme = subject.scheme
    for path in readers:
        scheme = scheme.with_override(escape(path), DYNAMIC)
    return _replaced(subject, scheme) if readers else None


def _linear_readers(subject: Subject, cause: Cause) -> list[str]:
    if "linear" not in subject.rules.dynamic_layers:
        return []
    if cause.role == "weight":
        layer = subject.placed.get_submodule(cause.site)
        return [cause.site] if isinstance(layer, nn.Linear) else []
    found = []
    for node in subject.placed.graph.nodes:
        if node.op == "call_module" and node.meta.get("site") == cause.site:
            for user in node.users:
                module = (
                    subject.placed.get_submodule(str(user.target))
                    if user.op == "call_module"
                    else None
                )
                if isinstance(module, nn.Linear):
                    found.append(str(user.target))
    return found


def _replaced(subject: Subject, scheme: Scheme) -> Network | None:
    """The network placed with another scheme; edges keep the ranges they had."""
    found = place(subject.reference, scheme, subject.rules)
    known = {
        s.name: s.quantizer for s in plan_of(subject.placed).quantized("activation") if s.quantizer
    }
    for site in plan_of(found).quantized("activation"):
        if site.name not in known:
            return None
        old = subject.placed.get_submodule(known[site.name])
        new = found.get_submodule(str(site.quantizer))
        assert isinstance(old, Quantizer)
        assert isinstance(new, Quantizer)
        if new.format.name != old.format.name:
            return None
        new.set_parameters(*old.parameters_())
    return found


def _method(subject: Subject, cause: Cause, remedy: Remedy) -> Network | None:
    """One registered method; it gets the fresh data, or else the data it is measured on."""
    method = METHODS.get(remedy.value)
    if method is None:
        return None
    data = subject.fresh or subject.batches
    if method.works_on == "placed":
        found = thawed(subject.placed)
        changed = cast("PlacedMethod", method.run)(found, subject.reference, data)
        return found if changed else None
    network, changed = cast("FloatMethod", method.run)(
        subject.reference, subject.scheme, subject.rules, data
    )
    if not changed:
        return None
    placed = place(network, subject.scheme, subject.rules)
    seen = calibrate(network, plan_of(placed).taps, data)
    observer = subject.calibrator if isinstance(subject.calibrator, str) else "mse"
    return set_ranges_(placed, seen, observer)


def _row(placed: Network, site: str):  # type: ignore[no-untyped-def]
    return next(s for s in plan_of(placed).quantized("activation") if s.name == site)


def _quantizer(placed: Network, site: str) -> Quantizer:
    module = placed.get_submodule(str(_row(placed, site).quantizer))
    assert isinstance(module, Quantizer)
    return module


def _layer(placed: Network, site: str) -> Treated:
    module = placed.get_submodule(site)
    assert isinstance(module, Treated)
    return module


Change = Callable[[Subject, Cause, Remedy], Network | None]
_CHANGES: dict[str, Change] = {
    "recalibrate": _recalibrate,
    "calibrator": _calibrator,
    "method": _method,
    "wide": _wide,
    "dynamic": _dynamic,
    "float": _float,
    "per_channel": _format,
    "eight_bits": _format,
    "clip_weights": _clip_weights,
    "seven_bits": _seven_bits,
}

__all__ = ["Subject", "thawed", "try_remedy"]
