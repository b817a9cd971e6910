"""Whether the data is what the model and its calibration expect: other numbers, other channels, none at all.

Two witnesses are heard: what calibration saw of the inputs, and the running statistics that batch norms keep of the
training data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from kompakt.network.network import Network
from kompakt.observe import Calibration
from kompakt.observe.input_scalars import InputScalars

SHIFTED = 0.5
"""A difference of means of so many standard deviations is no chance."""
SCALED = 1.4
"""The same for a ratio of standard deviations."""
FEW = 8
"""Fewer calibration samples than this leave ranges to chance."""
MISFIT = 1.0
"""From here on batch norms see other data than they were trained on."""
BETTER = 0.5
"""A change of the inputs is named when it takes the misfit to this share of what it was."""
LAYERS = 1
"""Batch norms that are asked, the first ones: what later ones see depends on the layers between."""
CHANNELS = 3

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """What is wrong with data.

    Attributes:
        code: ``constant_calibration``, ``repeated_calibration``, ``few_samples``, ``preprocessing`` or ``unlike``.
        sentence: In words, with the numbers.
        facts: The numbers.
    """

    code: str
    sentence: str
    facts: Mapping[str, Any]


def compare_inputs(calibration: Calibration, now: Calibration) -> Mismatch | None:
    """How the data that calibration saw differs from other data, in the worst of its inputs.

    Args:
        calibration: What calibration saw.
        now: The same of the data to compare with.
    """
    for name, seen in calibration.inputs.items():
        data = now.inputs.get(name)
        if data is None or not len(seen.rows) or not len(data.rows):
            continue
        found = _constant(name, seen) or _different(name, seen, data)
        few = calibration.samples < FEW and found is not None and not _is_plain(found)
        if found is not None and not few:
            return found
    if calibration.samples < FEW:
        text = f"only {calibration.samples} calibration samples: the ranges found from them are left to chance"
        return Mismatch(code="few_samples", sentence=text, facts={"samples": calibration.samples})
    return None


def _is_plain(found: Mismatch) -> bool:
    """Whether a few samples are enough to be sure of it."""
    ratio = float(found.facts.get("std_ratio") or 1.0)
    return "constant" in found.code or not 0.1 < ratio < 10


def _constant(name: str, seen: InputScalars) -> Mismatch | None:
    std, mean = _column(seen, "std"), _column(seen, "mean")
    extent = float(np.abs(_column(seen, "high")).max() + np.abs(_column(seen, "low")).max())
    value = float(mean[0])
    if std.max() <= 1e-6 * max(extent, 1e-30):
        code, text = (
            "constant_calibration",
            f"the calibration data is constant: every `{name}` is {value:.3g} throughout",
        )
        return Mismatch(code=code, sentence=text, facts={"value": value, "input": name})
    if len(seen.rows) > 1 and bool((seen.rows == seen.rows[0]).all()):
        text = f"the calibration data is one sample, {len(seen.rows)} times"
        return Mismatch(code="repeated_calibration", sentence=text, facts={"input": name})
    return None


def _different(name: str, seen: InputScalars, data: InputScalars) -> Mismatch | None:
    there, here = _moments(seen), _moments(data)
    ratio = there[1] / max(here[1], 1e-30)
    shift = (there[0] - here[0]) / max(here[1], 1e-30)
    facts = {"input": name, "std_ratio": ratio, "mean_shift": shift}
    order = _channel_order(seen, data)
    if order is not None:
        text = (
            f"the channels of `{name}` come in another order in the calibration data (reversed: RGB and BGR mixed "
            f"up): their means are {order[0]} there and {order[1]} here"
        )
        return Mismatch(code="preprocessing", sentence=text, facts=facts | {"change": "channels"})
    if abs(shift) < SHIFTED and 1 / SCALED < ratio < SCALED:
        return None
    text = (
        f"calibration saw `{name}` with mean {there[0]:.3g} and standard deviation {there[1]:.3g}, this data has "
        f"{here[0]:.3g} and {here[1]:.3g}"
    )
    change = _known_change(there, here)
    if change:
        text += f", as if {change}: one of them is prepared wrongly"
    elif max(ratio, 1 / ratio) > 3 or abs(shift) > 2:
        text += ": one of them is prepared wrongly"
    else:
        return Mismatch(code="unlike", sentence=text + ": they are not of one kind", facts=facts)
    return Mismatch(code="preprocessing", sentence=text, facts=facts | {"change": change})


def _moments(scalars: InputScalars) -> tuple[float, float]:
    """Mean and standard deviation over all values of the samples kept."""
    mean, std = _column(scalars, "mean"), _column(scalars, "std")
    return float(mean.mean()), math.sqrt(float((std**2).mean() + mean.var()))


_CHANGES: dict[str, tuple[float, float]] = {
    "it were not divided by 255": (255.0, 0.0),
    "it were divided by 255 once more": (1 / 255.0, 0.0),
    "it were not divided by 128": (127.5, 127.5),
    "it were in [−1, 1] instead of [0, 1]": (2.0, -1.0),
    "it were in [0, 1] instead of [−1, 1]": (0.5, 0.5),
    "its mean and standard deviation were not normalised": (0.226, 0.449),
    "its mean and standard deviation were normalised twice": (1 / 0.226, -0.449 / 0.226),
}
"""What the calibration data may be of this data, as factor and offset."""


def _known_change(there: tuple[float, float], here: tuple[float, float]) -> str:
    """The usual slip that makes of this data what calibration saw; empty where none does."""
    best, closest = "", 0.35
    for words, (factor, offset) in _CHANGES.items():
        mean, std = here[0] * factor + offset, here[1] * factor
        distance = abs(there[0] - mean) / max(std, 1e-30) + abs(
            math.log(there[1] / max(std, 1e-30))
        )
        if distance < closest:
            best, closest = words, distance
    return best


def _channel_order(seen: InputScalars, data: InputScalars) -> tuple[str, str] | None:
    columns = [f"channel_{i}" for i in range(CHANNELS)]
    known = all(c in s.columns for c in columns for s in (seen, data))
    if not known or f"channel_{CHANNELS}" in seen.columns:
        return None
    there = np.array([_column(seen, c).mean() for c in columns])
    spread = np.array([_column(data, c).std() for c in columns]) + 1e-12
    here = np.array([_column(data, c).mean() for c in columns])
    error = spread * math.sqrt(1 / len(seen.rows) + 1 / len(data.rows))
    straight = float((np.abs(there - here) / error).max())
    reversed_ = float((np.abs(there[::-1] - here) / error).max())
    if straight > 6 and reversed_ < straight / 3:
        return tuple(", ".join(f"{v:.3g}" for v in m) for m in (there, here))  # type: ignore[return-value]
    return None


def _column(scalars: InputScalars, name: str) -> Any:
    return scalars.rows[:, scalars.columns.index(name)].astype(np.float64)


Change = Callable[[Tensor], Tensor]


def image_changes() -> dict[str, Change]:
    """The usual ways to prepare images, as changes of wrongly prepared ones; what each puts right, in words."""
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in IMAGENET)

    def flipped(x: Tensor) -> Tensor:
        return x.flip(1)

    return {
        "divided by 255": lambda x: x / 255,
        "multiplied by 255": lambda x: x * 255,
        "divided by 127.5 and 1 subtracted": lambda x: x / 127.5 - 1,
        "taken from [0, 1] to [−1, 1]": lambda x: x * 2 - 1,
        "taken from [−1, 1] to [0, 1]": lambda x: (x + 1) / 2,
        "normalised with the mean and standard deviation of ImageNet": lambda x: (x - mean) / std,
        "divided by 255 and normalised as for ImageNet": lambda x: (x / 255 - mean) / std,
        "given without the mean and standard deviation of ImageNet": lambda x: x * std + mean,
        "given with its channels in reverse (RGB for BGR)": flipped,
    }


def misprepared(network: Network, batches: Sequence[Sequence[Tensor]]) -> Mismatch | None:
    """Whether the network's first batch norm sees other data than it was trained on, and what would change that.

    Args:
        network: A captured network whose batch norms are still there; others are never accused.
        batches: Data.
    """
    single = [b for b in batches if len(b) == 1 and b[0].dim() == 4]
    if len(single) != len(batches) or not single:
        return None
    before = batch_norm_misfit(network, single)
    if before is None or before < MISFIT / 4:
        return None
    coloured = single[0][0].shape[1] == CHANNELS
    found: dict[str, float] = {}
    for words, change in image_changes().items():
        if coloured or not any(word in words for word in ("ImageNet", "channels")):
            after = batch_norm_misfit(network, [[change(b[0])] for b in single])
            found[words] = math.inf if after is None else after
    words = min(found, key=found.__getitem__)
    helps = found[words] < BETTER * before and found[words] < MISFIT
    if not helps and before < 2 * MISFIT:
        return None
    facts = {"misfit": before, "after": found[words], "change": words if helps else None}
    text = (
        f"the first batch norm sees values {before:.2g} standard deviations off what it was trained on: the data "
        "is not prepared as in training"
    )
    if helps:
        text += f"; {words}, it would fit ({found[words]:.2g})"
    return Mismatch(code="preprocessing", sentence=text, facts=facts)


def batch_norm_misfit(network: Network, batches: Sequence[Sequence[Tensor]]) -> float | None:
    """How far the inputs of the first batch norms are from their running statistics.

    Returns:
        The mean over channels of |mean difference| / running deviation + |log of the ratio of deviations|, the largest
        of the first layers; None where there is no batch norm.
    """
    norms = [
        node
        for node in network.graph.nodes
        if node.op == "call_module"
        and isinstance(
            network.get_submodule(str(node.target)),
            nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d,
        )
    ][:LAYERS]
    if not norms:
        return None
    sums: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for inputs in batches:
            lane = _Until(network, norms)
            lane.run(*inputs)
            for node, x in lane.found.items():
                others = [d for d in range(x.dim()) if d != 1]
                count = torch.tensor(float(x.numel() // x.shape[1]), dtype=torch.float64)
                row = [x.double().sum(others), x.double().square().sum(others), count]
                known = sums.get(node.name)
                sums[node.name] = (
                    row if known is None else [a + b for a, b in zip(known, row, strict=True)]
                )
    misfits = []
    for node in norms:
        norm: Any = network.get_submodule(str(node.target))
        total, square, count = sums[node.name]
        mean = total / count
        deviation = (square / count - mean.square()).clamp(min=1e-30).sqrt()
        running = norm.running_var.double().sqrt().clamp(min=1e-15)
        alive = running > 1e-3 * running.median()
        off = (mean - norm.running_mean.double()).abs() / running + (
            deviation / running
        ).log().abs()
        misfits.append(float(off[alive].median()))
    return max(misfits)


class _Until(fx.Interpreter):
    """Runs a network up to the last of some nodes and keeps what these read."""

    def __init__(self, network: Network, wanted: Sequence[fx.Node]) -> None:
        super().__init__(network)
        self.graph_nodes = list(network.graph.nodes)
        self.wanted, self.found = set(wanted), dict[fx.Node, Tensor]()

    def run(self, *inputs: Any, **_: Any) -> Any:
        """Run as far as needed."""
        self.args_iter = iter(inputs)
        for node in self.graph_nodes:
            if node in self.wanted:
                self.found[node] = self.env[node.args[0]]
                if len(self.found) == len(self.wanted):
                    return None
            self.env[node] = self.run_node(node)
        return None


__all__ = ["Mismatch", "batch_norm_misfit", "compare_inputs", "misprepared"]
