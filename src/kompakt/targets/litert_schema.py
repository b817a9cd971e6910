"""The TFLite file format: tables of tensors and operators packed into a flatbuffer.

Equal vectors (the zero points of all layers with as many channels, the scales of a bias shared by twins) are stored
once, which saves a fifth of a keyword model's file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kompakt.targets.litert_emitter import OperatorRow, TensorRow

FILE_ID = b"TFL3"
ALIGNMENT = 16


class TensorType(NamedTuple):
    """An element type: its number in the schema and the numpy type that holds it."""

    code: int
    numpy: Any


TYPES: dict[str, TensorType] = {
    "float32": TensorType(0, np.float32),
    "float16": TensorType(1, np.float16),
    "int32": TensorType(2, np.int32),
    "uint8": TensorType(3, np.uint8),
    "int64": TensorType(4, np.int64),
    "bool": TensorType(6, np.bool_),
    "int16": TensorType(7, np.int16),
    "int8": TensorType(9, np.int8),
    "int4": TensorType(17, np.int8),
}

VERSIONS: dict[str, int] = {
    "ADD": 2, "AVERAGE_POOL_2D": 2, "CONCATENATION": 2, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 6,
    "DEQUANTIZE": 2, "FULLY_CONNECTED": 9, "LEAKY_RELU": 2, "LOGISTIC": 2, "MAX_POOL_2D": 2, "MEAN": 2,
    "MUL": 2, "PAD": 2, "PADV2": 2, "QUANTIZE": 2, "RELU": 2, "RELU6": 2, "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 3, "SOFTMAX": 2, "SPLIT": 2, "STRIDED_SLICE": 2, "SUB": 2, "TANH": 2,
    "TRANSPOSE": 2, "TRANSPOSE_CONV": 3, "BATCH_MATMUL": 2, "GATHER": 2,
}  # fmt: skip
"""The version of an operator that its 8-bit kernel appeared in; 1 where it is not listed."""


@dataclass(frozen=True)
class Quantization:
    """Scales and zero points of a tensor, along an axis when there are several."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0


def pack(
    tensors: Sequence[TensorRow],
    operators: Sequence[OperatorRow],
    inputs: Sequence[int],
    outputs: Sequence[int],
    description: str,
    signature: str = "",
) -> bytes:
    """The file.

    Args:
        tensors: All tensors.
        operators: All operators, in an order they can run in.
        inputs: Indices of the input tensors.
        outputs: Indices of the output tensors.
        description: Who wrote it.
        signature: Name of the signature by which applications call it; none when empty.
    """
    return _Packer().model(tensors, operators, inputs, outputs, description, signature)


class _Packer:
    def __init__(self) -> None:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.builder = flatbuffers.Builder(1 << 16)
        self.vectors: dict[bytes, int] = {}
        self.contents: dict[bytes, int] = {}

    def model(
        self,
        tensors: Sequence[TensorRow],
        operators: Sequence[OperatorRow],
        inputs: Sequence[int],
        outputs: Sequence[int],
        description: str,
        signature: str,
    ) -> bytes:
        s, b = self.schema, self.builder
        codes = list(dict.fromkeys(row.name for row in operators))
        buffers: list[NDArray[Any] | None] = [None]
        packed = [self._tensor(row, buffers) for row in tensors]
        tables = self._offsets(packed, s.SubGraphStartTensorsVector)
        steps = [self._operator(row, codes.index(row.name)) for row in operators]
        operator_table = self._offsets(steps, s.SubGraphStartOperatorsVector)
        ends = [self._vector(np.asarray(ids, np.int32)) for ids in (inputs, outputs)]
        s.SubGraphStart(b)
        s.SubGraphAddTensors(b, tables)
        s.SubGraphAddInputs(b, ends[0])
        s.SubGraphAddOutputs(b, ends[1])
        s.SubGraphAddOperators(b, operator_table)
        graph = self._offsets([s.SubGraphEnd(b)], s.ModelStartSubgraphsVector)
        code_table = self._offsets(
            [self._code(name) for name in codes], s.ModelStartOperatorCodesVector
        )
        data = self._offsets([self._buffer(c) for c in buffers], s.ModelStartBuffersVector)
        text = b.CreateString(description)
        signatures = self._signature(signature, tensors, inputs, outputs) if signature else None
        s.ModelStart(b)
        s.ModelAddVersion(b, 3)
        s.ModelAddOperatorCodes(b, code_table)
        s.ModelAddSubgraphs(b, graph)
        s.ModelAddDescription(b, text)
        s.ModelAddBuffers(b, data)
        if signatures is not None:
            s.ModelAddSignatureDefs(b, signatures)
        b.Finish(s.ModelEnd(b), FILE_ID)
        return bytes(b.Output())

    def _signature(
        self, key: str, tensors: Sequence[TensorRow], inputs: Sequence[int], outputs: Sequence[int]
    ) -> int:
        """The table of signatures, with one that names every input and output."""
        s, b = self.schema, self.builder
        sides = []
        for indices, start in (
            (inputs, s.SignatureDefStartInputsVector),
            (outputs, s.SignatureDefStartOutputsVector),
        ):
            maps = []
            for index in indices:
                name = b.CreateString(tensors[index].name)
                s.TensorMapStart(b)
                s.TensorMapAddName(b, name)
                s.TensorMapAddTensorIndex(b, index)
                maps.append(int(s.TensorMapEnd(b)))
            sides.append(self._offsets(maps, start))
        name = b.CreateString(key)
        s.SignatureDefStart(b)
        s.SignatureDefAddInputs(b, sides[0])
        s.SignatureDefAddOutputs(b, sides[1])
        s.SignatureDefAddSignatureKey(b, name)
        s.SignatureDefAddSubgraphIndex(b, 0)
        return self._offsets([int(s.SignatureDefEnd(b))], s.ModelStartSignatureDefsVector)

    def _offsets(self, offsets: Sequence[int], start: Any) -> int:
        start(self.builder, len(offsets))
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _vector(self, array: NDArray[Any]) -> int:
        """A vector of numbers; equal ones are stored once."""
        key = array.dtype.str.encode() + array.tobytes()
        if key not in self.vectors:
            self.vectors[key] = int(self.builder.CreateNumpyVector(np.ascontiguousarray(array)))
        return self.vectors[key]

    def _tensor(self, row: TensorRow, buffers: list[NDArray[Any] | None]) -> int:
        s, b = self.schema, self.builder
        name = b.CreateString(row.name)
        shape = self._vector(np.asarray(row.shape, np.int32))
        signature = None
        if row.signature is not None:
            signature = self._vector(np.asarray(row.signature, np.int32))
        quantization = None if row.quantization is None else self._quantization(row.quantization)
        place = 0
        if row.content is not None:
            stored = _stored(row)
            place = self.contents.setdefault(stored.tobytes(), len(buffers))
            if place == len(buffers):
                buffers.append(stored)
        s.TensorStart(b)
        s.TensorAddShape(b, shape)
        s.TensorAddType(b, TYPES[row.dtype].code)
        s.TensorAddBuffer(b, place)
        s.TensorAddName(b, name)
        if quantization is not None:
            s.TensorAddQuantization(b, quantization)
        if signature is not None:
            s.TensorAddShapeSignature(b, signature)
        return int(s.TensorEnd(b))

    def _quantization(self, given: Quantization) -> int:
        s, b = self.schema, self.builder
        scale = self._vector(np.asarray(given.scale, np.float32))
        zero_point = self._vector(np.asarray(given.zero_point, np.int64))
        s.QuantizationParametersStart(b)
        s.QuantizationParametersAddScale(b, scale)
        s.QuantizationParametersAddZeroPoint(b, zero_point)
        s.QuantizationParametersAddQuantizedDimension(b, given.axis)
        return int(s.QuantizationParametersEnd(b))

    def _code(self, name: str) -> int:
        s, b = self.schema, self.builder
        code = getattr(s.BuiltinOperator, name)
        s.OperatorCodeStart(b)
        s.OperatorCodeAddDeprecatedBuiltinCode(b, min(code, 127))
        s.OperatorCodeAddVersion(b, VERSIONS.get(name, 1))
        s.OperatorCodeAddBuiltinCode(b, code)
        return int(s.OperatorCodeEnd(b))

    def _operator(self, row: OperatorRow, code: int) -> int:
        s, b = self.schema, self.builder
        settings = self._settings(row.options, row.settings) if row.options else None
        inputs = self._vector(np.asarray(row.inputs, np.int32))
        outputs = self._vector(np.asarray(row.outputs, np.int32))
        s.OperatorStart(b)
        s.OperatorAddOpcodeIndex(b, code)
        s.OperatorAddInputs(b, inputs)
        s.OperatorAddOutputs(b, outputs)
        if settings is not None:
            s.OperatorAddBuiltinOptionsType(b, getattr(s.BuiltinOptions, row.options))
            s.OperatorAddBuiltinOptions(b, settings)
        return int(s.OperatorEnd(b))

    def _settings(self, kind: str, settings: Mapping[str, Any]) -> int:
        table = getattr(self.schema, f"{kind}T")()
        for name, setting in settings.items():
            if not hasattr(table, name):
                raise AttributeError(f"{kind} has no setting {name}")
            setattr(table, name, setting)
        return int(table.Pack(self.builder))

    def _buffer(self, content: NDArray[Any] | None) -> int:
        s, b = self.schema, self.builder
        data = None
        if content is not None:
            raw = content.tobytes()
            b.StartVector(1, len(raw), ALIGNMENT)
            b.head = b.head - len(raw)
            b.Bytes[b.head : b.head + len(raw)] = raw
            data = b.EndVector()
        s.BufferStart(b)
        if data is not None:
            s.BufferAddData(b, data)
        return int(s.BufferEnd(b))


def _stored(row: TensorRow) -> NDArray[Any]:
    """The content as it is stored: two 4-bit codes a byte, the first one in the low half."""
    assert row.content is not None
    flat = np.ascontiguousarray(row.content).reshape(-1)
    if row.dtype != "int4":
        return flat.view(np.uint8) if flat.size else flat
    nibbles = (flat & 0xF).astype(np.uint8)
    if nibbles.size % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    packed: NDArray[Any] = nibbles[0::2] | (nibbles[1::2] << 4)
    return packed
