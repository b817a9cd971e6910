"""Sensitivity: what is foretold in one pass is what one evaluation a layer finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from kompakt.errors import UsageError
from kompakt.measuring.data import Batch
from kompakt.schemes import Scheme
from kompakt.search.candidates import Candidate
from kompakt.search.divergence import directions, divergence, loss_for
from kompakt.search.ranking import float_outputs
from kompakt.search.sensitivity import (
    CHOICES,
    Sensitivity,
    alone,
    brute_force,
    differentiable,
    find_sensitivity,
    mean_loss,
)
from kompakt.search.workbench import Workbench

from ..nets import grid
from .benches import workbench, workbench_for


class Deep(nn.Module):
    """Layers of very different sensitivity: each is followed by a gain."""

    gains = (1.0, 0.3, 2.0, 0.6, 1.5, 0.2)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in self.gains)
        self.head = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        for layer, gain in zip(self.layers, self.gains, strict=True):
            x = x + gain * torch.tanh(layer(x))
        return self.head(x)


def deep(folder: Path, count: int = 4) -> Workbench:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Deep().eval()
    data = [Batch({"x": grid(16, 24, seed=i)}, None, 16) for i in range(count)]
    return workbench_for(net, data, folder)


def rank_correlation(bench: Workbench, found: Sensitivity, choice: str) -> float:
    measured = brute_force(bench, found, choice, bench.samples)
    foretold = [found.of(layer, choice) for layer in measured]
    return float(spearmanr(foretold, list(measured.values())).statistic)


# --- losses -----------------------------------------------------------------------------------


def test_the_divergence_is_that_of_the_probabilities() -> None:
    z, y = torch.randn(5, 7), torch.randn(5, 7)
    p, q = torch.softmax(z.double(), -1), torch.softmax(y.double(), -1)
    expected = (p * (p / q).log()).sum(-1)
    assert torch.allclose(divergence([z], [y], "kl"), expected)
    assert float(divergence([z], [z], "kl").abs().max()) < 1e-12
    assert torch.allclose(divergence([z], [2 * z], "relative"), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("loss", ["kl", "relative"])
def test_directions_have_the_curvature_of_the_loss(loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z, change = torch.randn(1, 4), 1e-3 * torch.randn(1, 4)
    rows = [directions([z], loss, 2, generator) for _ in range(3000)]  # type: ignore[arg-type]
    squares = [sum(float((v[0] * change).sum()) ** 2 for v in vectors) for vectors in rows]
    exact = float(divergence([z], [z + change], loss).mean())  # type: ignore[arg-type]
    assert 0.5 * np.mean(squares) == pytest.approx(exact, rel=0.1)


def test_the_first_direction_leaves_little_where_two_classes_compete() -> None:
    z = torch.tensor([[4.0, 3.5, -6.0, -7.0]])
    (first,), _ = directions([z], "kl", 2, torch.Generator().manual_seed(0))
    p = torch.softmax(z[0], -1)
    curvature = torch.diag(p) - torch.outer(p, p)
    assert float((torch.outer(first[0], first[0]) - curvature).norm() / curvature.norm()) < 0.02


def test_the_metric_decides_the_loss() -> None:
    logits, probabilities = torch.randn(3, 5), torch.softmax(torch.randn(3, 5), -1)
    assert loss_for("top1", [logits]) == "kl"
    assert loss_for("top1", [probabilities]) == "relative"
    assert loss_for("cosine", [logits]) == "relative"
    assert loss_for(None, [torch.randn(3)]) == "relative"


# --- with gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["int8", "int4"])
def test_it_ranks_layers_as_brute_force_does(choice: str, tmp_path: Path) -> None:
    bench = deep(tmp_path)
    found = find_sensitivity(bench, [choice], metric="top1", samples=64)
    assert found.signals is not None
    assert found.passes <= 5
    assert len(found.layers) == 7
    assert rank_correlation(bench, found, choice) >= 0.9


def test_one_layer_alone_loses_what_was_foretold(tmp_path: Path) -> None:
    bench = deep(tmp_path)
    found = find_sensitivity(bench, ["int4"], metric="top1", samples=64)
    measured = brute_force(bench, found, "int4", bench.samples)
    for layer, loss in measured.items():
        assert found.of(layer, "int4") == pytest.approx(loss, rel=1.0), layer


def test_a_whole_scheme_is_foretold_too(tmp_path: Path) -> None:
    bench = deep(tmp_path)
    found = find_sensitivity(bench, ["int4", "int8"], metric="top1", samples=64)
    losses = []
    for name in ("int8", "int4"):
        scheme = Scheme(name=name, default=CHOICES[name])
        placed = bench.place(Candidate(name=name, level=2, scheme=scheme, calibrator="mse"))
        measured = mean_loss(
            placed, float_outputs(bench.prepared, bench.samples), bench.samples, found.loss
        )
        assert found.predicted(scheme) == pytest.approx(measured, rel=1.5)
        losses.append(found.predicted(scheme))
    assert losses[0] < losses[1] / 10


@pytest.mark.parametrize("name", ["residual", "depthwise", "concat", "encoder", "twice", "words"])
def test_it_works_on_every_kind_of_network_and_leaves_it_as_it_is(
    name: str, tmp_path: Path
) -> None:
    bench = workbench(name, tmp_path)
    before = {k: v.clone() for k, v in bench.prepared.state_dict().items()}
    wanted = [p.requires_grad for p in bench.prepared.parameters()]
    found = find_sensitivity(bench, ["int8", "weights int4"], samples=8)
    assert found.signals is not None
    for layer, names in found.layers.items():
        assert all(found.of(layer, choice) > 0 for choice in names), layer
        assert found.of(layer, "float") == 0
    assert all(torch.equal(v, before[k]) for k, v in bench.prepared.state_dict().items())
    assert [p.requires_grad for p in bench.prepared.parameters()] == wanted


def test_one_sample_is_enough_to_work(tmp_path: Path) -> None:
    bench = workbench("plain", tmp_path)
    found = find_sensitivity(bench, ["int8"], samples=1)
    assert found.samples == 1
    assert all(found.of(layer, "int8") > 0 for layer in found.layers)


def test_terms_add_up_to_about_the_whole(tmp_path: Path) -> None:
    bench = deep(tmp_path)
    found = find_sensitivity(bench, ["int4"], metric="top1", samples=64)
    terms = found.terms()
    total = sum(terms.layers.values()) + sum(terms.edges.values())
    parts = sum(found.of(layer, "int4") for layer in found.layers)
    assert total == pytest.approx(parts, rel=0.5)
    assert all(terms.switched_by[edge] for edge in terms.edges)


def test_a_choice_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        find_sensitivity(workbench("plain", tmp_path), ["int3"])
    assert refused.value.code == "K620"
    assert "int3" in str(refused.value)


# --- without gradients ------------------------------------------------------------------------


def test_without_gradients_the_ranking_comes_from_groups_of_layers(tmp_path: Path) -> None:
    bench = deep(tmp_path, count=8)
    found = find_sensitivity(bench, ["int4"], samples=128, gradients=False)
    assert found.signals is None
    assert found.loss == "relative"
    assert found.passes <= 5
    assert rank_correlation(bench, found, "int4") >= 0.85


def cut_before(bench: Workbench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no gradient through the input of a linear layer."""
    layer = bench.prepared.get_submodule(name)
    whole = type(layer).forward
    monkeypatch.setattr(
        type(layer), "forward", lambda self, x: whole(self, x.detach() if self is layer else x)
    )


def test_layers_that_no_gradient_reaches_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = deep(tmp_path)
    cut_before(bench, "head", monkeypatch)
    found = find_sensitivity(bench, ["int8"], samples=16)
    assert found.signals is None
    assert set(found.shares) == {(name, "int8") for name in found.layers}


def test_an_operator_of_the_runtime_behind_a_layer_is_not_differentiated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = deep(tmp_path)
    assert differentiable(bench.prepared)
    head = bench.prepared.get_submodule("head")
    monkeypatch.setattr(head, "kind", "opaque", raising=False)
    assert not differentiable(bench.prepared)
    monkeypatch.undo()
    first = bench.prepared.get_submodule("layers.0")
    monkeypatch.setattr(first, "kind", "opaque", raising=False)
    assert differentiable(bench.prepared), "no layer stands before it"


def test_alone_treats_one_layer() -> None:
    scheme = alone("a.b[0]", CHOICES["int8"])
    assert scheme.default.mode == "float"
    assert scheme.overrides[0].select == "a.b[[]0]"
