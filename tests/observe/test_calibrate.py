"""One pass through real graphs: against a walk by hand, halves, layouts, refusals."""

from __future__ import annotations

import gc
import operator
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from kompakt.network.capture import capture
from kompakt.network.network import Network, holds_tensor
from kompakt.observe import Calibration, calibrate
from kompakt.observe.batches import InputBinding, micro_batches, samples_at_once

from .test_statistics import assert_same


def every_edge(network: Network) -> dict[str, str]:
    return {
        node.meta["site"]: node.name
        for node in network.graph.nodes
        if holds_tensor(node) and node.op != "get_attr" and node.meta["val"].is_floating_point()
    }


def photos(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def sentences(count: int, length: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(length)
    return {
        "ids": torch.randint(0, 50, (count, length), generator=generator),
        "weight": torch.rand(count, length, generator=generator),
    }


class Recorder(fx.Interpreter):
    """Keeps every tensor: what calibration must not do."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n.name] = result.clone()
        return result


def recorded(network: Network, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    recorder = Recorder(network.flat())
    with torch.no_grad():
        recorder.run(*inputs.values())
    return recorder.seen


def assert_calibrations_equal(a: Calibration, b: Calibration) -> None:
    assert (a.samples, list(a.statistics), list(a.inputs)) == (
        b.samples,
        list(b.statistics),
        list(b.inputs),
    )
    for site in a.statistics:
        assert_same(a.statistics[site], b.statistics[site])
    for name in a.inputs:
        assert a.inputs[name].columns == b.inputs[name].columns
        np.testing.assert_array_equal(a.inputs[name].rows, b.inputs[name].rows)


def test_extremes_and_counts_equal_a_walk_by_hand(images: Network) -> None:
    taps, x = every_edge(images), photos(6)
    found = calibrate(images, taps, [x], channels_last=False)
    seen = recorded(images, {"x": x})
    assert found.samples == 6
    for site, node in taps.items():
        tensor, statistics = seen[node], found.statistics[site]
        assert (statistics.low, statistics.high) == (tensor.min(), tensor.max()), site
        assert statistics.values == tensor.numel(), site
        if tensor[0].numel() <= 4096:
            assert statistics.histogram.total == tensor.numel(), site
            width = statistics.histogram.width
            index = np.floor(tensor.double().numpy().ravel() / width).astype(int) + 2048
            expected = np.bincount(index, minlength=4096)
            np.testing.assert_array_equal(statistics.histogram.counts, expected, site)
        absmax = tensor.abs().flatten(1).amax(1).numpy()
        np.testing.assert_array_equal(statistics.sample_absmax, absmax, site)


def test_channels_of_convolutions_and_of_linears(images: Network, words: Network) -> None:
    found = calibrate(images, every_edge(images), [photos(4)])
    assert found.statistics["relu"].channels.silent() == [5]
    magnitudes = found.statistics["depthwise"].channels.absmax
    assert magnitudes is not None
    assert len(magnitudes) == 24
    found = calibrate(words, every_edge(words), [sentences(4, 6), sentences(4, 9)])
    magnitudes = found.statistics["encoder.linear1"].channels.absmax
    assert magnitudes is not None
    assert len(magnitudes) == 32


def test_halves_merged_equal_one_pass(images: Network, words: Network) -> None:
    for network, batches in (
        (images, [photos(8, seed) for seed in range(4)]),
        (images, [photos(n, n) for n in (20, 5, 7, 8)]),
        (words, [sentences(5, n) for n in (3, 9, 4, 12)]),
    ):
        taps = every_edge(network)
        whole = calibrate(network, taps, batches)
        for cut in (1, 2, 3):
            first = calibrate(network, taps, batches[:cut])
            assert_calibrations_equal(first.merge(calibrate(network, taps, batches[cut:])), whole)


def test_batch_size_changes_nothing_but_rounding(images: Network) -> None:
    taps, x = every_edge(images), photos(16)
    one_by_one = calibrate(images, taps, x.split(1), micro_batch=1)
    joined = calibrate(images, taps, x.split(1))
    at_once = calibrate(images, taps, [x], micro_batch=1000)
    assert [c.samples for c in (one_by_one, joined, at_once)] == [16] * 3
    for site, expected in one_by_one.statistics.items():
        for found in (joined.statistics[site], at_once.statistics[site]):
            assert found.low == pytest.approx(expected.low, rel=1e-4, abs=1e-5)
            assert found.high == pytest.approx(expected.high, rel=1e-4, abs=1e-5)
            assert found.histogram.total == expected.histogram.total
            moved = np.abs(found.histogram.counts - expected.histogram.counts).sum()
            assert moved < 0.02 * expected.histogram.total, site
    np.testing.assert_array_equal(joined.inputs["x"].rows, at_once.inputs["x"].rows)


def test_how_batches_are_cut_and_joined(images: Network, words: Network) -> None:
    def sizes(network: Network, batches: list[object], size: int | None) -> list[list[int]]:
        pieces = micro_batches(batches, InputBinding(network), size, None)  # type: ignore[arg-type]
        return [piece.numbers.tolist() for piece in pieces]

    assert sizes(images, list(photos(5).split(1)), 2) == [[0, 1], [2, 3], [4]]
    assert sizes(images, [photos(5)], 2) == [[0, 0], [0, 0], [0]]
    assert sizes(images, [photos(n) for n in (1, 5, 2, 2, 3)], 4) == [
        [0],
        [1, 1, 1, 1],
        [1],
        [2, 2, 3, 3],
        [4, 4, 4],
    ]
    lengths = [sentences(1, n) for n in (4, 4, 5, 4)]
    assert sizes(words, lengths, 8) == [[0, 1], [2], [3]]
    assert [len(piece) for piece in sizes(images, [photos(100)], None)] == [64, 36]
    assert [len(piece) for piece in sizes(words, [sentences(20, 4)], None)] == [8, 8, 4]
    assert samples_at_once([torch.empty(20, 3, 224, 224)], 20) == 8


def test_layout_changes_nothing_but_rounding(images: Network) -> None:
    taps, batches = every_edge(images), [photos(8), photos(8, 1)]
    rows = calibrate(images, taps, batches, channels_last=False)
    last = calibrate(images, taps, batches, channels_last=True)
    for site, expected in rows.statistics.items():
        found = last.statistics[site]
        assert found.low == pytest.approx(expected.low, rel=1e-4, abs=1e-5), site
        assert found.high == pytest.approx(expected.high, rel=1e-4, abs=1e-5), site
        np.testing.assert_allclose(found.channels.absmax, expected.channels.absmax, rtol=1e-3)
        low, high = expected.average.value()
        assert found.average.value() == (
            pytest.approx(low, rel=1e-3, abs=1e-5),
            pytest.approx(high, rel=1e-3, abs=1e-5),
        )


@pytest.mark.parametrize(
    "batch",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: [x],
        lambda x: {"x": x},
    ],
    ids=["tensor", "tuple", "list", "mapping"],
)
def test_ways_to_give_inputs(images: Network, batch: object) -> None:
    x = photos(3)
    found = calibrate(images, {"stem": "stem"}, [batch(x)])  # type: ignore[operator]
    assert found.statistics["stem"].samples == 3


def test_an_ordinary_graph_module_works_too() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.layer(a).relu().view(-1, 6) + b

    graph = fx.symbolic_trace(Plain())
    a, b = torch.randn(5, 4), torch.randn(5, 6)
    found = calibrate(graph, {"sum": "add", "b": "b"}, [(a, b), {"b": b, "a": a}])
    expected = graph(a, b)
    assert found.statistics["sum"].high == expected.max().item()
    assert found.statistics["b"].low == b.min().item()
    assert found.samples == 10


def test_scalars_of_inputs(images: Network) -> None:
    x = photos(5)
    rows = calibrate(images, {"stem": "stem"}, [x]).inputs["x"]
    assert rows.columns[:6] == ("mean", "std", "low", "high", "high_frequency", "saturated")
    column = dict(zip(rows.columns, rows.rows.T, strict=True))
    flat = x.flatten(1).double()
    np.testing.assert_allclose(column["mean"], flat.mean(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(column["std"], flat.std(1, correction=0), rtol=1e-5)
    np.testing.assert_array_equal(column["low"], x.flatten(1).amin(1))
    steps = (x[..., 1:] - x[..., :-1]).double().square().flatten(1).mean(1)
    np.testing.assert_allclose(column["high_frequency"], steps, rtol=1e-5)
    np.testing.assert_allclose(column["saturated"], 2 / flat.shape[1], rtol=1e-6)
    for c in range(3):
        np.testing.assert_allclose(
            column[f"channel_{c}"], x[:, c].flatten(1).mean(1), rtol=1e-4, atol=1e-6
        )


def test_max_samples(images: Network) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Tensor]:
        while True:
            taken.append(1)
            yield photos(8, len(taken))

    found = calibrate(images, {"stem": "stem"}, endless(), max_samples=21)
    assert (found.samples, found.batches, len(taken)) == (21, 3, 3)
    assert found.statistics["stem"].samples == 21


def test_dropout_and_batch_statistics_are_off() -> None:
    torch.manual_seed(0)
    network = capture(
        nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)), photos(2)[:, 0, 0, :8]
    )
    network.train()
    x = torch.randn(6, 8)
    twice = [calibrate(network, every_edge(network), [x]) for _ in range(2)]
    assert_calibrations_equal(*twice)


def test_activations_are_freed_as_it_goes() -> None:
    class Deep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(40):
                x = torch.ops.aten.mul.Tensor(x, 1.001)
            return x

    graph = fx.symbolic_trace(Deep())
    live: list[int] = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            live.append(sum(type(o) is Tensor and o.numel() == 78_477 for o in gc.get_objects()))
            return x

    graph.add_module("watch", Watch())
    last = next(n for n in graph.graph.nodes if n.op == "output").args[0]
    with graph.graph.inserting_after(last):
        watched = graph.graph.call_module("watch", (last,))
    graph.recompile()
    taps = {n.name: n.name for n in graph.graph.nodes if n.target == torch.ops.aten.mul.Tensor}
    calibrate(graph, taps | {"watched": watched.name}, [torch.randn(1, 7, 111, 101)])
    assert live[0] <= 4


def test_two_sites_may_share_a_node_and_sites_may_have_any_name(images: Network) -> None:
    hostile = "a.b/[/]\x00\U0001f600 tap_0"
    found = calibrate(images, {hostile: "stem", "tap_0": "stem"}, [photos(2)])
    one, other = found.statistics.values()
    assert one.histogram == other.histogram
    assert (one.site, other.site) == (hostile, "tap_0")


def test_in_place_relus_do_not_disturb_what_else_is_observed(images: Network) -> None:
    taps = every_edge(images)
    relus = {s: n for s, n in taps.items() if "relu" in s}
    sources = {s: n for s, n in taps.items() if s in ("bn", "depthwise", "add")}
    apart = [calibrate(images, part, [photos(4)]) for part in (relus, sources)]
    both = calibrate(images, relus | sources, [photos(4)])
    assert operator.and_(*(set(c.statistics) for c in apart)) == set()
    for calibration in apart:
        for site, statistics in calibration.statistics.items():
            assert_same(both.statistics[site], statistics)
    assert both.statistics["depthwise"].low < 0.0 or both.statistics["add"].low < 0.0
