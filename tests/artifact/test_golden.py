"""The golden pack: comes back bit for bit, stays small, and finds every difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from kompakt.artifact import (
    GoldenBuilder,
    GoldenPack,
    arrays_to_bytes,
    compare_golden,
    golden_samples,
)
from kompakt.errors import ArtifactError

Arrays = dict[str, np.ndarray]


def codes(seed: int = 0, samples: int = 4) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "stem[/]\n": rng.integers(0, 256, (samples, 8, 5, 5)).astype(np.uint8),
        "heads": rng.integers(-128, 128, (samples * 3, 7)).astype(np.int8),
        "logits": rng.integers(-32768, 32768, (samples, 10)).astype(np.int16),
        "odd": rng.integers(-8, 8, (samples + 1, 2)).astype(np.int8),
    }


def packed(quantized: Arrays, outputs: Arrays | None = None, batches: int = 1) -> GoldenPack:
    builder = GoldenBuilder()
    for number in range(batches):
        inputs = {"x": np.full((4, 3), number, np.float32)}
        builder.add(inputs, outputs or {"y": np.ones((4, 2), np.float32)}, quantized, samples=4)
    return builder.pack()


FLOATS = nps.arrays(
    st.sampled_from([np.float32, np.float64, np.float16]),
    nps.array_shapes(min_dims=0, min_side=0, max_dims=3),
)
INTEGERS = nps.arrays(np.int64, nps.array_shapes(max_dims=3))


@given(FLOATS | INTEGERS, FLOATS)
def test_inputs_and_outputs_come_back_bit_for_bit(x: np.ndarray, y: np.ndarray) -> None:
    builder = GoldenBuilder()
    builder.add({"x/é": x}, {"y": y}, {}, samples=1)
    (batch,) = GoldenPack.from_bytes(builder.pack().to_bytes()).batches
    for given_array, found in ((x, batch.inputs["x/é"]), (y, batch.outputs["y"])):
        assert found.dtype == given_array.dtype
        assert found.shape == given_array.shape
        assert found.tobytes() == given_array.tobytes()


def test_a_pack_comes_back() -> None:
    pack = packed(codes(), batches=2)
    found = GoldenPack.from_bytes(pack.to_bytes())
    assert list(found.digests) == ["stem[/]\n", "heads", "logits", "odd"]
    assert found.digests["logits"].shape == (8, 16)
    assert found.digests["odd"].shape == (2, 16)
    assert np.array_equal(found.codes["heads"], codes()["heads"][:3].ravel())
    assert [batch.inputs["x"][0, 0] for batch in found.batches] == [0, 1]
    assert compare_golden(pack, found).exact
    assert found.to_bytes() == pack.to_bytes()


def test_a_replay_that_agrees_is_exact() -> None:
    result = compare_golden(packed(codes()), packed(codes()))
    assert result.exact
    assert result.sites == 4
    assert result.output_relative_error == 0


def test_a_wider_type_with_the_same_codes_agrees() -> None:
    wide = {site: array.astype(np.int32) for site, array in codes().items()}
    assert compare_golden(packed(codes()), packed(wide)).exact


@pytest.mark.parametrize("site", list(codes()))
@pytest.mark.parametrize("sample", [0, -1])
def test_one_code_anywhere_is_found(site: str, sample: int) -> None:
    changed = codes()
    changed[site][sample].flat[-1] ^= 1
    result = compare_golden(packed(codes()), packed(changed))
    (difference,) = result.differences
    assert not result.exact
    assert (difference.site, difference.samples) == (site, 1)
    first = sample == 0 and site != "heads"
    if first:
        assert (difference.codes, difference.largest) == (1, 1)


def test_differences_are_in_network_order_and_counted() -> None:
    changed = codes()
    changed["logits"][:3] += 5
    changed["stem[/]\n"][0, 0] ^= 128
    result = compare_golden(packed(codes()), packed(changed))
    assert [d.site for d in result.differences] == ["stem[/]\n", "logits"]
    stem, logits = result.differences
    assert (stem.samples, stem.codes, stem.largest) == (1, 25, 128)
    assert (logits.samples, logits.codes) == (3, 10)


def test_missing_sites_are_named() -> None:
    fewer = {site: array for site, array in codes().items() if site != "heads"}
    result = compare_golden(packed(codes()), packed({**fewer, "new": fewer["odd"]}))
    assert result.missing == ("heads", "new")
    assert not result.exact


def test_other_outputs_are_measured() -> None:
    wanted = packed(codes(), {"y": np.array([[3.0, 4.0]], np.float32)})
    given = packed(codes(), {"y": np.array([[3.0, 4.5]], np.float32)})
    result = compare_golden(wanted, given)
    assert result.output_relative_error == pytest.approx(0.1)
    assert not result.outputs_equal
    assert not result.exact


@pytest.mark.parametrize(
    "other",
    [
        {"z": np.ones((4, 2), np.float32)},
        {"y": np.ones((4, 3), np.float32)},
        {"y": np.full((4, 2), np.nan, np.float32)},
    ],
)
def test_outputs_that_cannot_be_compared_are_infinitely_wrong(other: Arrays) -> None:
    result = compare_golden(packed(codes()), packed(codes(), other))
    assert result.output_relative_error == np.inf
    assert not result.exact


def test_equal_nans_are_equal() -> None:
    outputs = {"y": np.array([[np.nan, np.inf]])}
    assert compare_golden(packed(codes(), outputs), packed(codes(), outputs)).exact


def test_other_batches_are_not_exact() -> None:
    result = compare_golden(packed(codes(), batches=2), packed(codes()))
    assert not result.exact
    assert result.output_relative_error == np.inf
    assert result.differences[0].samples == 8


def test_float_codes_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="codes are integers"):
        packed({"a": np.ones((4, 2))})


def test_codes_stay_below_their_limit_and_digests_are_complete() -> None:
    rng = np.random.default_rng(0)
    quantized = {
        f"layer{index}": rng.integers(0, 256, (2, 60_000)).astype(np.uint8) for index in range(40)
    }
    builder = GoldenBuilder()
    builder.add({"x": np.zeros((2, 1))}, {}, quantized, samples=2)
    pack = builder.pack()
    assert len(pack.digests) == 40
    assert len(pack.codes) == (1 << 20) // 60_000
    assert len(pack.to_bytes()) < 1.2 * (1 << 20)


@pytest.mark.parametrize(
    ("shape", "grid", "expected"),
    [
        ((8, 3, 224, 224), True, 32),
        ((8, 3, 224, 224), False, 13),
        ((1, 3, 1700, 1700), True, 1),
        ((4, 0), True, 32),
    ],
)
def test_large_inputs_mean_fewer_samples(shape: tuple[int, ...], grid: bool, expected: int) -> None:
    rng = np.random.default_rng(0)
    values: Any = rng.integers(0, 256, shape, np.uint8).astype(np.float32) / 127.5 - 1
    x = values if grid else rng.standard_normal(shape, np.float32)
    assert golden_samples({"x": x}, shape[0]) == expected


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"layout": np.frombuffer(b"nonsense", np.uint8)},
        {"layout": np.frombuffer(b"[]", np.uint8)},
        {"layout": np.frombuffer(b'{"schema": 2, "batches": 0}', np.uint8)},
        {"layout": np.frombuffer(b'{"schema": 1, "batches": "x"}', np.uint8)},
        {
            "layout": np.frombuffer(b'{"schema": 1, "batches": 1}', np.uint8),
            "input/0/x": np.array([9], np.uint8),
            "palette/input/0/x": np.array([1.0]),
        },
        {
            "layout": np.frombuffer(b'{"schema": 1, "batches": 1}', np.uint8),
            "input/0/x": np.array([0.5]),
            "palette/input/0/x": np.array([1.0]),
        },
    ],
)
def test_other_arrays_are_no_pack(arrays: Arrays) -> None:
    with pytest.raises(ArtifactError) as caught:
        GoldenPack.from_bytes(arrays_to_bytes(arrays))
    assert caught.value.code == "K515"
