"""``kompakt lint``: clean, broken, damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from kompakt.schemes import w8a8

from ..deploy.repositories import artifact
from ..nets import deployed

Invoke = Callable[..., Result]


def written(folder: Path, target: str) -> Path:
    return deployed("residual", w8a8(), target=target).written.save(folder)


def test_a_clean_file_leaves_with_0(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("lint", "--target", "tensorrt", str(written(tmp_path, "tensorrt")))
    assert result.exit_code == 0
    assert "clean" in result.stdout


def test_violations_leave_with_3_and_say_what_to_do(invoke: Invoke, tmp_path: Path) -> None:
    path = str(written(tmp_path, "onnxruntime"))
    result = invoke("lint", path)
    told = " ".join(result.stdout.split())
    assert result.exit_code == 3
    assert "code-type" in told
    assert "help: quantize to signed int8" in told
    assert "source: https://" in told
    machine = invoke("lint", path, "--json")
    found = json.loads(machine.stdout)
    assert machine.exit_code == 3
    assert not found["ok"]
    assert {"rule", "severity", "node", "operator", "tensor", "found", "help", "source"} == set(
        found["violations"][0]
    )


def test_an_artifacts_model_is_linted(invoke: Invoke, tmp_path: Path) -> None:
    files = deployed("residual", w8a8(), target="tensorrt").written.files
    folder = artifact(tmp_path, "tensorrt", files=files)
    found = json.loads(invoke("lint", str(folder), "--json").stdout)
    assert found["ok"]
    assert found["file"] == str(folder / "model.onnx")
    other = invoke("lint", str(artifact(tmp_path / "o", "openvino")))
    assert other.exit_code == 1
    assert "error[K516]" in other.stderr


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07\x3a\xff\xff"])
def test_what_is_no_model_is_an_error(invoke: Invoke, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    result = invoke("lint", str(tmp_path / "bad.onnx"))
    assert result.exit_code == 1
    assert "error[K14" in result.stderr
    assert invoke("lint", str(tmp_path / "none.onnx")).exit_code == 1


def test_only_known_rules_can_be_asked_for(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("lint", "--target", "nothing", str(tmp_path))
    assert result.exit_code == 2
    assert "K404" in result.stderr
