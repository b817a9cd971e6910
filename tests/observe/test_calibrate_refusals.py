"""What calibration refuses, what it says, and what it leaves behind."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import DataError, SchemeError
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.observe import calibrate
from kompakt.progress import Event, listening

from .conftest import Images
from .test_calibrate import every_edge, photos, sentences


def with_bad(value: float, name: str = "x") -> Iterator[Tensor]:
    yield photos(4)
    bad = photos(4)
    bad[2, 1, 3, 3] = value
    yield bad


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_bad_inputs_are_refused_by_batch_and_name(images: Network, value: float) -> None:
    with pytest.raises(DataError, match="'x' of calibration batch 1") as caught:
        calibrate(images, every_edge(images), with_bad(value))
    assert caught.value.code == "K332"


def test_values_that_overflow_inside_are_refused_by_site(images: Network) -> None:
    network = copy.deepcopy(images)
    with torch.no_grad():
        network.stem.weight.mul_(1e35)
    batches = [photos(3), photos(3), photos(3) * 1e5]
    with pytest.raises(DataError, match="calibration batch 2") as caught:
        calibrate(network, {"x": "x", "stem": "stem"}, batches)
    assert caught.value.code == "K331"
    assert caught.value.where == "stem"


@pytest.mark.parametrize("batches", [[], [torch.empty(0, 3, 32, 32)]], ids=["none", "no sample"])
def test_no_data_is_refused(images: Network, batches: list[Tensor]) -> None:
    with pytest.raises(DataError) as caught:
        calibrate(images, {"stem": "stem"}, batches)
    assert caught.value.code in ("K330", "K133")


def test_batches_that_do_not_fit(images: Network, words: Network) -> None:
    wrong = [
        (images, [photos(2)[..., :7, :7].int()]),
        (images, [{"y": photos(2)}]),
        (images, [(photos(2), torch.zeros(2))]),
        (words, [sentences(2, 4) | {"weight": torch.rand(3, 4)}]),
    ]
    for network, batches in wrong:
        with pytest.raises(DataError):
            calibrate(network, {}, batches)


def test_unknown_and_unsuitable_sites(words: Network) -> None:
    with pytest.raises(SchemeError, match="head_1") as caught:
        calibrate(words, {"head": "head_1"}, [sentences(2, 4)])
    assert "head" in caught.value.help
    with pytest.raises(DataError, match=r"ids") as refused:
        calibrate(words, {"ids": "ids"}, [sentences(2, 4)])
    assert (caught.value.code, refused.value.code) == ("K334", "K334")


def test_one_sample_works_and_is_said_to_be_unreliable(images: Network) -> None:
    events: list[Event] = []
    with listening(events.append):
        found = calibrate(images, {"stem": "stem"}, [photos(1)])
    assert found.samples == 1
    notes = [event.message for event in events if event.kind == "note"]
    assert len(notes) == 1
    assert "unreliable" in notes[0]
    events.clear()
    with listening(events.append):
        calibrate(images, {"stem": "stem"}, [photos(4), photos(4)])
    assert [event.kind for event in events] == ["start", "advance", "advance", "end"]
    assert events[0].total == 2


def test_the_network_is_as_before_even_after_an_interruption() -> None:
    network = capture(Images(), photos(2))
    network.train()
    network.bn.eval()
    before = {name: p.clone() for name, p in network.state_dict().items()}
    modes = {name: m.training for name, m in nn.Module.named_modules(network)}
    code = network.code

    def interrupted() -> Iterator[Tensor]:
        yield photos(8)
        raise KeyboardInterrupt

    events: list[Event] = []
    with listening(events.append), pytest.raises(KeyboardInterrupt):
        calibrate(network, every_edge(network), interrupted())
    assert events[-1].kind == "end"
    assert {name: m.training for name, m in nn.Module.named_modules(network)} == modes
    assert network.code == code
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    calibrate(network, every_edge(network), [photos(2)])
    assert {name: m.training for name, m in nn.Module.named_modules(network)} == modes


def test_calibrations_of_different_sites_do_not_merge(images: Network) -> None:
    x = [photos(2)]
    one = calibrate(images, {"stem": "stem"}, x)
    other = calibrate(images, {"stem": "stem", "head": "head"}, x)
    with pytest.raises(DataError, match="merging") as caught:
        one.merge(other)
    assert caught.value.code == "K336"
    assert "head" in caught.value.why
