"""Steps before and behind a model: wired by name, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto

from kompakt.deploy import TritonOptions, deploy_triton

from .repositories import POST, artifact, config, preprocessing, refused


def test_an_ensemble_wires_steps_by_name(tmp_path: Path) -> None:
    (tmp_path / "pre.onnx").write_bytes(preprocessing())
    (tmp_path / "post.py").write_text(POST)
    options = TritonOptions(
        name="net", before=tmp_path / "pre.onnx", behind=tmp_path / "post.py", max_batch=4
    )
    done = deploy_triton(artifact(tmp_path), tmp_path / "repository", options)
    assert done.models == ("net_pre", "net", "net_post", "net_ensemble")
    found = config(done)
    assert (found.platform, found.max_batch_size) == ("ensemble", 4)
    steps = found.ensemble_scheduling.step
    assert [s.model_name for s in steps] == ["net_pre", "net", "net_post"]
    assert [dict(s.input_map) for s in steps] == [
        {"image": "image"},
        {"x": "x"},
        {"output": "output"},
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in found.input] == [("image", 2, [10, 10, 3])]
    assert [(t.name, t.data_type, list(t.dims)) for t in found.output] == [("label", 13, [1])]
    assert (done.repository / "net_ensemble/1").is_dir()
    assert config(done, "net_post").backend == "python"
    assert (done.repository / "net_post/1/model.py").read_text() == POST


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (preprocessing("other"), "nothing before it makes 'x'"),
        (preprocessing(dtype=TensorProto.DOUBLE), "made as float64"),
        (preprocessing(batch=1), "dynamic batch"),
        (b"no model", "no ONNX model"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "pre.onnx").write_bytes(content)
    options = TritonOptions(before=tmp_path / "pre.onnx")
    assert why in refused("K543", artifact(tmp_path), tmp_path / "repository", options).why
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    "source",
    [
        "INPUTS = [('output', 'float32', [5])]",
        "INPUTS = OUTPUTS = [open('x')]",
        "INPUTS = OUTPUTS = [('output', 'float31', [5])]",
        "INPUTS = OUTPUTS = [('output', 'float32', [0])]",
        "INPUTS = OUTPUTS = []",
        "def broken(:",
        "INPUTS = OUTPUTS = " + "[" * 5000 + "]" * 5000,
    ],
)
def test_a_python_step_says_its_tensors_in_literals(source: str, tmp_path: Path) -> None:
    (tmp_path / "post.py").write_text(source)
    options = TritonOptions(behind=tmp_path / "post.py")
    refused("K543", artifact(tmp_path), tmp_path / "repository", options)
