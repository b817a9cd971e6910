"""Every shape of call: containers, keywords, defaults, dynamic dimensions, and wrong inputs."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError, DataError
from kompakt.network.capture import capture
from kompakt.network.network import Network


@dataclasses.dataclass
class Scores:
    logits: Tensor
    hidden: Tensor | None = None


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Containers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, batch: dict[str, object], scale: float = 1.0, *, flag: bool = False):
        ids, (left, right) = batch["x"], batch["pair"]
        y = self.layer(ids) * scale
        return {"scores": Scores(y), "pair": Pair(left + 1, right), "size": ids.shape[0], "n": None}


def containers(batch: int = 2) -> dict[str, object]:
    return {"x": torch.randn(batch, 4), "pair": (torch.randn(batch, 2), torch.randn(batch, 3))}


def test_nested_containers_in_and_out():
    model = Containers().eval()
    network = capture(model, (containers(), 2.0))
    assert [s.name for s in network.input_specs] == ["batch_x", "batch_pair_0", "batch_pair_1"]
    assert [s.name for s in network.output_specs] == ["scores_logits", "pair_left", "pair_right"]
    data = containers(5)
    wanted, got = model(data, 2.0), network(data, 2.0)
    assert isinstance(got["scores"], Scores)
    assert isinstance(got["pair"], Pair)
    assert torch.equal(got["scores"].logits, wanted["scores"].logits)
    assert (got["size"], got["n"], got["scores"].hidden) == (5, None, None)


def test_nested_network_captures_again():
    network = capture(Containers().eval(), (containers(),))
    again = capture(network, (containers(),))
    data = containers(3)
    assert torch.equal(again(data)["scores"].logits, network(data)["scores"].logits)
    assert again.input_specs == network.input_specs


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, scale: float = 1.0):
        x = self.embedding(input_ids) * scale
        return x if attention_mask is None else x * attention_mask.unsqueeze(-1)


def keywords(batch: int, length: int) -> dict[str, Tensor]:
    ids = torch.randint(0, 9, (batch, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


SEQUENCE = {"input_ids": {1: "sequence"}, "attention_mask": {1: "sequence"}}


def test_keyword_inputs_can_be_passed_either_way():
    model = Keywords().eval()
    network = capture(model, keywords(2, 5), dynamic=SEQUENCE)
    data = keywords(3, 7)
    wanted = model(**data)
    assert torch.equal(network(**data), wanted)
    assert torch.equal(network(data["input_ids"], data["attention_mask"]), wanted)
    assert torch.equal(network(attention_mask=data["attention_mask"], **only_ids(data)), wanted)
    assert torch.equal(network(**data, scale=1.0), wanted)
    assert network.input_specs[0].shape == ("batch", "sequence")
    assert network.output_specs[0].shape == ("batch", "sequence", 4)


def only_ids(data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"input_ids": data["input_ids"]}


def test_missing_optional_input_is_captured_as_missing():
    model = Keywords().eval()
    ids = torch.randint(0, 9, (2, 5))
    network = capture(model, ids)
    assert torch.equal(network(ids), model(ids))
    assert torch.equal(network(ids, None), model(ids))
    with pytest.raises(DataError, match="K130"):
        network(ids, torch.ones(2, 5))


def test_var_args(same):
    class Variadic(nn.Module):
        def forward(self, *xs: Tensor, **named: Tensor) -> Tensor:
            return sum(xs) + named["extra"]

    model = Variadic()
    network = capture(model, {"extra": torch.randn(2, 3)})
    assert same(model, network, {"extra": torch.randn(4, 3)})


@pytest.fixture
def network() -> Network:
    return capture(Keywords().eval(), keywords(2, 5), dynamic=SEQUENCE)


def test_wrong_dtype_rank_size_and_structure(network):
    data = keywords(2, 5)
    with pytest.raises(DataError, match="K132") as error:
        network(**{**data, "input_ids": data["input_ids"].float()})
    assert "float32" in str(error.value)
    assert "input_ids.to(torch.int64)" in str(error.value)
    with pytest.raises(DataError, match="2 dimensions"):
        network(**{**data, "input_ids": data["input_ids"][0]})
    with pytest.raises(DataError, match="'sequence', which is 5"):
        network(**{**data, "attention_mask": data["attention_mask"][:, :4]})
    with pytest.raises(DataError, match="'batch', which is 2"):
        network(**{**data, "attention_mask": data["attention_mask"][:1]})
    with pytest.raises(DataError, match="K130"):
        network(data["input_ids"])
    with pytest.raises(DataError, match="K130"):
        network(**data, unknown=1)
    with pytest.raises(DataError, match="K130"):
        network(None, data["attention_mask"])
    with pytest.raises(DataError, match="K130"):
        network(**data, scale=2.0)


def test_other_constants_are_refused():
    network = capture(Containers().eval(), (containers(), 2.0))
    with pytest.raises(DataError, match="K131") as error:
        network(containers(), 3.0)
    assert "captured as 2.0" in str(error.value)


def test_fixed_dimensions_are_checked():
    network = capture(nn.Linear(4, 3).eval(), torch.randn(2, 6, 4))
    with pytest.raises(DataError, match="fixed to 6"):
        network(torch.randn(2, 5, 4))


def test_upper_limits_are_checked():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table.weight[: x.shape[1]]

    network = capture(Positions().eval(), torch.randn(2, 5, 4), dynamic={"x": {1: "time"}})
    assert network(torch.randn(1, 16, 4)).shape == (1, 16, 4)
    with pytest.raises(DataError, match="'time'"):
        network(torch.randn(1, 17, 4))


def test_a_model_that_fixes_its_batch_is_captured_with_a_note(same):
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(3, 8) * 2

    network = capture(Fixed(), torch.randn(3, 2, 4))
    assert network.input_specs[0].shape == (3, 2, 4)
    assert any("batch is fixed" in note for note in network.notes)
    assert same(Fixed(), network, torch.randn(3, 2, 4))


def test_a_model_for_one_sample_only_is_captured_with_a_note(same):
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(8) + 1

    network = capture(Single(), torch.randn(1, 8))
    assert network.input_specs[0].shape == (1, 8)
    assert any("batch is fixed" in note for note in network.notes)
    assert same(Single(), network, torch.randn(1, 8))


def test_a_requested_dimension_that_is_fixed_is_an_error():
    class Unrolled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return sum(x[:, i] * i for i in range(x.shape[1]))

    with pytest.raises(CaptureError, match="K106") as error:
        capture(Unrolled(), torch.randn(2, 5), dynamic={"x": {1: "time"}})
    assert "'time'" in str(error.value)
    assert capture(Unrolled(), torch.randn(2, 5)).input_specs[0].shape == ("batch", 5)


def test_dynamic_names_must_exist():
    with pytest.raises(DataError, match="inputs are: input"):
        capture(nn.Linear(3, 3), torch.randn(2, 3), dynamic={"x": {0: "rows"}})
    with pytest.raises(DataError, match="axis 4"):
        capture(nn.Linear(3, 3), torch.randn(2, 3), dynamic={"input": {4: "rows"}})


def test_one_tensor_passed_twice_is_two_inputs():
    class Add(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x.sum(1) + y.sum(1)

    x = torch.randn(2, 5)
    network = capture(Add(), (x, x), dynamic={"x": {1: "left"}, "y": {1: "right"}})
    assert [spec.shape[1] for spec in network.input_specs] == ["left", "right"]
    assert network(torch.randn(3, 4), torch.randn(3, 9)).shape == (3,)


def test_output_formulas_name_the_dimensions():
    class Halving(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x], dim=1)

    network = capture(Halving(), torch.randn(2, 6), dynamic={"x": {1: "time"}})
    assert network.output_specs[0].shape == ("batch", "2*time")


def test_examples_are_kept_small():
    network = capture(nn.Linear(3, 2).eval(), torch.randn(64, 3))
    (example,) = network.example_inputs()
    assert example.shape == (2, 3)
    (single,) = capture(nn.Linear(3, 2).eval(), torch.randn(1, 3)).example_inputs()
    assert single.shape == (2, 3)


@pytest.mark.parametrize("bad", [3, None, "x", [1, 2], (), {}])
def test_examples_must_hold_tensors(bad):
    with pytest.raises(CaptureError, match="K103"):
        capture(nn.Linear(3, 2), bad)


def test_examples_must_fit_the_signature():
    with pytest.raises(CaptureError, match="missing a required argument: 'input'"):
        capture(nn.Linear(3, 2), {"z": torch.randn(2, 3)})


def test_arrays_are_examples_as_tensors_are():
    model = nn.Linear(4, 3)
    for example in (np.zeros((2, 4)), (np.zeros((2, 4), np.float32),), {"input": np.zeros((2, 4))}):
        network = capture(model, example)
        assert [spec.dtype for spec in network.input_specs] == [torch.float32]
        assert network.input_specs[0].shape == ("batch", 4)
    double = capture(nn.Linear(4, 3).double(), np.zeros((2, 4)))
    assert double.input_specs[0].dtype == torch.float64
    tokens = capture(nn.Embedding(7, 3), np.zeros((2, 4), ">i8"))
    assert tokens.input_specs[0].dtype == torch.int64
