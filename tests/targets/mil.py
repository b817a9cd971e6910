"""A small interpreter of Core ML's ML programs, so that a file can be computed where Core ML is not."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kompakt.targets.coreml import PACKAGE, operations, read_spec

_STORED: dict[int, Any] = {1: np.float16, 2: np.float32, 3: np.uint8, 4: np.int8}


class Interpreter:
    """Computes the operations of a zipped package, one by one, in float32.

    Args:
        content: The zipped package.
    """

    def __init__(self, content: bytes) -> None:
        self.spec = read_spec(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = f"{PACKAGE}/Data/com.apple.CoreML/weights/weight.bin"
            self.weights = archive.read(name) if name in archive.namelist() else b""

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        env: dict[str, Any] = dict(inputs)
        for operation in operations(self.spec):
            given = {
                name: [self._argument(b, env) for b in bound.arguments]
                for name, bound in operation.inputs.items()
            }
            flat = {
                name: values[0] if len(values) == 1 else values for name, values in given.items()
            }
            attributes = {k: self._value(v) for k, v in operation.attributes.items()}
            env[operation.outputs[0].name] = getattr(self, operation.type)(attributes, **flat)
        return {o.name: env[o.name] for o in self.spec.description.output}

    def _argument(self, binding: Any, env: dict[str, Any]) -> Any:
        named = binding.WhichOneof("binding") == "name"
        return env[binding.name] if named else self._value(binding.value)

    def _value(self, value: Any) -> Any:
        if value.WhichOneof("value") == "blobFileValue":
            return self._blob(value)
        tensor = value.immediateValue.tensor
        kind = tensor.WhichOneof("value")
        shape = [d.constant.size for d in value.type.tensorType.dimensions]
        if kind == "bytes":
            dtype = {21: np.int8, 31: np.uint8}.get(value.type.tensorType.dataType, np.int8)
            numbers: Any = np.frombuffer(tensor.bytes.values, dtype)
        else:
            numbers = list(getattr(tensor, kind).values)
        if kind == "strings":
            return numbers[0]
        made = torch.as_tensor(np.array(numbers))
        made = made.float() if made.dtype == torch.float64 else made
        return made.reshape(shape) if shape else made.reshape(())

    def _blob(self, value: Any) -> Tensor:
        at = value.blobFileValue.offset
        magic, kind, size, start = struct.unpack_from("<IIQQ", self.weights, at)
        assert magic == 0xDEADBEEF
        numbers = np.frombuffer(self.weights[start : start + size], _STORED[kind])
        shape = [d.constant.size for d in value.type.tensorType.dimensions]
        return torch.from_numpy(numbers.copy()).reshape(shape)

    # Operations

    def const(self, a: Any) -> Any:
        return a["val"]

    def constexpr_affine_dequantize(self, a: Any) -> Tensor:
        data, axis = a["quantized_data"], int(a["axis"])
        shape = [1] * data.dim()
        shape[axis] = -1
        scale, zero = a["scale"].float(), a["zero_point"].float()
        scale, zero = (t.reshape(shape) if t.dim() else t for t in (scale, zero))
        return (data.float() - zero) * scale

    def quantize(
        self, a: Any, *, input: Tensor, scale: Tensor, output_dtype: Any, **k: Any
    ) -> Tensor:
        low, high = (-128, 127) if output_dtype == "int8" else (0, 255)
        zero = k.get("zero_point", torch.zeros(()))
        return (torch.round(input / scale) + zero.float()).clamp(low, high)

    def dequantize(self, a: Any, *, input: Tensor, scale: Tensor, **k: Any) -> Tensor:
        return (input - k.get("zero_point", torch.zeros(())).float()) * scale

    def conv(self, a: Any, *, x: Tensor, weight: Tensor, **k: Any) -> Tensor:
        if k["pad_type"] == "custom":
            pads = [int(p) for p in k["pad"].reshape(-1)]
            x = F.pad(
                x,
                [
                    p
                    for pair in reversed(list(zip(pads[0::2], pads[1::2], strict=True)))
                    for p in pair
                ],
            )
        settings = {
            n: [int(v) for v in k[m].reshape(-1)]
            for n, m in (("stride", "strides"), ("dilation", "dilations"))
        }
        convolve = F.conv2d if weight.dim() == 4 else F.conv1d
        return convolve(x, weight, k.get("bias"), groups=int(k["groups"]), **settings)

    def linear(self, a: Any, *, x: Tensor, weight: Tensor, **k: Any) -> Tensor:
        return F.linear(x, weight, k.get("bias"))

    def relu(self, a: Any, *, x: Tensor) -> Tensor:
        return F.relu(x)

    def relu6(self, a: Any, *, x: Tensor) -> Tensor:
        return F.relu6(x)

    def clip(self, a: Any, *, x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        return x.clamp(float(alpha), float(beta))

    def add(self, a: Any, *, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def reduce_mean(self, a: Any, *, x: Tensor, axes: Tensor, keep_dims: Tensor) -> Tensor:
        return x.mean([int(n) for n in axes.reshape(-1)], keepdim=bool(keep_dims))

    def reshape(self, a: Any, *, x: Tensor, shape: Tensor) -> Tensor:
        return x.reshape([int(n) for n in shape.reshape(-1)])

    def cast(self, a: Any, *, x: Tensor, dtype: str) -> Tensor:
        return x.float() if dtype.startswith("fp") else x

    def pad(self, a: Any, *, x: Tensor, pad: Tensor, **k: Any) -> Tensor:
        pads = [int(p) for p in pad.reshape(-1)]
        pairs = list(zip(pads[0::2], pads[1::2], strict=True))
        return F.pad(x, [p for pair in reversed(pairs) for p in pair])

    def slice_by_index(self, a: Any, *, x: Tensor, begin: Tensor, end: Tensor, **k: Any) -> Tensor:
        rank = x.dim()
        steps = k.get("stride", torch.ones(rank)).reshape(-1)
        open_ends = k.get("end_mask", torch.zeros(rank)).reshape(-1)
        ends = [
            None if bool(m) else int(e) for e, m in zip(end.reshape(-1), open_ends, strict=True)
        ]
        return x[
            tuple(
                slice(int(b), e, int(s))
                for b, e, s in zip(begin.reshape(-1), ends, steps, strict=True)
            )
        ]
