"""An ONNX model as OpenVINO IR: the bytes of an ``.xml`` and a ``.bin`` file, the same at every write."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from kompakt.errors import TargetError
from kompakt.network.interface import TensorSpec
from kompakt.targets.openvino_attention import fuse_attention

MODEL_FILE, WEIGHTS_FILE = "model.xml", "model.bin"
DIMENSIONS = ("kompakt", "dimensions")
"""Where in the IR's free-form information the names of dynamic dimensions are: IR itself has none."""


def intermediate_representation(model: ir.Model, specs: Sequence[TensorSpec]) -> dict[str, bytes]:
    """Read an ONNX model with OpenVINO and save it as IR.

    Args:
        model: The model.
        specs: Its inputs; the names of their dynamic dimensions are kept.

    Returns:
        File name to content; the ``.xml`` file first.

    Raises:
        TargetError: K401 when OpenVINO does not know an operator, K402 when it does not accept the model.
    """
    import openvino

    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.onnx.data")
        try:
            read = openvino.Core().read_model(str(path))
        except Exception as error:
            raise _refused(error) from error
        drop_zero_points(read)
        fuse_attention(read)
        name_nodes(read)
        for spec in specs:
            names = ",".join(str(size) for size in spec.shape)
            read.set_rt_info(names, [*DIMENSIONS, spec.name])
        files = [Path(folder) / name for name in (MODEL_FILE, WEIGHTS_FILE)]
        openvino.serialize(read, *files)
        return {file.name: file.read_bytes() for file in files}


def _refused(error: Exception) -> TargetError:
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "conversion" in text.lower() or "unsupported" in text.lower():
        why = next((line for line in lines if "conversion" in line.lower()), lines[0])
        return TargetError(
            "K401",
            "writing the network for OpenVINO",
            why=why,
            help="`kompakt inspect` lists its operators; report the one named above",
        )
    return TargetError("K402", "the written OpenVINO model", why=lines[0] if lines else "")


def drop_zero_points(model: Any) -> None:
    """Fold reshapes of constants and leave out subtractions of zeros, in place."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Reshape" and _is_scale(node.input_value(0).get_node()):
            numbers = node.input_value(0).get_node().data
            shape = list(node.get_output_shape(0))
            folded = opset13.constant(np.ascontiguousarray(numbers).reshape(shape))
            _replace(node, folded.output(0))
        elif kind == "Subtract" and _is_zero(node.input_value(1).get_node()):
            _replace(node, node.input_value(0))


def _is_scale(node: Any) -> bool:
    """Whether this is a constant of ordinary floats."""
    return bool(
        node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32"
    )


def _is_zero(node: Any) -> bool:
    """Whether this is a constant of zero points, all of them 0."""
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return False
    if node.get_element_type().get_type_name() not in ("i8", "u8", "i32"):
        return False
    return not np.any(node.data)


def _replace(node: Any, output: Any) -> None:
    for reader in list(node.output(0).get_target_inputs()):
        reader.replace_source_output(output)


def name_nodes(model: Any) -> None:
    """Give the nodes that OpenVINO numbered across the whole process names that depend on the model alone."""
    counts: Counter[str] = Counter()
    taken = {node.get_friendly_name() for node in model.get_ops() if not _is_numbered(node)}
    for node in model.get_ordered_ops():
        if not _is_numbered(node):
            continue
        kind = node.get_type_name()
        while True:
            counts[kind] += 1
            name = f"{kind}_{counts[kind]}"
            if name not in taken:
                break
        node.set_friendly_name(name)


def _is_numbered(node: Any) -> bool:
    return bool(node.get_friendly_name() == node.get_name())
