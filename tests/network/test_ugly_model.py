"""Everything awkward at once: one model with tied weights, repeated layers, in-place writes,
functional dropout, one-dimensional convolutions and nested containers.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture


class Ugly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.block = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(True))
        self.up = nn.ConvTranspose1d(8, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.rate = 0.25
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("offset", torch.arange(8.0), persistent=False)

    def forward(self, batch: dict[str, Tensor], *, weights: tuple[Tensor, float] | None = None):
        h = self.embedding(batch["ids"]).transpose(1, 2)
        h = self.block(self.block(h))
        z = F.dropout(h, self.rate, self.training)
        z += 1
        y = self.norm(self.up(z).transpose(1, 2)) + self.offset
        y[:, 0] = 0
        if weights is not None:
            y = y * weights[0].unsqueeze(-1) * weights[1]
        logits = self.head(y)
        return {"logits": logits, "parts": (h.mean(-1), [y.max(1).values, logits.shape[1]])}


def inputs(batch: int, length: int) -> dict[str, object]:
    return {
        "batch": {"ids": torch.randint(0, 12, (batch, length))},
        "weights": (torch.rand(batch, 2 * length), 0.5),
    }


@pytest.fixture(scope="module")
def pair():
    model = Ugly().eval()
    nn.init.normal_(model.block[1].running_mean)
    dynamic = {"batch_ids": {1: "time"}, "weights_0": {1: "doubled"}}
    return model, capture(model, inputs(2, 6), dynamic=dynamic)


@pytest.mark.parametrize(("batch", "length"), [(2, 6), (1, 3), (5, 9)])
def test_bit_equal_in_eval(pair, same, batch, length):
    assert same(*pair, inputs(batch, length))


def test_bit_equal_in_train(same):
    model = Ugly().eval()
    network = capture(model, inputs(2, 6))
    # In eval mode dropout returns its input and `z += 1` changes h too; in train mode it does not.
    # The network follows eval mode, so outputs made from h differ; the rest is compared.
    model.train(), network.train()
    data = inputs(2, 6)
    torch.manual_seed(1)
    wanted = model(**data)
    torch.manual_seed(1)
    assert torch.equal(network(**data)["logits"], wanted["logits"])


def test_containers_and_names(pair):
    model, network = pair
    found, wanted = network(**inputs(3, 4)), model(**inputs(3, 4))
    assert type(found["parts"]) is type(wanted["parts"])
    assert found["parts"][1][1] == wanted["parts"][1][1] == 8
    assert [s.name for s in network.output_specs] == ["logits", "parts_0", "parts_1_0"]


def test_state_dict_and_copies(pair, same):
    model, network = pair
    assert set(network.state_dict()) == set(model.state_dict())
    assert network.head.weight is network.embedding.weight
    assert same(model, copy.deepcopy(network), inputs(2, 6))
    again = capture(
        network, inputs(2, 6), dynamic={"batch_ids": {1: "time"}, "weights_0": {1: "d"}}
    )
    assert same(model, again, inputs(4, 5))
