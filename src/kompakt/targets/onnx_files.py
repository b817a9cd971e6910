"""An ONNX model as the files it is shipped in."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from kompakt.errors import TargetError

MODEL_FILE = "model.onnx"
EXTERNAL_FILE = "model.onnx.data"
PROTOBUF_LIMIT = 2_000_000_000
"""Bytes above which weights go to a file of their own: protobuf cannot hold 2 GiB."""


def serialized(model: ir.Model) -> dict[str, bytes]:
    """The model as files, checked; the first is the model itself.

    Raises:
        TargetError: K402 when the ONNX checker finds it not valid.
    """
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if size < PROTOBUF_LIMIT:
        ir.external_data.load_to_model(model)
        proto = ir.to_proto(model)
        try:
            onnx.checker.check_model(proto)
        except onnx.checker.ValidationError as error:
            raise TargetError(
                "K402", "the written ONNX model", why=str(error).splitlines()[0]
            ) from error
        return {MODEL_FILE: proto.SerializeToString(deterministic=True)}
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        path = Path(folder) / MODEL_FILE
        ir.save(model, path, external_data=EXTERNAL_FILE)
        return {name: (Path(folder) / name).read_bytes() for name in (MODEL_FILE, EXTERNAL_FILE)}
