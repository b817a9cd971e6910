"""The integer referee against fused ONNX Runtime: every code of every quantizer, running freely."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.measuring.data import Batch
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.numerics.granularity import PerTensor
from kompakt.quantize.integer import EXACT_IN_FLOAT32, run_in_integers
from kompakt.quantize.place import quantizer_calls
from kompakt.schemes import Treatment, w8a8, w8a16
from kompakt.targets.onnxruntime import kernels, probe

from ..nets import MODELS, Deployed, Net, conv, deploy, deployed, grid

EXACT = [name for name in MODELS if name not in ("encoder", "recurrent", "words")]


def runtime_codes(
    made: Deployed, folder: Path, batch: Batch
) -> tuple[dict[str, NDArray[np.generic]], list[NDArray[np.generic]]]:
    path = made.written.save(folder)
    session = probe(path, made.written.options, list(made.written.codes.values()))
    found = session(batch.arrays())
    codes = {site: found.pop(name) for site, name in made.written.codes.items()}
    return codes, list(found.values())


def referee_codes(made: Deployed, batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
    seen: dict[str, Tensor] = {}

    def note(site: str, codes: Tensor) -> None:
        seen[site] = codes

    outputs = run_in_integers(made.placed, *batch.inputs.values(), on_codes=note)
    return seen, list(outputs)


def assert_equal_everywhere(made: Deployed, folder: Path) -> None:
    assert set(made.written.codes) == set(quantizer_calls(made.placed)), "every site is compared"
    for batch in made.batches:
        theirs, outputs = runtime_codes(made, folder, batch)
        ours, expected = referee_codes(made, batch)
        assert list(ours) == list(quantizer_calls(made.placed)), "in graph order, none left out"
        for site, codes in ours.items():
            different = int((codes.numpy() != theirs[site]).sum())
            assert different == 0, f"{site}: {different} of {codes.numel()} codes"
            assert len(np.unique(theirs[site])) > 1, f"{site} says nothing"
        for mine, got in zip(expected, outputs, strict=True):
            assert np.array_equal(mine.numpy(), got)


@pytest.mark.parametrize("name", EXACT)
def test_every_code_is_equal(name: str, tmp_path: Path) -> None:
    assert_equal_everywhere(deployed(name), tmp_path)


@pytest.mark.parametrize("name", ["depthwise", "dense", "movers"])
def test_signed_activations_are_equal_too(name: str, tmp_path: Path) -> None:
    made = deployed(name, isa="arm")
    assert_equal_everywhere(made, tmp_path)
    codes, _ = runtime_codes(made, tmp_path, made.batches[0])
    assert all(values.dtype == np.int8 for values in codes.values())


@pytest.mark.parametrize(("name", "seed"), [("residual", 1), ("concat", 2), ("mixed concat", 3)])
def test_other_weights_and_other_images(name: str, seed: int, tmp_path: Path) -> None:
    assert_equal_everywhere(deployed(name, seed=seed), tmp_path)


def weights(weight: str, **settings: Any) -> Treatment:
    return Treatment(mode="static", activation="auto8", weight=weight, **settings)


ASYMMETRIC = weights("int8", symmetric_weight=False)
FORMATS = {
    "concat": {
        "a.*": weights("int8"),
        "b.*": weights("uint8"),
        "c.*": ASYMMETRIC,
        "d.*": weights("int8_narrow", granularity=PerTensor()),
        "head": weights("uint8", granularity=PerTensor(), symmetric_weight=False),
    },
    "dense 3d": {"a": weights("int7_narrow"), "b": weights("uint8"), "c": ASYMMETRIC},
}


@pytest.mark.parametrize("name", FORMATS)
def test_weight_formats_with_and_without_zero_points(name: str, tmp_path: Path) -> None:
    scheme = w8a8()
    for select, treatment in FORMATS[name].items():
        scheme = scheme.with_override(select, treatment)
    assert_equal_everywhere(deployed(name, scheme), tmp_path)


def made_of(model: nn.Module, *shape: int) -> Deployed:
    batches = [Batch({"x": grid(3, *shape, seed=s)}, None, 3) for s in range(2)]
    captured = inference_form(capture(model.eval(), batches[0].inputs["x"]))
    return deploy(captured, batches)


def _mean(s: Any, x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return s.head(x.mean(dims))


def _paddings(s: Any, x: Tensor) -> Tensor:
    y = s.b(F.pad(s.a(x), (2, 1, 1, 1), mode="reflect"))
    y = F.pad(F.pad(y, (1, 1, 1, 1), value=1.0), (0, 0, 0, 0, 0, 4))
    return _mean(s, s.c(y), (2, 3))


def _sums(s: Any, x: Tensor) -> tuple[Tensor, ...]:
    y = s.a(x)
    z = torch.add(y + y, s.c(x), alpha=0.7)
    return s.b(z), _mean(s, y, (2, 3)), y


def _siamese(s: Any, x: Tensor) -> Tensor:
    return s.head(F.relu(s.a(x))) - s.head(F.relu(s.a(2 * x)))


OTHERS = {
    "1d": (
        lambda: Net(
            lambda s, x: _mean(s, F.relu(s.b(F.relu(s.a(x)))), (2,)),
            a=nn.Conv1d(3, 8, 5, padding=2),
            b=nn.Conv1d(8, 8, 3, stride=2),
            head=nn.Linear(8, 5),
        ),
        (3, 20),
    ),
    "dilated, grouped, even kernel": (
        lambda: Net(
            lambda s, x: s.head(F.relu(s.b(F.relu(s.a(x)))).flatten(1)),
            a=nn.Conv2d(3, 8, 4, padding="same", dilation=2),
            b=nn.Conv2d(8, 8, 3, stride=2, groups=4, padding=(1, 0)),
            head=nn.Linear(160, 5),
        ),
        (3, 10, 10),
    ),
    "paddings": (
        lambda: Net(
            _paddings, a=conv(3, 8), b=conv(8, 8, padding=0), c=conv(12, 8, padding=0),
            head=nn.Linear(8, 5),
        ),
        (3, 10, 10),
    ),
    "sums and several outputs": (
        lambda: Net(_sums, a=conv(3, 8), c=conv(3, 8), b=conv(8, 2), head=nn.Linear(8, 5)),
        (3, 10, 10),
    ),
    "siamese": (
        lambda: Net(_siamese, a=nn.Linear(20, 30), head=nn.Linear(30, 4)),
        (20,),
    ),
    "wide": (
        lambda: Net(
            lambda s, x: s.head(F.relu(s.a(x))), a=nn.Linear(3000, 20), head=nn.Linear(20, 4)
        ),
        (3000,),
    ),
    "many channels": (
        lambda: Net(
            lambda s, x: _mean(s, F.relu(s.b(F.relu(s.a(x)))), (2, 3)),
            a=nn.Conv2d(3, 150, 1),
            b=nn.Conv2d(150, 8, 3),
            head=nn.Linear(8, 4),
        ),
        (3, 6, 6),
    ),
}  # fmt: skip


@pytest.fixture
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        yield


@pytest.mark.usefixtures("_seeded")
@pytest.mark.parametrize("name", OTHERS)
def test_other_networks(name: str, tmp_path: Path) -> None:
    build, shape = OTHERS[name]
    assert_equal_everywhere(made_of(build(), *shape), tmp_path)


@pytest.mark.usefixtures("_seeded")
def test_sums_beyond_float32_stay_exact(tmp_path: Path) -> None:
    """Every weight and every input at its largest: 3,000 products of 127 · 255 exceed 2²⁴ many times."""
    layer = nn.Linear(3000, 8)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(8, 3000) * 0.01 + 0.99)
    body = Net(lambda s, x: s.a(x), a=layer).eval()
    bright = [Batch({"x": 1 - 0.01 * grid(3, 3000, seed=s).abs()}, None, 3) for s in range(2)]
    made = deploy(inference_form(capture(body, bright[0].inputs["x"])), bright)
    assert EXACT_IN_FLOAT32 * 5 < 3000 * 126 * 250
    assert_equal_everywhere(made, tmp_path)


def test_a_large_bias_on_a_dead_channel(tmp_path: Path) -> None:
    body = Net(lambda s, x: s.b(F.relu(s.a(x))), a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        body.a.weight[1] *= 1e-12
        body.a.bias[1] = 3.0
    made = made_of(body, 3, 8, 8)
    codes, _ = runtime_codes(made, tmp_path, made.batches[0])
    ours, _ = referee_codes(made, made.batches[0])
    assert np.array_equal(codes["relu"], ours["relu"].numpy())
    with torch.no_grad():
        wanted = made.network(made.batches[0].inputs["x"])
        got = made.placed(made.batches[0].inputs["x"])
    assert float((wanted - got).abs().max()) < 0.1, "the bias of 3 is still there"


def test_forced_codes_go_on_instead_of_our_own() -> None:
    made = deployed("plain")
    batch = made.batches[0]
    free, outputs = referee_codes(made, batch)

    def force(site: str, codes: Tensor) -> Tensor | None:
        return torch.zeros_like(codes) if site == "a.2" else None

    seen: dict[str, Tensor] = {}

    def forced(site: str, codes: Tensor) -> Tensor | None:
        seen[site] = codes
        return force(site, codes)

    changed = run_in_integers(made.placed, *batch.inputs.values(), on_codes=forced)
    assert torch.equal(seen["a.2"], free["a.2"]), (
        "a site sees its own codes before they are replaced"
    )
    assert not torch.equal(seen["b.2"], free["b.2"])
    assert not torch.equal(changed[0], outputs[0])


def test_wide_activations_are_close_to_the_float_kernels_that_run_them(tmp_path: Path) -> None:
    made = deployed("movers", w8a16())
    theirs, outputs = runtime_codes(made, tmp_path, made.batches[0])
    ours, expected = referee_codes(made, made.batches[0])
    for site, codes in ours.items():
        gap = np.abs(codes.numpy().astype(np.int64) - theirs[site].astype(np.int64))
        assert gap.max() <= 2, site
        assert theirs[site].dtype == np.uint16
    assert np.allclose(expected[0].numpy(), outputs[0], rtol=1e-4, atol=1e-5)


def test_what_the_scheme_keeps_in_float_the_runtime_computes_with_float_weights(
    tmp_path: Path,
) -> None:
    """Left to itself, ONNX Runtime rounds such weights to 8 bits where codes come in and go out."""
    body = Net(
        lambda s, x: s.d(s.up(s.c(s.b(s.a(x))))),
        a=conv(3, 6), b=conv(6, 6), c=conv(6, 6), up=nn.ConvTranspose2d(6, 6, 2, 2), d=conv(6, 4),
    ).eval()  # fmt: skip
    batches = [Batch({"x": grid(3, 3, 8, 8, seed=s)}, None, 3) for s in range(2)]
    captured = inference_form(capture(body, batches[0].inputs["x"]))
    made = deploy(captured, batches, w8a8(keep_float=("b.*",)))
    path = made.written.save(tmp_path)
    makers = kernels(path, made.written.options, list(made.written.codes.values()))
    assert makers[made.written.codes["b.2"]] == makers[made.written.codes["up"]] == "QuantizeLinear"
    assert makers[made.written.codes["c.2"]] == "QLinearConv"
    for batch in batches:
        theirs, _ = runtime_codes(made, tmp_path, batch)
        ours, _ = referee_codes(made, batch)
        for site, codes in ours.items():
            gap = np.abs(codes.numpy().astype(int) - theirs[site])
            assert gap.max() <= 1
            assert (gap > 0).mean() < 1e-3, f"{site}: {(gap > 0).sum()} of {gap.size} codes differ"
