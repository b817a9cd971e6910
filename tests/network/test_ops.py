"""kompakt::global_average_pool is the mean to the bit, with gradients and symbolic shapes."""

from __future__ import annotations

import pytest
import torch

import kompakt.network.ops
from kompakt.network.ops import rnn_shapes


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 5, 6), (1, 4, 2, 3, 4), (2, 3, 1, 1)])
def test_equals_the_mean_to_the_bit(shape):
    x = torch.randn(shape)
    found = torch.ops.kompakt.global_average_pool(x)
    assert torch.equal(found, x.mean(tuple(range(2, x.ndim)), keepdim=True))
    assert torch.equal(kompakt.network.ops.global_average_pool(x), found)


def test_gradient_is_that_of_the_mean():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch.ops.kompakt.global_average_pool, (x,))


def test_passes_pytorchs_own_checks():
    torch.library.opcheck(
        torch.ops.kompakt.global_average_pool.default,
        (torch.randn(2, 3, 4, 5, requires_grad=True),),
    )


def test_rnn_shapes_follow_the_layer():
    layer = torch.nn.LSTM(4, 5, 3, bidirectional=True, proj_size=2, batch_first=True)
    x = torch.randn(2, 7, 4)
    output, (hidden, cell) = layer(x)
    shapes = [tuple(shape) for shape in rnn_shapes(x, 5, 3, 2, True, 2)]
    assert shapes == [tuple(output.shape), tuple(hidden.shape), tuple(cell.shape)]
