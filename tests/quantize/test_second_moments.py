"""Rows of a layer's input are what it multiplies; their moments are those of all samples, wherever they come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.quantize.layers import Treated
from kompakt.quantize.second_moments import HELD_OUT, Pair, as_matrices, moments_of, rows_of
from kompakt.schemes import w8a8_dynamic

from ..nets import grid, network, ranged

LAYERS = {
    "linear": (nn.Linear(7, 5), (3, 4, 7)),
    "plain": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 6, 5)),
    "strided, grouped": (nn.Conv2d(4, 6, 3, 2, 1, groups=2), (2, 4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 4, (3, 2), padding=(1, 0), groups=4), (2, 4, 6, 5)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=2), (2, 4, 6, 6)),
    "same": (nn.Conv2d(4, 6, (3, 1), padding="same"), (2, 4, 6, 5)),
    "reflecting": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 5)),
    "sequence": (nn.Conv1d(4, 6, 5, 2, 2, groups=2), (2, 4, 9)),
    "volume": (nn.Conv3d(2, 4, 2, 1, 1), (2, 2, 3, 4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_the_weight_are_the_layer(name: str) -> None:
    layer, shape = LAYERS[name]
    x = grid(*shape)
    groups = getattr(layer, "groups", 1)
    with torch.no_grad():
        product = rows_of(layer, x) @ as_matrices(layer.weight, groups).mT
        exact = layer(x) - (0 if groups is None else _bias(layer))
    if isinstance(layer, nn.Linear):
        assert torch.allclose(product[0], exact.reshape(-1, 5), atol=1e-5)
        return
    # (G, N · positions, O / G) against (N, O, positions).
    ordered = product.reshape(groups, len(x), -1, product.shape[-1]).permute(1, 0, 3, 2)
    assert torch.allclose(ordered.reshape(exact.shape), exact, atol=1e-5)


def _bias(layer: nn.Module) -> Tensor:
    bias: Tensor = layer.bias  # type: ignore[assignment]
    return (
        bias if isinstance(layer, nn.Linear) else bias.reshape(-1, *[1] * (layer.weight.dim() - 2))
    )  # type: ignore[union-attr, operator]


def test_moments_do_not_depend_on_how_samples_are_batched() -> None:
    captured = network("dense 3d")
    placed, _ = ranged(captured, w8a8_dynamic(), [])
    x = grid(16, 7, 40, seed=3)
    node = next(n for n in placed.graph.nodes if n.op == "call_module")
    layer = placed.get_submodule(str(node.target))
    assert isinstance(layer, Treated)
    found = []
    for size in (16, 4):
        pairs = [Pair(placed, captured, [part]) for part in x.split(size)]
        for before in placed.graph.nodes:
            if before is node:
                break
            for pair in pairs:
                pair.run(before)
        found.append(moments_of(layer, node, pairs))
    for one, other in zip(*found, strict=True):
        assert one.rows == other.rows
        assert torch.allclose(one.gram, other.gram, rtol=1e-5)
    fit, check = found[0]
    rows = x.reshape(-1, 40).double()
    assert check.rows == 2 * 7, f"every {HELD_OUT}th of 16 samples"
    assert fit.rows == 14 * 7
    whole = (fit.gram * fit.rows + check.gram * check.rows)[0]
    assert torch.allclose(whole, rows.T @ rows, rtol=1e-4, atol=1e-3)
    assert torch.equal(fit.cross, fit.gram), "the first layer reads the same in both networks"


def test_the_error_about_the_means_is_what_a_bias_leaves() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(5, 3)
    x = torch.randn(200, 5, generator=generator) + 2
    rounded = layer.weight.detach().round(decimals=1)
    difference = (x @ (layer.weight.detach() - rounded).T).double()
    with_bias = (difference - difference.mean(0)).square().sum(1).mean()
    captured_moments = _moments(x)
    exact = layer.weight.detach()[None]
    known = captured_moments.centred()
    own = known.error(exact, rounded[None]) - known.error(exact, exact)
    assert own == pytest.approx(float(with_bias), rel=1e-4)
    plain = captured_moments.error(exact, rounded[None]) - captured_moments.error(exact, exact)
    assert plain == pytest.approx(float(difference.square().sum(1).mean()), rel=1e-4)


def _moments(x: Tensor):  # type: ignore[no-untyped-def]
    from kompakt.quantize.second_moments import Moments

    rows = x.double()
    gram, mean = (rows.T @ rows / len(rows))[None], rows.mean(0)[None]
    return Moments(gram, gram, mean, mean, len(rows))
