"""The workbench: everything that can be done once is done once, and a build is what its file computes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kompakt.errors import DataError, SchemeError, TargetError
from kompakt.measuring.data import Batch
from kompakt.observe import OBSERVERS
from kompakt.schemes import Scheme, Treatment, float32, w8, w8a8
from kompakt.search.candidates import Candidate, static, with_bias_correction
from kompakt.search.workbench import Stopwatch, Workbench, method_batches

from ..nets import batches_for, network
from .benches import workbench


class Counted:
    """Data that counts how often it is read."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.passes = batches, 0

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        return iter(self.batches)


def bench_with(data: Any, folder: Path) -> Workbench:
    bench = workbench("plain", folder)
    return Workbench(
        bench.network, bench.target, bench.isa, folder, data, batches_for("plain"), bench.threads
    )


def test_data_is_read_once_whatever_the_number_of_candidates(tmp_path: Path) -> None:
    data = Counted(batches_for("plain"))
    bench = bench_with(data, tmp_path)
    for observer in OBSERVERS:
        bench.place(static(observer))
    bench.place(static("mse", ("head",)))
    bench.build(with_bias_correction(static("mse")))
    assert data.passes == 1


def test_it_is_read_again_when_other_sites_are_needed_and_nothing_is_forgotten(
    tmp_path: Path,
) -> None:
    data = Counted(batches_for("plain"))
    bench = bench_with(data, tmp_path)
    bench.place(static("mse", ("a", "b")))
    head_alone = bench.calibration
    bench.place(static("mse"))
    assert data.passes == 2
    assert head_alone is not None
    assert bench.calibration is not None
    assert set(head_alone.statistics) < set(bench.calibration.statistics)
    bench.place(static("mse", ("a", "b")))
    assert data.passes == 2


def test_candidates_without_activations_read_no_data(tmp_path: Path) -> None:
    data = Counted(batches_for("plain"))
    bench = bench_with(data, tmp_path)
    bench.build(Candidate(name="w8", level=1, scheme=w8()))
    assert data.passes == 0
    assert bench.calibration is None


def test_the_float_model_is_written_once_and_computes_the_same(tmp_path: Path) -> None:
    bench = workbench("residual", tmp_path)
    first = bench.float_build()
    assert bench.float_build() is first
    inputs = batches_for("residual")[0]
    (found,) = first.runnable(inputs.arrays()).values()
    with torch.no_grad():
        (wanted,) = bench.network.call_flat(list(inputs.inputs.values()))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_each_build_has_files_of_its_own_and_runs_them(tmp_path: Path) -> None:
    bench = workbench("plain", tmp_path)
    builds = [
        bench.float_build(),
        bench.build(Candidate(name="w8", level=1, scheme=w8())),
        bench.build(static("mse")),
        bench.build(with_bias_correction(static("mse"))),
    ]
    assert len({build.path.parent for build in builds}) == len(builds)
    arrays = batches_for("plain")[0].arrays()
    outputs = []
    for build in builds:
        assert build.path.parent.parent == tmp_path
        assert build.path.read_bytes() == build.written.files[build.written.main]
        outputs.append(next(iter(build.runnable(arrays).values())))
    exact = outputs[0]
    for found in outputs[1:]:
        assert 0 < np.abs(found - exact).max() < 0.2 * np.abs(exact).max()
    assert not np.array_equal(outputs[2], outputs[3]), "the correction changed the file"
    assert {"place", "freeze", "write", "calibrate", "load"} <= set(bench.clock.wall)
    assert {"bias_correction", "write float"} <= set(bench.clock.cpu)


def test_the_captured_network_stays_as_it_was(tmp_path: Path) -> None:
    bench = workbench("plain", tmp_path)
    before = {name: tensor.clone() for name, tensor in bench.prepared.state_dict().items()}
    bench.build(with_bias_correction(static("minmax")))
    after = bench.prepared.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_static_candidates_need_data(tmp_path: Path) -> None:
    bench = workbench("plain", tmp_path, data=False)
    assert not bench.has_data
    with pytest.raises(DataError) as caught:
        bench.build(static("mse"))
    assert caught.value.code == "K601"


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    bench = workbench("plain", tmp_path)
    odd = Treatment(mode="static", weight="int2", activation="auto8")
    with pytest.raises(TargetError) as caught:
        bench.build(Candidate(name="x", level=2, scheme=Scheme(name="x", default=odd)))
    assert caught.value.code == "K400"
    with pytest.raises(SchemeError) as unknown:
        bench.build(Candidate(name="x", level=2, scheme=w8a8(), calibrator="median"))
    assert unknown.value.code == "K346"
    with pytest.raises(SchemeError) as nothing:
        bench.build(Candidate(name="x", level=2, scheme=w8a8(keep_float=("*",))))
    assert nothing.value.code == "K345"
    assert bench.build(Candidate(name="float", level=0, scheme=float32())).path.is_file()


def test_methods_get_samples_of_every_shape() -> None:
    wide = Batch({"x": torch.zeros(3, 3, 20, 20)}, None, 3)
    given = [*batches_for("plain"), wide]
    taken = method_batches(given)
    assert [len(inputs) for inputs in taken] == [1, 1, 1]
    assert all(torch.equal(t, b.inputs["x"]) for (t,), b in zip(taken, given, strict=True))
    assert network("plain").input_specs[0].name == "x"


def test_a_stage_is_timed_even_when_it_fails() -> None:
    clock = Stopwatch()

    def fail() -> None:
        with clock.stage("work"):
            time.sleep(0.01)
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
    assert 0.02 <= clock.wall["work"] < 1
    assert clock.cpu["work"] < clock.wall["work"]
