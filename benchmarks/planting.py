"""Planting faults: a copy of a good model or of its data, changed in one way; layer, strength and seed vary.

Most faults leave the float function as it is: a channel is scaled up and the layer behind it scales it down again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.grounds import Case, Ground, Stage
from kompakt.numerics.granularity import PerTensor
from kompakt.schemes import w8a8


class Planter:
    """Plants faults in one model.

    Args:
        ground: The model.
        seed: Of everything that varies.
        strength: Makes a fault so many times as strong as its magnitude says.
    """

    def __init__(self, ground: Ground, seed: int, strength: float = 1.0) -> None:
        self.ground, self.draw = ground, torch.Generator().manual_seed(seed)
        self.strength = strength

    def one(self, items: Sequence[Any]) -> Any:
        """One of these, by chance."""
        return items[int(torch.randint(len(items), (1,), generator=self.draw))]

    def between(self, low: float, high: float) -> float:
        """Log-uniform."""
        u = float(torch.rand(1, generator=self.draw))
        return float(low * (high / low) ** u)

    def times(self, low: float, high: float) -> float:
        """So many times too large."""
        return self.between(low, high) * self.strength

    def share(self, low: float, high: float) -> float:
        """What is left of something."""
        return self.between(low, high) / self.strength

    def case(self, **settings: Any) -> Case:
        """The model and its data as they are, but for what is given."""
        given = {
            "model": copy.deepcopy(self.ground.model),
            "calibration": self.ground.calibration,
            "data": self.ground.data,
        }
        return Case(**{**given, **settings})

    def scaled(self, stage: Stage, factors: Tensor) -> nn.Module:
        """The model with the channels behind a stage scaled; its function stays."""
        model = copy.deepcopy(self.ground.model)
        scale_channels_(model, stage, factors)
        return model

    def stage(self, **wanted: bool) -> Stage:
        """A stage of the wanted kind, by chance."""
        fits = [s for s in self.ground.stages if all(getattr(s, k) == v for k, v in wanted.items())]
        found: Stage = self.one(fits)
        return found

    def channels(self, model: nn.Module, stage: Stage) -> int:
        """How many channels a stage hands on."""
        return int(model.get_submodule(stage.layer).weight.shape[0])

    # each fault by its name

    def outlier_channel(self) -> Case:
        """One channel is far larger than the others."""
        stage, size = self.stage(), self.times(15, 120)
        count = self.channels(self.ground.model, stage)
        factors = torch.ones(count)
        channel = self.live_channel(stage)
        factors[channel] = size
        model = self.scaled(stage, factors)
        what = f"channel {channel} of {stage.edge} x{size:.0f}"
        return self.case(model=model, codes=["outlier_channel"], sites=[stage.edge], what=what)

    def uneven_channels(self) -> Case:
        """Most channels are far smaller than the rest."""
        stage, size = self.stage(), self.times(60, 300)
        count = self.channels(self.ground.model, stage)
        small = torch.rand(count, generator=self.draw).argsort() < int(0.7 * count)
        factors = torch.where(small, 1 / size, 1.0)
        what = f"70 % of the channels of {stage.edge} / {size:.0f}"
        codes = ["uneven_channels", "outlier_channel"]
        return self.case(
            model=self.scaled(stage, factors), codes=codes, sites=[stage.edge], what=what
        )

    def live_channel(self, stage: Stage) -> int:
        """A channel that is not silent."""
        norm = self.ground.model.get_submodule(stage.norm or stage.layer)
        order = norm.weight.detach().reshape(len(norm.weight), -1).abs().sum(1).argsort()
        return int(self.one(order[len(order) // 2 :].tolist()))

    def weight_outlier(self) -> Case:
        """One input channel with large weights, whose values are as much smaller."""
        stages = [s for s in self.ground.stages if not self._splits(s.following)]
        stage, size = self.one(stages), self.times(20, 90)
        factors = _only(self.channels(self.ground.model, stage), self.live_channel(stage), 1 / size)
        path = stage.following.partition("[")[0]
        what = f"weights of an input channel of {path} x{size:.0f}"
        model = self.scaled(stage, factors)
        return self.case(model=model, codes=["weight_outlier"], sites=[path], what=what)

    def _splits(self, path: str) -> bool:
        layer = self.ground.model.get_submodule(path.partition("[")[0])
        return bool(getattr(layer, "groups", 1) > 1)

    def weight_channel_outlier(self) -> Case:
        """A dead channel with wild weights, in a layer whose weights share one scale."""
        stage, size = self.stage(), self.times(15, 100)
        codes = ["depthwise_ranges"] if stage.depthwise else ["weight_channel_outlier"]
        case = self.case(codes=codes, sites=[stage.layer])
        channel = self.live_channel(stage)
        norm = case.model.get_submodule(stage.norm)
        norm.weight.data[channel] *= size
        norm.bias.data[channel] = -100 * norm.weight.data[channel].abs()
        treatment = replace(w8a8().default, granularity=PerTensor())
        case.scheme = w8a8().with_override(stage.layer, treatment)
        case.what = f"one scale for {stage.layer}, a dead channel x{size:.0f}"
        return case

    def clipped(self) -> Case:
        """The range of an edge is cut."""
        stage, share = self.stage(), self.share(0.04, 0.25)
        what = f"range of {stage.edge} cut to {share:.2f}"
        return self.case(
            codes=["clipped"], sites=[stage.edge], ranges={stage.edge: share}, what=what
        )

    def too_wide(self) -> Case:
        """The range of an edge is far too wide."""
        stage, size = self.stage(), self.times(25, 120)
        what = f"range of {stage.edge} x{size:.0f}"
        return self.case(
            codes=["too_wide"], sites=[stage.edge], ranges={stage.edge: size}, what=what
        )

    def gate_clipped(self) -> Case:
        """The range of a sigmoid's input is cut."""
        edge, share = self.one(self.ground.gates), self.share(0.02, 0.1)
        what = f"range of the gate {edge} cut to {share:.2f}"
        return self.case(codes=["clipped"], sites=[edge], ranges={edge: share}, what=what)

    def shared_range(self) -> Case:
        """A few channels of one branch stretch the range that the other shares."""
        (stage, other), size = self.one(self.ground.branches), self.times(25, 150)
        count = self.channels(self.ground.model, stage)
        few = torch.rand(count, generator=self.draw).argsort() < max(
            2, int(count * self.between(0.1, 0.25))
        )
        model = self.scaled(stage, torch.where(few, size, 1.0))
        what = f"{int(few.sum())} channels of {stage.edge} x{size:.0f}, which shares with {other}"
        codes = ["shared_range"]
        return self.case(model=model, codes=codes, sites=[other], what=what)

    def coarse_weights(self) -> Case:
        """The weights of one layer have 4 bits."""
        stage = self.stage()
        weight = "int4"
        treatment = replace(w8a8().default, weight=weight)
        scheme = w8a8().with_override(stage.layer, treatment)
        return self.case(
            codes=["coarse_weights"],
            sites=[stage.layer],
            scheme=scheme,
            what=f"{stage.layer} in {weight}",
        )

    def nan_weights(self) -> Case:
        """One weight is NaN or infinite."""
        stage, value = self.stage(), self.one([float("nan"), float("inf"), -float("inf")])
        case = self.case(codes=["nonfinite_weights"], sites=[stage.layer])
        weight = case.model.get_submodule(stage.layer).weight.data.flatten()
        weight[int(torch.randint(len(weight), (1,), generator=self.draw))] = value
        case.what = f"{value} in {stage.layer}"
        return case

    def denormal_weights(self) -> Case:
        """Some channels' weights are below the smallest normal number."""
        stage = self.stage(depthwise=False)
        case = self.case(codes=["denormal_weights"])
        count = self.channels(case.model, stage)
        few = torch.rand(count, generator=self.draw).argsort() < max(
            1, int(count * self.between(0.2, 0.5))
        )
        tiny = self.between(1e-40, 1e-39)
        _denormal_(case.model, stage, few, tiny)
        case.sites = [stage.layer]
        case.what = f"{int(few.sum())} channels of {stage.layer} x{tiny:.1g}"
        return case

    def constant_calibration(self) -> Case:
        """Every calibration sample is the same number throughout."""
        value = self.one([0.0, 0.5, 1.0])
        calibration = [torch.full_like(b, value) for b in self.ground.calibration]
        return self.case(
            calibration=calibration, codes=["constant_calibration"], what=f"all {value}"
        )

    def scaled_calibration(self) -> Case:
        """The calibration data is not divided by 255, or once too often."""
        factor = self.one([255.0, 1 / 255.0, 127.5])
        calibration = [b * factor for b in self.ground.calibration]
        return self.case(
            calibration=calibration, codes=["preprocessing"], what=f"calibration x{factor:.3g}"
        )

    def shifted_calibration(self) -> Case:
        """The calibration data is normalised otherwise."""
        mean, std = self.between(0.3, 0.6), self.between(0.15, 0.3)
        every = torch.cat(list(self.ground.calibration))
        whole, spread = float(every.mean()), float(every.std())
        calibration = [
            ((b - whole) / spread * std + mean) if spread > 0.7 else ((b - mean) / std)
            for b in self.ground.calibration
        ]
        return self.case(
            calibration=calibration,
            codes=["preprocessing", "unlike"],
            what=f"mean {mean:.2f}, std {std:.2f}",
        )

    def unlike_calibration(self) -> Case:
        """The calibration data is noise, too dim or too bright."""
        kind = self.one(["noise", "dim", "one"])
        every = torch.cat(list(self.ground.calibration))
        if kind == "noise":
            share = self.between(0.05, 0.3)
            calibration = [
                torch.randn(b.shape, generator=self.draw) * share * every.std()
                for b in self.ground.calibration
            ]
        elif kind == "dim":
            share = self.between(0.05, 0.25)
            calibration = [b * share for b in self.ground.calibration]
        else:
            share = self.between(3, 12)
            calibration = [b * share for b in self.ground.calibration]
        return self.case(
            calibration=calibration, codes=["preprocessing", "unlike"], what=f"{kind} {share:.2f}"
        )

    def few_samples(self) -> Case:
        """Three calibration samples of little contrast, or fewer."""
        count = self.one([1, 2, 3])
        every = torch.cat(list(self.ground.calibration))
        order = every.flatten(1).std(1).argsort()
        start = int(torch.randint(max(1, len(order) // 10), (1,), generator=self.draw))
        calibration = [every[order[start : start + count]]]
        return self.case(
            calibration=calibration,
            codes=["few_samples"],
            what=f"{count} samples",
            calibrator="minmax",
        )

    def wrong_everywhere(self) -> Case:
        """All data is prepared otherwise than in training."""
        name, change = self.one(
            [
                ("x255", lambda b: b * 255),
                ("/255", lambda b: b / 255),
                ("2x-1", lambda b: b * 2 - 1 if float(b.min()) >= 0 else (b + 1) / 2),
            ]
        )
        calibration, data = (
            [change(b) for b in part] for part in (self.ground.calibration, self.ground.data)
        )
        return self.case(
            calibration=calibration, data=data, codes=["preprocessing"], what=f"all data {name}"
        )

    def saturation(self) -> Case:
        """One layer with 8-bit weights, many of them large in pairs, reading large codes, among layers of 7 bits."""
        stages = [
            s
            for s in self.ground.stages
            if "[" not in s.following and not self._splits(s.following)
        ]
        stage = self.one(stages)
        path = stage.following
        case = self.case(codes=["saturation"], sites=[path], isa="x86-avx2")
        before = case.model.get_submodule(stage.norm or stage.layer)
        before.bias.data += self.times(2, 6) * before.weight.data.abs().amax()
        weight = case.model.get_submodule(path).weight.data
        half = weight.shape[1] // 2 * 2
        top = weight.abs().flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1))
        strong = torch.rand(weight[:, :half:2].shape, generator=self.draw) < self.between(0.4, 0.9)
        large = weight[:, :half:2].sign() * top
        for first in (0, 1):
            part = weight[:, first:half:2]
            part[strong] = large.expand_as(part)[strong]
        seven = w8a8()
        scheme = replace(seven, default=replace(seven.default, weight="int7_narrow"))
        case.scheme = scheme.with_override(path, seven.default)
        case.what = f"large weights in pairs of {path}"
        return case


def _only(count: int, channel: int, value: float) -> Tensor:
    factors = torch.ones(count)
    factors[channel] = value
    return factors


def scale_channels_(model: nn.Module, stage: Stage, factors: Tensor) -> None:
    """Scale what a stage hands on, and let the following layer undo it."""
    last = model.get_submodule(stage.norm or stage.layer)
    shape = (-1, *[1] * (last.weight.dim() - 1))
    last.weight.data *= factors.reshape(shape)
    if last.bias is not None:
        last.bias.data *= factors
    _compensate_(model, stage.following, 1 / factors)


def _compensate_(model: nn.Module, path: str, factors: Tensor) -> None:
    name, _, part = path.partition("[")
    layer = model.get_submodule(name)
    weight = layer.weight.data
    if getattr(layer, "groups", 1) > 1:
        weight *= factors.reshape(-1, *[1] * (weight.dim() - 1))
    else:
        first = int(part.rstrip("]")) if part else 0
        weight[:, first : first + len(factors)] *= factors.reshape(1, -1, *[1] * (weight.dim() - 2))


def _denormal_(model: nn.Module, stage: Stage, few: Tensor, tiny: float) -> None:
    """Weights of a few channels below the smallest normal number; the following layer gets as much back as it holds."""
    layer = model.get_submodule(stage.layer)
    if stage.norm:
        norm: Any = model.get_submodule(stage.norm)
        norm.weight.data[few] *= tiny
        norm.bias.data[few] *= tiny
    else:
        layer.weight.data[few] *= tiny
        if layer.bias is not None:
            layer.bias.data[few] *= tiny
    back = torch.where(few, min(1 / tiny, 1e37), 1.0)
    _compensate_(model, stage.following, back)


__all__ = ["Planter"]
