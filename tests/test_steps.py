"""The steps, each alone: place, calibrate, write, measure, load, replay, inspect."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kompakt
from kompakt.artifact import open_artifact, write_artifact
from kompakt.certification import run_network
from kompakt.compression import Result
from kompakt.errors import (
    ArtifactError,
    CaptureError,
    DataError,
    OutputError,
    SchemeError,
    UsageError,
)
from kompakt.network.network import Network
from kompakt.observe import OBSERVERS
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.place import quantizer_calls, quantizer_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.steps import calibrate, inspect, load, measure, place, replay, write
from kompakt.targets import get_target

from .digits import calibration, squeeze, trained, validation

EXAMPLE = torch.zeros(2, 1, 8, 8)


@pytest.fixture(scope="module")
def network() -> Network:
    """The captured classifier; not to be changed."""
    return kompakt.capture(trained(), EXAMPLE)


@pytest.fixture
def placed(network: Network) -> Network:
    return place(network, "w8a8")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("artifact") / "out"
    return squeeze(out, calibration=calibration(), scheme="w8a8")


def ranges(placed: Network) -> dict[str, tuple[float, float]]:
    calls = quantizer_calls(placed)
    return {site: quantizer_of(placed, node).represented_range() for site, node in calls.items()}


def outputs(model: Any, images: Tensor) -> np.ndarray[Any, Any]:
    return next(iter(model({"image": images.numpy()}).values()))


# --- place, calibrate, write ------------------------------------------------------------------


def test_placing_leaves_the_network_as_it_was(network: Network) -> None:
    code, weights = network.code, {k: v.clone() for k, v in network.state_dict().items()}
    placed = place(network, "w8a8")
    assert len(quantizer_calls(placed)) >= 3
    assert quantizer_calls(network) == {}
    assert network.code == code
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())
    assert any("running_mean" in name for name in weights), "the copy's batch norms were folded"
    assert not any("running_mean" in name for name in placed.state_dict())


def test_calibrating_gives_every_quantizer_a_range_of_the_data(placed: Network) -> None:
    seen = calibrate(placed, calibration(), "minmax")
    images = torch.cat(calibration())
    low, high = ranges(placed)["image"]
    assert low <= float(images.min()) <= float(images.max()) <= high + (high - low) / 255
    assert set(seen.statistics) == set(ranges(placed))


def test_labels_are_ignored_and_ranges_can_be_chosen_again(network: Network) -> None:
    plain, labelled = place(network, "w8a8"), place(network, "w8a8")
    seen = calibrate(plain, calibration(), "minmax")
    calibrate(labelled, [(x, torch.zeros(len(x))) for x in calibration()], "minmax")
    assert ranges(plain) == ranges(labelled)
    set_ranges_(plain, seen, "percentile")
    assert ranges(plain) != ranges(labelled)
    per_site = dict.fromkeys(ranges(labelled), "minmax") | {"image": "moving_average"}
    mixed = place(network, "w8a8")
    calibrate(mixed, calibration(), per_site)
    different = {site for site, span in ranges(mixed).items() if span != ranges(labelled)[site]}
    assert different <= {"image"}
    assert set(per_site.values()) <= set(OBSERVERS)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ([], "K203"),
        ([torch.full((2, 1, 8, 8), float("nan"))], "K207"),
        ([torch.zeros(2, 3, 8, 8)], "K205"),
    ],
)
def test_data_that_cannot_be_used(placed: Network, data: list[Tensor], code: str) -> None:
    with pytest.raises(DataError) as caught:
        calibrate(placed, data)
    assert caught.value.code == code


def test_the_written_file_computes_what_the_placed_network_does(
    placed: Network, tmp_path: Path
) -> None:
    calibrate(placed, calibration())
    images = calibration()[0]
    simulated = run_network(placed, {"image": images.numpy()})["output"]
    written = write(placed, tmp_path / "digits.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["digits.onnx"]
    assert (tmp_path / "digits.onnx").stat().st_size == written.size_bytes
    exact = trained()(images).detach().numpy()
    session = get_target("onnxruntime").load(tmp_path / "digits.onnx", {}, 1)
    found = outputs(session, images)
    assert np.abs(found - simulated).max() < 0.02 * np.abs(exact).max()
    assert 0 < np.abs(found - exact).max() < 0.2 * np.abs(exact).max()


@pytest.mark.parametrize("first", ["write", "freeze"])
def test_calibrated_anew_a_network_is_written_as_if_for_the_first_time(
    network: Network, first: str, tmp_path: Path
) -> None:
    """Integer biases belong to the input scales they were made for."""
    once, again = place(network, "w8a8"), place(network, "w8a8")
    calibrate(again, [images * 7 for images in calibration()], "minmax")
    if first == "write":
        write(again, tmp_path / "first.onnx")
    else:
        freeze_(again)
    for placed in (once, again):
        calibrate(placed, calibration(), "minmax")
    write(once, tmp_path / "once.onnx")
    write(again, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "once.onnx").read_bytes()


def test_writing_leaves_the_network_as_it_was(placed: Network, tmp_path: Path) -> None:
    """Weights trained after the first file are in the second."""
    calibrate(placed, calibration(), "minmax")
    write(placed, tmp_path / "before.onnx")
    layer = placed.get_submodule("head")
    assert not layer.frozen
    with torch.no_grad():
        layer.weight.mul_(-1)
    write(placed, tmp_path / "after.onnx")
    images = calibration()[0]
    before, after = (outputs(get_target("onnxruntime").load(tmp_path / name), images)
                     for name in ("before.onnx", "after.onnx"))  # fmt: skip
    bias = layer.bias.detach().numpy()
    assert np.abs((before - bias) + (after - bias)).max() < 0.02 * np.abs(before).max()


def test_an_untouched_network_is_written_as_it_is(network: Network, tmp_path: Path) -> None:
    write(network, tmp_path / "float.onnx")
    session = get_target("onnxruntime").load(tmp_path / "float.onnx", {}, 1)
    images = calibration()[0]
    exact = trained()(images).detach().numpy()
    np.testing.assert_allclose(outputs(session, images), exact, rtol=1e-4, atol=1e-4)


def test_a_network_without_ranges_is_not_written(placed: Network, tmp_path: Path) -> None:
    with pytest.raises(SchemeError) as caught:
        write(placed, tmp_path / "x.onnx")
    assert caught.value.code == "K343"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_what_was_there(
    network: Network, tmp_path: Path
) -> None:
    with pytest.raises(OutputError) as caught:
        write(network, tmp_path / "nowhere" / "x.onnx")
    assert caught.value.code == "K500"
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(OutputError):
        write(network, tmp_path / "x.onnx")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["x.onnx"]


@pytest.mark.parametrize("step", [place, inspect])
def test_names_that_do_not_exist(network: Network, step: Any) -> None:
    with pytest.raises(SchemeError) as scheme:
        step(network, scheme="w9")
    assert scheme.value.code == "K342"
    with pytest.raises(UsageError) as target:
        step(network, scheme="w8", target="tpu")
    assert target.value.code == "K404"


# --- load, measure, replay --------------------------------------------------------------------


def test_a_loaded_artifact_runs(artifact: Result) -> None:
    images, labels = (torch.cat(parts) for parts in zip(*validation(), strict=True))
    right = outputs(load(artifact.path), images).argmax(1) == labels.numpy()
    assert right.mean() > 0.85


def test_what_is_no_whole_artifact_is_not_loaded(artifact: Result, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as nothing:
        load(tmp_path)
    assert nothing.value.code == "K510"
    shutil.copytree(artifact.path, tmp_path / "out")
    with (tmp_path / "out" / "model.onnx").open("r+b") as file:
        file.seek(200)
        file.write(b"\x00\xff")
    for step in (load, replay):
        with pytest.raises(ArtifactError) as changed:
            step(tmp_path / "out")
        assert changed.value.code == "K511"
        assert "model.onnx" in changed.value.what


def rewritten(source: Path, out: Path, **changes: Any) -> Path:
    """The same artifact with other content, honestly listed in its manifest."""
    old = open_artifact(source)
    keys = ("source_sha256", "scheme", "target", "versions", "seed")
    content = {
        "files": {"model.onnx": source / "model.onnx"},
        "manifest": {key: old.manifest[key] for key in keys},
        "record": old.record,
        "golden": old.golden(),
    }
    return write_artifact(out, **{**content, **changes}).path


def test_a_replay_finds_what_differs(artifact: Result, tmp_path: Path) -> None:
    assert replay(artifact.path).exact
    golden = open_artifact(artifact.path).golden()
    assert golden is not None
    first = golden.batches[0]
    off = {name: values + np.float32(1) for name, values in first.outputs.items()}
    wrong = replace(golden, batches=(replace(first, outputs=off), *golden.batches[1:]))
    found = replay(rewritten(artifact.path, tmp_path / "outputs", golden=wrong))
    assert not found.exact
    assert not found.agrees
    assert not found.outputs_equal
    assert found.differences == ()
    site = list(golden.digests)[1]
    digests = {**golden.digests, site: golden.digests[site] ^ np.uint8(1)}
    found = replay(
        rewritten(artifact.path, tmp_path / "codes", golden=replace(golden, digests=digests))
    )
    assert [difference.site for difference in found.differences] == [site]
    assert found.outputs_equal


def test_last_bits_of_float_outputs_are_no_difference(artifact: Result, tmp_path: Path) -> None:
    golden = open_artifact(artifact.path).golden()
    assert golden is not None
    first = golden.batches[0]

    def elsewhere(factor: float) -> Any:
        off = {name: values * np.float32(factor) for name, values in first.outputs.items()}
        wrong = replace(golden, batches=(replace(first, outputs=off), *golden.batches[1:]))
        return replay(rewritten(artifact.path, tmp_path / str(factor), golden=wrong))

    close, far = elsewhere(1 + 1e-6), elsewhere(1 + 1e-4)
    assert close.output_tolerance == 1e-5, "the certificate's own"
    assert close.agrees
    assert not close.exact
    assert not far.agrees


def test_an_artifact_that_does_not_say_enough(artifact: Result, tmp_path: Path) -> None:
    bare = rewritten(artifact.path, tmp_path / "bare", golden=None)
    with pytest.raises(ArtifactError) as caught:
        replay(bare)
    assert caught.value.code == "K531"
    assert outputs(load(bare), calibration()[0]).shape == (50, 10)
    manifest = json.loads((bare / "manifest.json").read_text())
    keys = ("source_sha256", "scheme", "versions", "seed")
    unnamed = {**{key: manifest[key] for key in keys}, "target": {"name": "onnxruntime"}}
    with pytest.raises(ArtifactError) as vague:
        load(rewritten(artifact.path, tmp_path / "vague", manifest=unnamed))
    assert vague.value.code == "K532"


def test_measuring_alone_and_against(artifact: Result, network: Network) -> None:
    alone = measure(artifact.path, validation())
    assert set(alone) >= {"metric", "value", "n"}
    assert "drop" not in alone
    assert "baseline" not in alone
    assert alone["n"] == 400
    images, labels = (torch.cat(parts) for parts in zip(*validation(), strict=True))
    found = outputs(load(artifact.path), images).argmax(1)
    assert alone["value"] == pytest.approx((found == labels.numpy()).mean())
    low, high = alone["value_interval"]
    assert low < alone["value"] < high < low + 0.15
    assert alone["value_method"] == "Wilson score interval"
    with pytest.raises(UsageError, match="K600"):
        measure(artifact.path, validation(), against=network, max_drop=2)
    paired = measure(artifact.path, validation(), against=network, max_drop=0.1)
    assert paired["value"] == alone["value"]
    assert paired["baseline"] == measure(network, validation())["value"]
    assert paired["drop"] == pytest.approx(paired["baseline"] - paired["value"])
    assert paired["verdict"] == "proven"


def test_a_model_against_itself_loses_nothing(artifact: Result) -> None:
    images = [images for images, _ in validation()]
    file = artifact.path / "model.onnx"
    found = measure(file, images, "agreement", against=artifact.path, max_drop=0.0)
    assert found["value"] == found["baseline"] == 1.0
    assert found["drop"] == 0.0
    assert found["discordant"] == 0


def test_measuring_without_labels(network: Network) -> None:
    with pytest.raises(DataError) as caught:
        measure(network, calibration(), "top1")
    assert caught.value.code == "K210"


# --- inspect ----------------------------------------------------------------------------------


def test_every_layer_says_what_happens_to_it() -> None:
    rows = {
        row["name"]: row
        for row in inspect(trained(), example_inputs=EXAMPLE, keep_float=["head"])
        if row["role"] == "weight"
    }
    assert set(rows) == {"body.0", "body.3", "head"}
    assert rows["body.0"]["format"]
    assert rows["body.0"]["why_float"] is None
    assert rows["body.3"]["parameters"] == 16 * 24 * 9 + 24, "with the folded batch norm's bias"
    assert rows["body.3"]["macs"] == 16 * 24 * 9 * 16
    assert rows["head"]["format"] is None
    assert "float" in rows["head"]["why_float"]


def test_a_scheme_that_fits_nothing_is_shown_layer_by_layer(network: Network) -> None:
    rows = [row for row in inspect(network, keep_float=["*"]) if row["role"] == "weight"]
    assert len(rows) == 3
    assert all(row["format"] is None and row["why_float"] for row in rows)


def test_a_pattern_that_selects_nothing_is_refused(network: Network) -> None:
    with pytest.raises(SchemeError) as caught:
        inspect(network, keep_float=["tail"])
    assert caught.value.code == "K320"
    with pytest.raises(CaptureError):
        inspect(trained())
