"""Nodes that have no form in PyTorch: each runs in ONNX Runtime, alone, and goes home verbatim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError


class OpaqueNode(nn.Module):
    """One ONNX node, run by ONNX Runtime.

    Args:
        content: A model of this node alone, serialized.
        inputs: Names of its inputs, in the order of the call's arguments.
        op_type: Its operator, for messages.
        outputs: How many values it returns.
    """

    kind = "opaque"

    def __init__(self, content: bytes, inputs: Sequence[str], op_type: str, outputs: int) -> None:
        super().__init__()
        self.content, self.inputs, self.op_type = content, tuple(inputs), op_type
        self.outputs = outputs
        self._session: Any = None

    def forward(self, *values: Any) -> Any:
        """Run the node on tensors; returns one value, or a tuple."""
        fed = {
            name: _to_runtime(value) for name, value in zip(self.inputs, values, strict=True)
        }
        results = [_from_runtime(r) for r in self._loaded().run(None, fed)]
        return results[0] if self.outputs == 1 else tuple(results)

    def _loaded(self) -> Any:
        if self._session is None:
            import onnxruntime

            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = 1
            settings.log_severity_level = 4
            try:
                self._session = onnxruntime.InferenceSession(
                    self.content, settings, providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise CaptureError(
                    "K120",
                    f"running the ONNX operator {self.op_type}",
                    why=str(error).splitlines()[0],
                ) from error
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return self.op_type


def _to_runtime(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    # numpy makes 0-d arrays 1-d when asked for contiguous ones.
    array = value.detach().numpy()
    return np.ascontiguousarray(array).reshape(array.shape)


def _from_runtime(value: Any) -> Any:
    return torch.from_numpy(np.array(value, order="C")) if _is_numeric(value) else value


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
