"""How much each layer adds to the error of the outputs, without gradients: many layers are tested at a time.

A placed network is run with a random part of its layers rounded and the others in float, another part for every few
samples. Errors of different layers are all but uncorrelated, so the squared error of a run is about the sum of what its
layers add, and the parts of all runs, solved by non-negative least squares, give each layer's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import nn

from kompakt.measuring.data import Batch
from kompakt.network.network import Network
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import is_quantizer_call, plan_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.search.divergence import divergence
from kompakt.search.signals import can_be_cut, cut

PASSES = 4
"""Forward passes over the samples for each format, and one in float."""
PART = 0.4
"""The share of the layers that is rounded in a run."""
TESTS_PER_LAYER = 4
REWEIGHTED = 4


def shares_by_groups(
    network: Network, forms: Mapping[str, Network], batches: Sequence[Batch], *, seed: int = 0
) -> tuple[dict[tuple[str, str], float], int]:
    """What each layer in each form adds to the relative squared error of the outputs.

    Args:
        network: The float network.
        forms: Placed networks with ranges.
        batches: Samples.
        seed: Of the choice of layers.

    Returns:
        The shares by layer and form, and how many forward passes over the samples it took.
    """
    rng = np.random.default_rng(seed)
    shares: dict[tuple[str, str], float] = {}
    passes = 1
    for name, form in forms.items():
        switches = _switches(form)
        tests = TESTS_PER_LAYER * len(switches)
        pieces = _pieces(network, batches, -(-tests // PASSES))
        turns = max(PASSES, -(-tests // max(len(pieces), 1)))
        passes += turns
        found = _shares(network, form, switches, pieces, turns, rng)
        shares |= {(layer, name): float(share) for layer, share in found.items()}
    return shares, passes


def _shares(
    network: Network,
    form: Network,
    switches: Mapping[str, list[nn.Module]],
    pieces: Sequence[list[torch.Tensor]],
    turns: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    rows, errors = [], []
    with torch.no_grad():
        for inputs in pieces:
            exact = network.call_flat(inputs)
            for _ in range(turns):
                on = rng.random(len(switches)) < PART
                _switch(form, switches, on)
                error = divergence(exact, form.call_flat(inputs), "relative")
                rows.append(on.astype(np.float64))
                errors.append(float(error.mean()))
    _switch(form, switches, np.ones(len(switches), bool))
    return dict(zip(switches, _solve(np.array(rows), np.array(errors)), strict=True))


def _solve(design: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative least squares; the spread of an error grows with its size, so small ones count for more."""
    weights = np.ones(len(errors))
    found = np.zeros(design.shape[1])
    for _ in range(REWEIGHTED):
        found, _ = nnls(design * weights[:, None], errors * weights)
        expected = design @ found
        floor = max(float(errors.mean()) * 0.05, 1e-300)
        weights = 1.0 / np.maximum(expected, floor)
        weights /= weights.max()
    return found


def _switches(form: Network) -> dict[str, list[nn.Module]]:
    """For each treated layer, the modules that round for it: itself and the quantizers next to it."""
    found: dict[str, list[nn.Module]] = {}
    layer_of: dict[str, str] = {}
    embeddings = {s.name for s in plan_of(form).sites if s.kind == "embedding"}
    last = ""
    for node in form.graph.nodes:
        if node.op != "call_module":
            continue
        module = form.get_submodule(str(node.target))
        if isinstance(module, Treated) and str(node.target) not in embeddings:
            last = str(node.target)
            found.setdefault(last, []).append(module)
            source = node.args[0]
            if is_quantizer_call(form, source):
                # What nothing before it rounds, it rounds itself.
                layer_of.setdefault(str(source.target), last)
        elif isinstance(module, Quantizer) and last:
            layer_of.setdefault(str(node.target), last)
    for target, layer in layer_of.items():
        found[layer].append(form.get_submodule(target))
    return found


def _switch(form: Network, switches: Mapping[str, list[nn.Module]], on: NDArray[np.bool_]) -> None:
    for modules, active in zip(switches.values(), on, strict=True):
        for module in modules:
            module.stage = "simulate" if active else "off"  # type: ignore[assignment]


def _pieces(network: Network, batches: Sequence[Batch], count: int) -> list[list[torch.Tensor]]:
    """The samples in about so many pieces; whole batches where they cannot be cut."""
    total = sum(batch.size for batch in batches)
    rows = max(1, total // max(count, 1))
    found = []
    for batch in batches:
        whole = list(batch.inputs.values())
        step = rows if can_be_cut(network) else batch.size
        found += [
            [cut(t, at, step, batch.size) for t in whole] for at in range(0, batch.size, step)
        ]
    return found
