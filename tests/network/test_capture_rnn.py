"""Recurrent layers stay whole: any length, real modules, states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError
from kompakt.network.capture import capture
from kompakt.network.kinds import kind_of
from kompakt.network.ops import rnn
from kompakt.network.rnn import whole_rnns

CELLS = [nn.LSTM, nn.GRU, nn.RNN]


class Tagger(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], **settings: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.rnn = cell(6, 8, 2, batch_first=True, bidirectional=True, dropout=0.2, **settings)
        self.head = nn.LazyLinear(3)
        self.eval()(torch.zeros(2, 3, dtype=torch.long))

    def forward(self, ids: Tensor, state: object = None) -> tuple[Tensor, object]:
        y, last = self.rnn(self.embedding(ids), state)
        return self.head(y), last


def ids(batch: int, length: int) -> Tensor:
    return torch.randint(0, 20, (batch, length))


@pytest.mark.parametrize("cell", CELLS)
def test_any_length_any_batch(cell, same):
    model = Tagger(cell).eval()
    network = capture(model, ids(2, 9), dynamic={"ids": {1: "time"}})
    for batch, length in ((2, 9), (3, 5), (1, 30)):
        assert same(model, network, ids(batch, length))
    assert same(model, network, ids(3, 4), train=True)
    assert type(network.rnn) is cell
    assert list(network.state_dict()) == list(model.state_dict())
    assert [kind_of(n) for n in network.graph.nodes if n.op == "call_module"] == [
        "embedding",
        "rnn",
        "linear",
    ]


def test_projection_and_given_state(same):
    model = Tagger(nn.LSTM, proj_size=5).eval()
    state = (torch.randn(4, 2, 5), torch.randn(4, 2, 8))
    network = capture(model, (ids(2, 9), state), batch_dim=None)
    assert same(model, network, (ids(2, 9), (state[0] * 2, state[1])))


def test_time_major_gru_with_state(same):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5)

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return self.gru(x, h)[1] + self.gru(x)[1]

    model = Net().eval()
    example = (torch.randn(7, 2, 4), torch.randn(1, 2, 5))
    network = capture(model, example, batch_dim=1, dynamic={"x": {0: "time"}})
    assert network.input_specs[0].shape == ("time", "batch", 4)
    assert same(model, network, (torch.randn(3, 6, 4), torch.randn(1, 6, 5)))


@pytest.mark.parametrize("cell", CELLS)
def test_captures_again(cell, same):
    model = Tagger(cell).eval()
    first = capture(model, ids(2, 9), dynamic={"ids": {1: "time"}})
    second = capture(first, ids(2, 9), dynamic={"ids": {1: "time"}})
    assert same(model, second, ids(3, 4))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("rank", [2, 3])
def test_operator_equals_the_layer(cell, rank, batch_first):
    layer = cell(4, 5, 2, bidirectional=True, batch_first=batch_first).eval()
    x = torch.randn(6, 4) if rank == 2 else torch.randn(3, 6, 4)
    weights = [w for group in layer.all_weights for w in group]
    found = rnn(x, [], weights, "layer", layer.mode, 5, 2, 2, batch_first, 0)
    wanted, last = layer(x)
    assert torch.equal(found[0], wanted)
    states = last if isinstance(last, tuple) else (last,)
    assert all(torch.equal(a, b) for a, b in zip(found[1:], states, strict=True))


def test_the_context_puts_forward_back():
    layer = nn.LSTM(3, 4)
    with whole_rnns(layer):
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)


def test_packed_sequences_are_refused():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]))
            return self.lstm(packed)[1][0]

    with pytest.raises(CaptureError):
        capture(Packed().eval(), torch.randn(3, 2, 3), batch_dim=None)
