"""Range refinement: planted bad ranges are found, good ones stay, and the network never gets worse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kompakt.network.network import Network
from kompakt.quantize.place import quantizer_calls, quantizer_of
from kompakt.quantize.range_refinement import _output_error, refine_ranges_
from kompakt.schemes import w8a8

from ..nets import batches_for, network, ranged


def placed_for(name: str) -> tuple[Network, Network, list[list[Tensor]]]:
    captured = network(name)
    placed, _ = ranged(captured, w8a8(), batches_for(name))
    return placed, captured, [list(b.inputs.values()) for b in batches_for(name)]


def error(placed: Network, captured: Network, samples: list[list[Tensor]]) -> float:
    with torch.no_grad():
        pairs = [(placed(*x), captured(*x)) for x in samples]
        return float(sum((a - b).square().sum() for a, b in pairs)) ** 0.5


@pytest.mark.parametrize("name", ["plain", "residual", "encoder"])
@pytest.mark.parametrize("factor", [20.0, 0.2])
def test_a_bad_range_is_replaced(name: str, factor: float) -> None:
    placed, captured, samples = placed_for(name)
    good = error(placed, captured, samples)
    call = list(quantizer_calls(placed).values())[2]
    quantizer = quantizer_of(placed, call)
    low, high = quantizer.represented_range()
    quantizer.set_range(torch.tensor(low * factor), torch.tensor(high * factor))
    assert error(placed, captured, samples) > 1.2 * good
    assert refine_ranges_(placed, captured, samples) >= 1
    found = quantizer.represented_range()
    assert 0.4 * (high - low) < found[1] - found[0] < 1.1 * (high - low)
    assert error(placed, captured, samples) < 1.2 * good


@pytest.mark.parametrize("name", ["plain", "movers", "dense 3d"])
def test_it_never_gets_worse(name: str) -> None:
    placed, captured, samples = placed_for(name)
    before = _output_error(placed, captured, samples)  # with corrected biases
    refine_ranges_(placed, captured, samples)
    assert _output_error(placed, captured, samples) <= before


def test_a_range_the_runtime_fixes_stays() -> None:
    placed, captured, samples = placed_for("plain")
    quantizers = [quantizer_of(placed, c) for c in quantizer_calls(placed).values()]
    for quantizer in quantizers:
        low, high = quantizer.represented_range()
        quantizer.set_range(torch.tensor(low * 9), torch.tensor(high * 9))
        quantizer.fixed = True
    before = [float(q.parameters_()[0]) for q in quantizers]
    assert refine_ranges_(placed, captured, samples) == 0
    assert before == [float(q.parameters_()[0]) for q in quantizers]
