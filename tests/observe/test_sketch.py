"""A calibration as arrays and back, and what happens to damaged ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kompakt.errors import ArtifactError
from kompakt.observe import Calibration, EdgeStatistics, from_arrays, to_arrays
from kompakt.observe.input_scalars import describe

from .test_calibrate import assert_calibrations_equal


def made(names: tuple[str, ...] = ("a", "b.relu"), batches: int = 3) -> Calibration:
    generator = torch.Generator().manual_seed(batches)
    statistics = {}
    for i, name in enumerate(names):
        statistics[name] = EdgeStatistics(site=name)
        for _ in range(batches):
            x = torch.randn(4, 6, 9, 9, generator=generator) * 10.0 ** (i - 1)
            statistics[name].update(x.relu() if i % 2 else x, channel_dim=1 if i else None)
    image = torch.rand(4 * batches, 3, 8, 8, generator=generator)
    return Calibration(
        statistics=statistics,
        inputs={"x": describe(image)},
        samples=4 * batches,
        batches=batches,
    )


def through_a_file(calibration: Calibration) -> Calibration:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **to_arrays(calibration))
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as file:
        return from_arrays(file)


@pytest.mark.parametrize(
    "calibration",
    [
        made(),
        made(("only",), 1),
        Calibration(),
        Calibration(statistics={"never": EdgeStatistics(site="never")}),
    ],
    ids=["two sites", "one site", "nothing", "unobserved"],
)
def test_round_trip(calibration: Calibration) -> None:
    back = through_a_file(calibration)
    assert_calibrations_equal(back, calibration)
    assert back.batches == calibration.batches


def test_what_was_read_merges_further() -> None:
    whole = made().merge(made(batches=5))
    assert_calibrations_equal(through_a_file(made()).merge(through_a_file(made(batches=5))), whole)


def test_channels_that_varied_stay_so() -> None:
    statistics = EdgeStatistics(site="s")
    statistics.update(torch.randn(2, 3), channel_dim=1)
    statistics.update(torch.randn(2, 4), channel_dim=1)
    back = through_a_file(Calibration(statistics={"s": statistics}))
    assert back.statistics["s"].channels.varied


def test_same_calibration_same_bytes() -> None:
    def written() -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **to_arrays(made()))
        return buffer.getvalue()

    assert written() == written()


def test_no_array_needs_pickle() -> None:
    assert all(array.dtype.kind in "iuf" for array in to_arrays(made()).values())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=3, unique=True))
def test_any_name_survives(names: list[str]) -> None:
    calibration = made(tuple(names), 1)
    assert list(through_a_file(calibration).statistics) == names


def changed(**changes: object) -> dict[str, np.ndarray]:
    arrays = {name: array.copy() for name, array in to_arrays(made()).items()}
    for name, change in changes.items():
        if change is None:
            del arrays[name]
        elif callable(change):
            arrays[name] = change(arrays[name])
    return arrays


def put(row: int, column: int, value: float) -> object:
    def change(array: np.ndarray) -> np.ndarray:
        array[row, column] = value
        return array

    return change


@pytest.mark.parametrize(
    "damage",
    [
        *({name: None} for name in to_arrays(made())),
        {"counts": lambda a: a[:-1]},
        {"counts": lambda a: np.append(a, 1)},
        {"counts": lambda a: -a},
        {"counts": lambda a: a.astype(np.int32)},
        {"counts": lambda a: a[None]},
        {"totals": lambda a: a[:2]},
        {"totals": lambda a: a + 1},
        {"names": lambda a: a[:-3]},
        {"names": lambda a: np.frombuffer(b"[]", np.uint8)},
        {"names": lambda a: np.frombuffer(b'{"sites": ["a"], "inputs": {}}', np.uint8)},
        {"integers": put(0, 2, 99999)},
        {"integers": put(0, 3, -5)},
        {"integers": put(1, 4, 1 << 40)},
        {"integers": put(0, 5, 1 << 40)},
        {"integers": put(1, 6, 1 << 40)},
        {"integers": put(0, 8, -1)},
        {"integers": lambda a: a[:, :-1]},
        {"reals": put(0, 0, np.nan)},
        {"reals": lambda a: a[:1]},
        {"input_0": lambda a: a[:, :2]},
        {"input_0": lambda a: np.zeros((2001, a.shape[1]), np.float32)},
    ],
    ids=lambda d: "-".join(d) if isinstance(d, dict) else "",
)
def test_damage_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ArtifactError) as caught:
        from_arrays(changed(**damage))
    assert caught.value.code == "K338"
