"""ONNX files as Networks: layers as modules, known operators as ATen calls, everything else opaque."""

from __future__ import annotations

from kompakt.network.onnx.importing import import_onnx
from kompakt.network.onnx.origin import Origin, origin_of, source_of
from kompakt.network.onnx.source import OnnxSource

__all__ = ["OnnxSource", "Origin", "import_onnx", "origin_of", "source_of"]
