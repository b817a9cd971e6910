"""Compensated rounding equals a plain numpy referee, comes close to exhaustive search, and survives odd inputs."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.errors import DataError
from kompakt.network.capture import capture
from kompakt.network.onnx import import_onnx
from kompakt.network.rewrites import inference_form
from kompakt.numerics.formats import Format, get_format
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.gptq import compensate_, round_with_feedback
from kompakt.quantize.layers import Treated
from kompakt.quantize.weight_ranges import best_grid
from kompakt.schemes import FLOAT, w4, w8a8
from kompakt.steps import write

from ..nets import Net, batches_for, grid, network, ranged

INT4, UINT4, INT2 = get_format("int4"), get_format("uint4"), get_format("int2")


def correlated(columns: int, seed: int, rank: int = 4) -> Tensor:
    """A Gram matrix of inputs of which a few directions say most: float64 (1, K, K)."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(400, rank, generator=generator) @ torch.randn(
        rank, columns, generator=generator
    )
    rows = (few + 0.3 * torch.randn(400, columns, generator=generator)).double()
    return (rows.T @ rows / 400)[None]


def referee(
    weight: np.ndarray, gram: np.ndarray, groups: list[slice], fmt: Format, symmetric: bool
) -> np.ndarray:
    """Optimal brain quantization, one matrix inverse a column: what the factorisation is short for."""
    weight, values = weight.astype(np.float64).copy(), np.zeros(weight.shape)
    diagonal = np.diag(gram)
    turns = sorted(groups, key=lambda g: -diagonal[g].sum())
    order = [c for g in turns for c in sorted(range(g.start, g.stop), key=lambda c: -diagonal[c])]
    left, inverse = list(order), {}
    for column in order:
        inverse[column] = np.linalg.inv(gram[np.ix_(left, left)])
        left.remove(column)
    left = list(order)
    for group in turns:
        own = [c for c in order if group.start <= c < group.stop]
        importance = torch.tensor([1 / inverse[c][0, 0] for c in own], dtype=torch.float32)
        scale, zero = (
            p.double().numpy()
            for p in best_grid(
                torch.from_numpy(weight[:, own]).float(), importance, fmt, symmetric=symmetric
            )
        )
        for column in own:
            codes = np.clip(np.round(weight[:, column] / scale + zero), fmt.qmin, fmt.qmax)
            values[:, column] = (codes - zero) * scale
            error = (weight[:, column] - values[:, column]) / inverse[column][0, 0]
            weight[:, left] -= np.outer(error, inverse[column][0])
            left.remove(column)
    return values


@pytest.mark.parametrize(("fmt", "symmetric"), [(INT4, True), (UINT4, False)])
@pytest.mark.parametrize("size", [4, 10, 24])
def test_it_equals_column_by_column_inverses(fmt: Format, symmetric: bool, size: int) -> None:
    gram = correlated(24, seed=size) + 0.05 * torch.eye(24, dtype=torch.float64)
    target = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(2))
    groups = [slice(start, min(start + size, 24)) for start in range(0, 24, size)]
    found = round_with_feedback(target, gram, groups, fmt, symmetric=symmetric)
    wanted = referee(target[0].numpy(), gram[0].numpy(), groups, fmt, symmetric)
    assert np.allclose(found.values[0].numpy(), wanted, atol=1e-4)
    codes = (found.values / found.scale.repeat_interleave(size, 2)[..., :24]).round()
    codes = codes + found.zero.repeat_interleave(size, 2)[..., :24]
    assert int(codes.min()) >= fmt.qmin
    assert int(codes.max()) <= fmt.qmax


def test_wide_layers_are_rounded_in_blocks_with_the_same_result() -> None:
    gram = correlated(150, seed=1, rank=20) + 0.05 * torch.eye(150, dtype=torch.float64)
    target = torch.randn(1, 3, 150, generator=torch.Generator().manual_seed(4))
    found = round_with_feedback(target, gram, [slice(0, 150)], INT4, symmetric=True)
    wanted = referee(target[0].numpy(), gram[0].numpy(), [slice(0, 150)], INT4, True)
    differing = np.abs(found.values[0].numpy() - wanted) > 1e-4
    assert differing.mean() < 0.02, "float32 against float64 may decide a tie the other way"


def test_groups_of_a_convolution_are_independent() -> None:
    grams = torch.cat([correlated(9, seed=s, rank=2) for s in range(3)])
    grams = grams + 0.05 * torch.eye(9, dtype=torch.float64)
    target = torch.randn(3, 2, 9, generator=torch.Generator().manual_seed(3))
    together = round_with_feedback(target, grams, [slice(0, 9)], INT4, symmetric=True)
    for g in range(3):
        alone = round_with_feedback(
            target[g : g + 1], grams[g : g + 1], [slice(0, 9)], INT4, symmetric=True
        )
        assert torch.allclose(together.values[g], alone.values[0], atol=1e-6)
        assert torch.equal(together.scale[g], alone.scale[0])


def test_it_is_near_the_best_of_all_codes() -> None:
    """All 4⁶ codes of 2-bit weights, at the grid it chose."""
    ratios, plain = [], []
    for seed in range(12):
        gram = correlated(6, seed=seed, rank=2) + 0.05 * torch.eye(6, dtype=torch.float64)
        target = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(seed))
        found = round_with_feedback(target, gram, [slice(0, 6)], INT2, symmetric=True)
        scale = float(found.scale)
        every = torch.tensor(list(itertools.product(range(-2, 2), repeat=6))).double() * scale
        off = every - target[0].double()
        best = float(((off @ gram[0]) * off).sum(1).min())
        own = (found.values - target)[0].double()
        nearest = ((target / scale).round().clamp(-2, 1) * scale - target)[0].double()
        ratios.append(float((own @ gram[0] @ own.T).sum()) / best)
        plain.append(float((nearest @ gram[0] @ nearest.T).sum()) / best)
    assert np.median(ratios) < 1.3
    assert np.mean(np.log(ratios)) < 0.5 * np.mean(np.log(plain))


# --- whole networks ----------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(7)
    return Net(
        lambda s, x: s.c(F.gelu(s.b(F.gelu(s.a(x))))),
        a=nn.Linear(24, 64),
        b=nn.Linear(64, 64),
        c=nn.Linear(64, 8, bias=False),
    ).eval()


def samples(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, 4, generator=generator) @ torch.randn(
        4, 24, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("symmetric", [True, False])
def test_unseen_samples_lose_half_of_the_error(symmetric: bool) -> None:
    captured = inference_form(capture(net(), samples(4, 1)))
    placed, _ = ranged(captured, w4(group=16, symmetric=symmetric), [])
    x = samples(64, 9)
    with torch.no_grad():
        exact = captured(x)
        before = float((placed(x) - exact).norm())
        assert compensate_(placed, captured, [[samples(32, 2)], [samples(32, 3)]]) == 3
        after = placed(x)
    assert float((after - exact).norm()) < 0.5 * before
    with torch.no_grad():
        frozen = freeze_(placed)(x)
    assert torch.allclose(frozen, after, atol=1e-5), "what is written are the codes it chose"
    assert placed.get_submodule("c").bias is None


@pytest.mark.parametrize("name", ["plain", "depthwise", "residual"])
def test_convolutions_of_few_bits(name: str) -> None:
    captured = network(name)
    placed, _ = ranged(captured, w8a8(), batches_for(name))
    for layer in placed.modules():
        if isinstance(layer, Treated):
            layer.treatment = replace(layer.treatment, weight="int4")
    x = grid(32, 3, 10, 10, seed=11)
    with torch.no_grad():
        exact, before = captured(x), placed(x)
        compensate_(placed, captured, [[grid(32, 3, 10, 10, seed=12)]])
        after = placed(x)
    assert float((after - exact).norm()) < 0.8 * float((before - exact).norm())


def test_nothing_is_gained_on_noise_so_nothing_much_is_lost() -> None:
    """With hardly any data the held-out rows keep it from harm."""
    captured = inference_form(capture(net(), samples(4, 1)))
    placed, _ = ranged(captured, w4(group=16), [])
    x = samples(64, 9)
    with torch.no_grad():
        exact = captured(x)
        before = float((placed(x) - exact).norm())
        compensate_(placed, captured, [[samples(1, 2)]])
        assert float((placed(x) - exact).norm()) < 1.2 * before


def test_dead_inputs_and_constant_data_are_survived() -> None:
    captured = inference_form(capture(net(), samples(4, 1)))
    dead = samples(16, 3)
    dead[..., ::2] = 0.0
    for data in (dead, torch.zeros(16, 5, 24), torch.ones(16, 5, 24)):
        placed, _ = ranged(captured, w4(group=16), [])
        assert compensate_(placed, captured, [[data]]) == 3
        with torch.no_grad():
            assert torch.isfinite(freeze_(placed)(samples(8, 5))).all()


def test_tied_weights_of_an_embedding_stay_as_they_are() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 32)
            self.middle = nn.Linear(32, 32)

        def forward(self, ids: Tensor) -> Tensor:
            return F.linear(F.gelu(self.middle(self.table(ids))), self.table.weight)

    torch.manual_seed(0)
    ids = torch.randint(0, 20, (16, 6), generator=torch.Generator().manual_seed(1))
    captured = inference_form(capture(Tied().eval(), ids))
    placed, _ = ranged(captured, replace(w4(group=16), embedding=FLOAT), [])
    table = placed.get_submodule("table").weight.clone()  # type: ignore[operator]
    assert compensate_(placed, captured, [[ids]]) == 2
    assert torch.equal(placed.get_submodule("table").weight, table)


def test_networks_from_onnx_files(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    write(inference_form(capture(net(), samples(4, 1))), path)
    imported = inference_form(import_onnx(path))
    placed, _ = ranged(imported, w4(group=16), [])
    x = samples(4, 9)
    with torch.no_grad():
        exact, before = imported(x), placed(x)
        assert compensate_(placed, imported, [[samples(4, seed)] for seed in range(2, 8)]) == 3
        after = placed(x)
    assert float((after - exact).norm()) < 0.7 * float((before - exact).norm())


def test_numbers_that_are_not_finite_are_refused() -> None:
    captured = inference_form(capture(net(), samples(4, 1)))
    placed, _ = ranged(captured, w4(group=16), [])
    broken = samples(16, 2)
    broken[3, 0, 0] = float("nan")
    with pytest.raises(DataError) as caught:
        compensate_(placed, captured, [[broken]])
    assert caught.value.code == "K350"
    assert caught.value.where == "a"


def test_layers_called_twice_are_left_alone() -> None:
    captured = network("twice")
    placed, _ = ranged(captured, w8a8(), batches_for("twice"))
    before = copy.deepcopy(placed.get_submodule("b").state_dict())
    assert compensate_(placed, captured, [[grid(8, 3, 10, 10)]]) == 2
    after = placed.get_submodule("b").state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
