"""Generated inputs bring every batch norm what it remembers, and calibrate a network without data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import kompakt
from kompakt.errors import DataError
from kompakt.measuring.data import Generated, for_network, open_data
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe.synthetic import _targets, _Watch, generate_inputs

from ..nets import Net, conv, network

SIZE = 16


def _head(s: nn.Module, x: Tensor) -> Tensor:
    return s.c(s.b(s.a(x)).mean((2, 3)))  # type: ignore[operator,no-any-return]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor]:
    """A network whose batch norms remember dark images with bright patches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(_head, a=conv(3, 8), b=conv(8, 8, nn.ReLU6), c=nn.Linear(8, 4))
        x = torch.randn(64, 3, SIZE // 4, SIZE // 4).repeat_interleave(4, 2)
        x = 2.0 + 3.0 * x.repeat_interleave(4, 3)
        model.train()
        for _ in range(60):
            model(x)
        return model.eval(), x


@pytest.fixture(scope="module")
def prepared(trained: tuple[nn.Module, Tensor]) -> Network:
    return inference_form(capture(trained[0], trained[1][:2]))


def test_every_batch_norm_sees_what_it_remembers(
    prepared: Network, trained: tuple[nn.Module, Tensor]
) -> None:
    made = generate_inputs(prepared, samples=8, steps=60)["x"]
    assert made.shape == (8, 3, SIZE, SIZE)
    targets = _targets(prepared)
    assert len(targets) == 2

    def distance(x: Tensor) -> float:
        watch = _Watch(prepared, targets)
        with torch.no_grad():
            watch.loss([x])
        return float(watch.total)

    noise = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    assert distance(trained[1]) < 0.1
    assert distance(made) < 0.3 * distance(noise)


def test_the_same_seed_gives_the_same_inputs_and_the_network_stays(prepared: Network) -> None:
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    a, b = (generate_inputs(prepared, samples=2, steps=3)["x"] for _ in range(2))
    other = generate_inputs(prepared, samples=2, steps=3, seed=1)["x"]
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    assert all(torch.equal(v, before[k]) for k, v in prepared.state_dict().items())
    assert all(p.requires_grad for p in prepared.parameters())


def test_batch_norms_that_are_not_folded_serve_too(trained: tuple[nn.Module, Tensor]) -> None:
    captured = capture(trained[0], trained[1][:2])
    assert len(_targets(captured)) == 2


def test_a_network_is_calibrated_without_data(
    prepared: Network, trained: tuple[nn.Module, Tensor]
) -> None:
    placed = kompakt.place(prepared, "w8a8")
    seen = kompakt.calibrate(placed, "generated")
    assert seen.samples == 16
    x = trained[1]
    with torch.no_grad():
        assert float((placed(x) - prepared(x)).norm() / prepared(x).norm()) < 0.2


def test_it_can_be_named_on_the_command_line(prepared: Network) -> None:
    data = open_data("generated?samples=4&steps=2&seed=3", ["x"], "calibration")
    assert isinstance(data, Generated)
    assert data.count() == 4
    assert "4 samples generated" in data.describe()
    with pytest.raises(DataError, match="K200"):
        next(iter(data))
    made = for_network(data, prepared)
    assert made is not None
    assert [len(batch.inputs["x"]) for batch in made] == [4]
    assert open_data("generated").sha256() != data.sha256()


@pytest.mark.parametrize(("name", "code"), [("twice", "K247"), ("words", "K247")])
def test_what_cannot_be_done_is_said(name: str, code: str) -> None:
    with pytest.raises(DataError, match=code):
        generate_inputs(network(name))


def test_inputs_of_whole_numbers_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(24, 8), nn.BatchNorm1d(8))
    captured = capture(model.eval(), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(DataError, match="K248"):
        generate_inputs(captured)
