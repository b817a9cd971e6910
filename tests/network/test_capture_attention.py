"""Transformers of PyTorch itself: hidden linear layers, attention dropout, the fused fast path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kompakt.network.capture import capture
from kompakt.network.kinds import kind_of
from kompakt.network.rewrites import inference_form


@pytest.fixture
def unfused():
    """The fused layer rounds differently; comparisons to the bit need it off."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def encoder(dropout: float = 0.1) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=dropout, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


def linears(network) -> list[str]:
    return [str(n.target) for n in network.graph.nodes if kind_of(n) == "linear"]


def test_encoder_at_other_lengths_and_in_train_mode(same, unfused):
    model = encoder()
    network = capture(model, torch.randn(2, 7, 16), dynamic={"src": {1: "time"}})
    assert same(model, network, torch.randn(3, 5, 16))
    assert same(model, network, torch.randn(3, 5, 16), train=True)
    assert network.notes == ()
    x = torch.randn(2, 7, 16)
    assert not torch.equal(network.train()(x), network(x)), "dropout is lost"


def test_every_linear_layer_of_an_encoder_is_a_site(unfused):
    network = capture(encoder(), torch.randn(2, 7, 16))
    names = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
    assert linears(network) == [f"layers.{i}.{name}" for i in range(2) for name in names]
    assert network.interface.renamed["layers.0.self_attn.in_proj_weight"] == (
        "layers.0.self_attn.in_proj.weight",
    )


@pytest.mark.parametrize("enabled", [True, False])
def test_the_fast_path_switch_is_left_as_it_was(enabled):
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        capture(encoder(), torch.randn(2, 7, 16))
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_encoder_captures_again(same, unfused):
    model = encoder()
    first = capture(model, torch.randn(2, 7, 16))
    second = capture(first, torch.randn(2, 7, 16))
    assert [n.meta.get("site") for n in second.graph.nodes] == [
        n.meta.get("site") for n in first.graph.nodes
    ]
    assert same(model, second, torch.randn(3, 7, 16), train=True)


def test_transformer_with_cross_attention(same, unfused):
    model = nn.Transformer(16, 2, 1, 1, 32, batch_first=True).eval()
    example = (torch.randn(2, 6, 16), torch.randn(2, 4, 16))
    network = capture(model, example)
    assert same(model, network, (torch.randn(3, 6, 16), torch.randn(3, 4, 16)))
    assert same(model, network, example, train=True)
    assert network.interface.renamed["decoder.layers.0.multihead_attn.in_proj_weight"] == (
        "decoder.layers.0.multihead_attn.in_proj_0.weight",
        "decoder.layers.0.multihead_attn.in_proj_1.weight",
    )
    assert not [n for n in network.graph.nodes if str(n.target) == "aten.linear.default"]
    assert len(linears(network)) == 4 + 7


def test_explicit_attention_weights_and_train_only_dropout(same, unfused):
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, dropout=0.3, batch_first=True)
            self.drop = 0.2

        def forward(self, x: Tensor) -> Tensor:
            y, weights = self.attention(x, x, x)
            if self.training:
                y = nn.functional.dropout(y, self.drop)
            return y + x * weights.mean()

    model = Attending().eval()
    network = capture(model, torch.randn(2, 5, 16))
    assert same(model, network, torch.randn(3, 5, 16))
    assert same(model, network, torch.randn(3, 5, 16), train=True)


def test_train_only_operators_are_noted(same):
    class DropPath(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = nn.Linear(4, 4)
            self.drop_prob = 0.5

        def forward(self, x: Tensor) -> Tensor:
            y = self.path(x)
            if self.training:
                y = y * torch.rand(x.shape[0], 1).add(0.5).floor()
            return x + y

    model = DropPath().eval()
    network = capture(model, torch.randn(2, 4))
    assert same(model, network, torch.randn(3, 4))
    assert any("only train mode runs" in note for note in network.notes)


def test_inference_form_has_no_dropout_and_is_exact(same, unfused):
    model = encoder()
    network = inference_form(capture(model, torch.randn(2, 7, 16)))
    assert same(model, network, torch.randn(3, 7, 16))
    kinds = {kind_of(n) for n in network.graph.nodes}
    assert "dropout" not in kinds
    assert "identity" not in kinds
    x = torch.randn(2, 7, 16)
    assert torch.equal(network.train()(x), network.eval()(x))


@pytest.mark.parametrize("heads", [1, 4])
def test_grouped_and_causal_attention(same, heads):
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(16, 16)
            self.key = nn.Linear(16, 16 // 4 * heads)

        def forward(self, x: Tensor) -> Tensor:
            q = self.query(x).unflatten(-1, (4, 4)).transpose(1, 2)
            k = self.key(x).unflatten(-1, (heads, 4)).transpose(1, 2)
            y = nn.functional.scaled_dot_product_attention(
                q,
                k,
                k,
                dropout_p=0.1 if self.training else 0.0,
                is_causal=True,
                enable_gqa=heads != 4,
            )
            return y.transpose(1, 2).flatten(2)

    model = Decoder().eval()
    network = capture(model, torch.randn(2, 5, 16))
    assert same(model, network, torch.randn(3, 5, 16))
    assert same(model, network, torch.randn(3, 5, 16), train=True)
