"""Static candidates some of whose linear layers take dynamic ranges: those that gain most for each millisecond."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

import torch
from torch import Tensor

from kompakt.measuring.data import Batch
from kompakt.network.network import Network
from kompakt.progress import track
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import is_quantizer_call, quantizer_of
from kompakt.schemes import Treatment
from kompakt.search.candidates import Candidate
from kompakt.search.ranking import RANKING_SAMPLES, corrected_error, float_outputs, output_error
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench
from kompakt.targets import Runnable

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of the groups that gain, which are tried together."""
DYNAMIC = Treatment(mode="dynamic", weight="int8_narrow", activation="uint8")
NOTICEABLE_ERROR = 0.05
"""Relative output error above which plain static quantization is worth improving on."""
HARMLESS = 1.02
"""A group may raise the output error by so much where its dynamic kernel is wanted for its speed only."""
TIMED_ROUNDS = 20
LEAST_COST = 0.01
"""Share of the static file's time that dynamic ranges cost at least: less cannot be told from noise."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What dynamic ranges do for the layers that read one tensor.

    Attributes:
        layers: The layers' paths.
        width: How many values of a row their ranges are found on.
        error: The network's simulated output error when they alone are dynamic.
    """

    layers: tuple[str, ...]
    width: int
    error: float


def hybrids(bench: Workbench, plain: Candidate, error: float) -> list[tuple[Candidate, float]]:
    """Static candidates whose worst linear layers take dynamic ranges instead.

    Layers that read one tensor change together. Each group's gain in output error is simulated, and the groups are
    ordered by that gain for each millisecond that dynamic ranges were measured to cost.

    Args:
        bench: The workbench.
        plain: The best plain static candidate.
        error: Its simulated output error with corrected biases.

    Returns:
        At most two, with their errors found in the same way: the cheapest one that halves the error, and the most
        accurate one. None when no one is better than ``plain``.
    """
    if error < NOTICEABLE_ERROR:
        return []
    before, effects = dynamic_effects(bench, plain)
    gaining = [effect for effect in effects if effect.error < before]
    if not gaining:
        return []
    cost = max(_share_of_time(bench, plain, effects), LEAST_COST)
    total = sum(effect.width for effect in effects)
    gaining.sort(key=lambda e: (before**2 - e.error**2) / (cost * e.width / total), reverse=True)
    batches = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
    reference = float_outputs(bench.prepared, batches)
    found: list[tuple[Candidate, float]] = []
    for count in sorted({max(1, round(len(gaining) * share)) for share in SHARES}):
        candidate = with_dynamic(plain, gaining[:count], effects)
        source = bench.reference(candidate)
        now = corrected_error(bench.place(candidate), source, reference, batches)
        found.append((candidate, now))
    best = min(found, key=lambda pair: pair[1])
    if not best[1] < error:
        return []
    enough = next((pair for pair in found if pair[1] <= error / 2), best)
    return [enough] if enough is best else [enough, best]


def dynamic_where_harmless(bench: Workbench, plain: Candidate) -> Candidate | None:
    """The candidate with every layer dynamic whose output error does not suffer; None where that is no layer.

    For runtimes whose dynamic kernel does more in one step than the static one: whether it is faster is measured on
    the file.
    """
    before, effects = dynamic_effects(bench, plain)
    harmless = [effect for effect in effects if effect.error <= HARMLESS * before]
    return with_dynamic(plain, harmless, effects) if harmless else None


def dynamic_effects(bench: Workbench, plain: Candidate) -> tuple[float, list[Effect]]:
    """The simulated output error of a static candidate, and that with each group of layers dynamic in turn."""
    if "linear" not in bench.rules.dynamic_layers:
        return 0.0, []
    placed = bench.place(plain)
    groups = _groups(placed)
    batches = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
    reference = float_outputs(bench.prepared, batches)
    effects = []
    for quantizer, paths in track(list(groups.items()), "trying dynamic ranges"):
        error = _error_when_dynamic(placed, quantizer, paths, reference, batches)
        width = _layer(placed, paths[0]).weight.shape[1]
        effects.append(Effect(layers=paths, width=width, error=error))
    return output_error(placed, reference, batches), effects


def with_dynamic(plain: Candidate, chosen: Sequence[Effect], among: Sequence[Effect]) -> Candidate:
    """The candidate with some groups of layers dynamic.

    Args:
        plain: The static candidate.
        chosen: The groups.
        among: All groups there are.
    """
    layers = [path for effect in chosen for path in effect.layers]
    scheme = plain.scheme
    for path in layers:
        scheme = scheme.with_override(escape(path), DYNAMIC)
    count = sum(len(effect.layers) for effect in among)
    return replace(
        plain,
        name=f"{plain.name}, {len(layers)} of {count} layers dynamic",
        scheme=scheme,
        why=f"ranges found at run time serve the inputs of {len(layers)} layers as well or better",
        improves=plain.name,
    )


def _groups(placed: Network) -> dict[str, tuple[str, ...]]:
    """Static linear layers by the quantizer that only they read."""
    found: dict[str, tuple[str, ...]] = {}
    order = {node: place for place, node in enumerate(placed.graph.nodes)}
    for node in placed.graph.nodes:
        if not is_quantizer_call(placed, node):
            continue
        readers = [
            str(user.target)
            for user in sorted(node.users, key=order.__getitem__)
            if user.op == "call_module"
        ]
        layers = [placed.get_submodule(path) for path in readers]
        linear = all(
            isinstance(layer, Treated) and isinstance(layer, torch.nn.Linear) for layer in layers
        )
        if linear and readers and len(readers) == len(node.users):
            found[str(node.target)] = tuple(readers)
    calls = [str(n.target) for n in placed.graph.nodes if n.op == "call_module"]
    return {
        quantizer: paths
        for quantizer, paths in found.items()
        if calls.count(quantizer) == 1 and all(calls.count(path) == 1 for path in paths)
    }


def _error_when_dynamic(
    placed: Network,
    quantizer: str,
    paths: Sequence[str],
    reference: Sequence[list[Tensor]],
    batches: Sequence[Batch],
) -> float:
    """The output error with some layers dynamic; the network is as it was afterwards."""
    module = next(quantizer_of(placed, n) for n in placed.graph.nodes if str(n.target) == quantizer)
    layers = [_layer(placed, path) for path in paths]
    before = [layer.treatment for layer in layers]
    module.stage = "off"
    for layer in layers:
        layer.treatment = DYNAMIC
    try:
        return output_error(placed, reference, batches)
    finally:
        module.stage = "simulate"
        for layer, treatment in zip(layers, before, strict=True):
            layer.treatment = treatment


def _layer(placed: Network, path: str) -> Treated:
    layer = placed.get_submodule(path)
    assert isinstance(layer, Treated)
    return layer


def _share_of_time(bench: Workbench, plain: Candidate, effects: Sequence[Effect]) -> float:
    """How much more processor time the file takes with all groups dynamic, as a share of the static file's."""
    inputs = spread_rows(bench.samples, 1, bench.prepared.input_specs)[0].arrays()
    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        candidates = (plain, with_dynamic(plain, effects, effects))
        files = [_file(bench, c, Path(folder) / str(n)) for n, c in enumerate(candidates)]
        least = [math.inf for _ in files]
        for _ in range(TIMED_ROUNDS):
            for place, runnable in enumerate(files):
                began = time.process_time()
                runnable(inputs)
                least[place] = min(least[place], time.process_time() - began)
    return least[1] / max(least[0], 1e-9) - 1


def _file(bench: Workbench, candidate: Candidate, folder: Path) -> Runnable:
    """The candidate's file, with nothing done about saturation, which costs no time where it runs."""
    folder.mkdir()
    written = bench.target.write(freeze_(bench.place(candidate)))
    return bench.target.load(written.save(folder), written.options, bench.threads)


__all__ = [
    "DYNAMIC",
    "NOTICEABLE_ERROR",
    "Effect",
    "dynamic_effects",
    "dynamic_where_harmless",
    "hybrids",
    "with_dynamic",
]
