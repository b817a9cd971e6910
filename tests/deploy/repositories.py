"""Artifacts to deploy, steps of ensembles, and what is looked at in a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from kompakt.artifact import write_artifact
from kompakt.deploy import Deployment, deploy_triton
from kompakt.deploy.triton_schema import parse
from kompakt.errors import KompaktError

FILES = {
    "onnxruntime": {"model.onnx": b"onnx"},
    "openvino": {"model.xml": b"<net/>", "model.bin": b"weights"},
    "tensorrt": {"model.onnx": b"onnx", "build_engine.py": b"pass"},
    "torchscript": {"model.pt": b"zip"},
}


def tensor(name: str, *shape: int | str, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": dtype}


def artifact(
    folder: Path,
    target: str = "onnxruntime",
    *,
    inputs: list[dict[str, Any]] | None = None,
    outputs: list[dict[str, Any]] | None = None,
    files: dict[str, bytes] | None = None,
    settings: dict[str, str] | None = None,
) -> Path:
    content = files or FILES.get(target, {"model.bin": b"x"})
    record = {
        "model": {
            "name": "my net/v1",
            "inputs": inputs or [tensor("x", "batch", 3, 10, 10)],
            "outputs": outputs or [tensor("output", "batch", 5)],
        },
        "target": {
            "name": target,
            "main": next(iter(content)),
            "session_options": settings or {},
        },
    }
    manifest = {"source_sha256": None, "scheme": {}, "target": {}, "versions": {}, "seed": 0}
    return write_artifact(folder / "artifact", files=content, manifest=manifest, record=record).path


def config(deployment: Deployment, name: str | None = None) -> Any:
    folder = deployment.repository / (name or deployment.models[-1])
    return parse((folder / "config.pbtxt").read_text())


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def refused(code: str, *arguments: Any) -> KompaktError:
    with pytest.raises(KompaktError) as caught:
        deploy_triton(*arguments)
    assert caught.value.code == code
    return caught.value


def preprocessing(name: str = "x", dtype: int = TensorProto.FLOAT, batch: str | int = "n") -> bytes:
    """Bytes to floats, channels first."""
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 10, 10, 3])
    made = helper.make_tensor_value_info(name, dtype, [batch, 3, 10, 10])
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=dtype),
        helper.make_node("Transpose", ["floats"], [name], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(nodes, "pre", [given], [made])
    content: bytes = helper.make_model(graph, ir_version=10).SerializeToString()
    return content


POST = """
INPUTS = [("output", "float32", [5])]
OUTPUTS = [("label", "string", [1])]
raise RuntimeError("this file is not run here")
"""
