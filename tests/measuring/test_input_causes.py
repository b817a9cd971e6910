"""Data against calibration, and data against what batch norms were trained on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kompakt.measuring.input_causes import compare_inputs, misprepared
from kompakt.network.capture import capture
from kompakt.observe import Calibration
from kompakt.observe.input_scalars import describe

from ..diagnosis_grounds import digits_ground


def seen(x: Tensor) -> Calibration:
    return Calibration(inputs={"image": describe(x)}, samples=len(x))


def photos(seed: int, count: int = 64) -> Tensor:
    """Images in [0, 1] whose channels differ, as those of photos do."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(count, 1, 1, 1, generator=generator) * 0.3
    noise = torch.rand(count, 3, 8, 8, generator=generator) * 0.4
    return base + noise + torch.tensor([0.25, 0.15, 0.05]).reshape(1, 3, 1, 1)


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "bytes": (lambda x: x * 255, "preprocessing", "255"),
    "twice": (lambda x: x / 255, "preprocessing", "once more"),
    "signed": (lambda x: x * 2 - 1, "preprocessing", "[−1, 1]"),
    "channels": (lambda x: x.flip(1), "preprocessing", "another order"),
    "constant": (torch.zeros_like, "constant_calibration", "0 throughout"),
    "repeated": (lambda x: x[:1].expand_as(x).contiguous(), "repeated_calibration", "64 times"),
    "few": (lambda x: x[:3], "few_samples", "only 3"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_calibration_data_that_is_not_like_the_data(change: str) -> None:
    made, code, words = CHANGES[change]
    found = compare_inputs(seen(made(photos(0))), seen(photos(1)))
    assert found is not None
    assert found.code == code
    assert words in found.sentence


def test_data_of_the_same_kind_is_not_accused() -> None:
    for seed in range(5):
        assert compare_inputs(seen(photos(seed)), seen(photos(seed + 100))) is None


def test_batch_norms_remember_how_the_training_data_was_prepared() -> None:
    ground = digits_ground()
    network = capture(ground.model, ground.example)
    data = [[x] for x in ground.data]
    assert misprepared(network, data) is None
    found = misprepared(network, [[x * 255] for x in ground.data])
    assert found is not None
    assert found.facts["change"] == "divided by 255"
    assert found.facts["after"] < 0.2 * found.facts["misfit"]
