from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kompakt.errors import NumericsError, SchemeError
from kompakt.numerics import reference
from kompakt.numerics.granularity import (
    Granularity,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
    expand,
    extremes,
    granularity_from_json,
)


@st.composite
def shaped(draw: st.DrawFn) -> tuple[tuple[int, ...], Granularity]:
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    granularity = draw(
        st.sampled_from(
            [PerTensor(), PerChannel(axis), PerToken()] + [PerGroup(axis, n) for n in (1, 2, 3, 9)]
        )
    )
    return shape, granularity


@given(shaped(), st.integers(0, 2**31))
def test_extremes_bound_exactly_the_elements_of_their_scale(
    case: tuple[tuple[int, ...], Granularity], seed: int
) -> None:
    shape, granularity = case
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    lo, hi = extremes(x, granularity)
    assert tuple(lo.shape) == tuple(hi.shape) == granularity.parameter_shape(shape)
    low, high = expand(lo, shape, granularity), expand(hi, shape, granularity)
    assert bool((low <= x).all())
    assert bool((x <= high).all())
    # Every extreme is attained by an element of its own scale.
    index = torch.arange(lo.numel()).reshape(lo.shape)
    owner = expand(index, shape, granularity).expand(shape)
    for k in range(lo.numel()):
        mine = x[owner == k]
        assert mine.min() == lo.flatten()[k]
        assert mine.max() == hi.flatten()[k]


@given(shaped())
def test_expand_agrees_with_the_referee(case: tuple[tuple[int, ...], Granularity]) -> None:
    shape, granularity = case
    wanted = granularity.parameter_shape(shape)
    parameter = torch.arange(float(np.prod(wanted))).reshape(wanted)
    ours = expand(parameter, shape, granularity).expand(shape)
    assert np.array_equal(ours.numpy(), reference.lay_over(parameter.numpy(), shape, granularity))


@given(shaped())
def test_json_round_trip(case: tuple[tuple[int, ...], Granularity]) -> None:
    assert granularity_from_json(case[1].to_json()) == case[1]


def test_documented_shapes() -> None:
    shape = (8, 70)
    assert PerTensor().parameter_shape(shape) == ()
    assert PerChannel(0).parameter_shape(shape) == (8,)
    assert PerChannel(-1).parameter_shape(shape) == (70,)
    assert PerGroup(1, 32).parameter_shape(shape) == (8, 3)
    assert PerGroup(0, 3).parameter_shape(shape) == (3, 70)
    assert PerToken().parameter_shape(shape) == (8, 1)


@pytest.mark.parametrize(
    ("shape", "granularity"),
    [
        ((0,), PerTensor()),
        ((0, 4), PerChannel(1)),
        ((4, 0), PerGroup(1, 2)),
        ((0, 4), PerGroup(1, 2)),
        ((3, 0), PerToken()),
    ],
)
def test_empty_tensors_have_the_range_zero(
    shape: tuple[int, ...], granularity: Granularity
) -> None:
    lo, hi = extremes(torch.empty(shape), granularity)
    assert tuple(lo.shape) == tuple(hi.shape) == granularity.parameter_shape(shape)
    assert not lo.any()
    assert not hi.any()


def test_nan_reaches_the_extremes_of_its_own_scale_only() -> None:
    x = torch.ones(2, 5)
    x[1, 4] = torch.nan
    lo, hi = extremes(x, PerGroup(1, 3))
    assert lo.isnan().tolist() == hi.isnan().tolist() == [[False, False], [False, True]]


def test_gradient_flows_through_expand() -> None:
    scale = torch.ones(2, 3, requires_grad=True)
    expand(scale, (2, 7), PerGroup(1, 3)).sum().backward()
    assert scale.grad is not None
    assert scale.grad.tolist() == [[3, 3, 1], [3, 3, 1]]


@pytest.mark.parametrize(
    ("shape", "granularity"),
    [((3, 4), PerChannel(2)), ((3, 4), PerGroup(-3, 2)), ((), PerToken()), ((), PerChannel(0))],
)
def test_axes_that_do_not_exist_are_refused(
    shape: tuple[int, ...], granularity: Granularity
) -> None:
    with pytest.raises(NumericsError) as caught:
        extremes(torch.zeros(shape), granularity)
    assert caught.value.code == "K303"


def test_parameters_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(NumericsError, match=r"\(4,\).*\(3, 4\)") as caught:
        expand(torch.ones(4), (3, 4), PerChannel(0))
    assert "(3,)" in caught.value.why


def test_a_single_number_of_any_rank_is_a_per_tensor_parameter() -> None:
    assert expand(torch.ones(1, 1), (3, 4), PerTensor()).shape == ()


@pytest.mark.parametrize("size", [0, -1])
def test_groups_have_at_least_one_element(size: int) -> None:
    with pytest.raises(SchemeError, match="K303"):
        PerGroup(0, size)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "per_row"},
        {"kind": "per_channel"},
        {"kind": "per_channel", "axis": "0"},
        {"kind": "per_channel", "axis": True},
        {"kind": "per_tensor", "axis": 0},
        {"kind": "per_group", "axis": 0},
    ],
)
def test_unreadable_descriptions_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(SchemeError) as caught:
        granularity_from_json(data)
    assert caught.value.code == "K305"
