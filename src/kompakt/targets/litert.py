"""The LiteRT target: a TFLite flatbuffer by the 8-bit quantization specification, run by XNNPACK.

Rules and their sources: LiteRT's quantization specification (which operators need equal input and output scales, which
have fixed ones, weights in [−127, 127]) and what its XNNPACK delegate executes. Activations are signed.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.interface import TensorSpec
from kompakt.network.network import Network
from kompakt.quantize.kinds import NEAREST, PAD_WITH_VALUE, SCALED_ADD
from kompakt.quantize.rules import Rules
from kompakt.targets.litert_writing import emit_tflite
from kompakt.targets.target import Arrays, Parity, Target, Written

MODEL_FILE = "model.tflite"

_FUSED = frozenset({"relu", "relu6"})
_MOVERS = frozenset(
    {
        *("reshape", "transpose", "slice", "split", "getitem", "pad", "max_pool", "avg_pool"),
        *("upsample", NEAREST),
    }
)
_WEIGHTS8 = frozenset({"int8_narrow", "int7_narrow", "int4", "int4_narrow"})


def rules(isa: str) -> Rules:
    """LiteRT's rules; they are the same on every instruction set."""
    return Rules(
        runtime="LiteRT",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset({"linear"}),
        weight_only_layers=frozenset({"conv", "linear", "embedding"}),
        grouped_layers=frozenset(),
        group_sizes=frozenset({16, 32, 64, 128, 256}),
        integer_operators=frozenset(
            {
                *("add", "sub", "mul", "cat", "relu", "relu6", "global_average_pool", "mean"),
                *("leaky_relu", "sigmoid", "tanh", "softmax", "hardswish"),
            }
        ),
        float_output_layers=frozenset(),
        pass_through=_MOVERS,
        shared_inputs=frozenset({"cat"}),
        fused_activations=dict.fromkeys(("conv", "linear", "add", "sub", "mul"), _FUSED),
        activation8="int8",
        activation16="int16",
        dynamic_activation="uint8",
        activation_formats=frozenset({"int8", "int16"}),
        weight_formats={
            "static": _WEIGHTS8,
            "dynamic": frozenset({"int8_narrow", "int7_narrow", "int4", "int4_narrow"}),
            "weight_only": _WEIGHTS8 | {"fp16"},
        },
        rounding="reciprocal_even",
        arithmetic="xnnpack",
        symmetric_activations=frozenset({"int16"}),
        fixed_outputs={
            "sigmoid": {"int8": (1 / 256, -128), "int16": (1 / 32768, 0)},
            "softmax": {"int8": (1 / 256, -128), "int16": (1 / 32768, 0)},
            "tanh": {"int8": (1 / 128, 0), "int16": (1 / 32768, 0)},
        },
        reasons={
            "attention": "fused attention runs in float; its projections are integer layers",
            "layer_norm": "normalisation over features runs in float in LiteRT",
            "group_norm": "normalisation over groups runs in float in LiteRT",
            "batch_norm": "this batch norm follows no layer it could be folded into",
            "gelu": "GELU runs in float",
            "rnn": "kompakt writes no recurrent layers for LiteRT",
            PAD_WITH_VALUE: "padding with another number than 0 runs in float",
            SCALED_ADD: "an addition that scales one side runs in float",
            "conv_transpose": "kompakt writes no transposed convolutions for LiteRT",
            "conv:dynamic": "LiteRT's hybrid convolution is slower than its float one",
            "embedding": "an embedding is looked up, not multiplied",
            "matmul": "a product of two activations: its codes would not be reused",
        },
    )


def write(network: Network, *, integer_io: bool = False, channels_last: bool = False) -> Written:
    """Write a frozen (or untouched float) network as a ``.tflite`` file.

    Args:
        network: The network.
        integer_io: Inputs and outputs of the file hold codes, as firmware wants them; the default is floats.
        channels_last: Images come in and go out as (batch, height, width, channels).

    Raises:
        TargetError: K401 when an operator has no form in TFLite.
    """
    file = emit_tflite(network, integer_io=integer_io, last_io=channels_last)
    options = {}
    if file.orders:
        orders = {name: list(order) for name, order in sorted(file.orders.items())}
        options["orders"] = json.dumps(orders, separators=(",", ":"))
    if integer_io:
        options["io"] = "float"
    transposes = file.operators.get("TRANSPOSE", 0)
    notes = [f"{sum(file.operators.values())} operators, {transposes} of them TRANSPOSE"]
    return Written(
        files={MODEL_FILE: file.content}, codes=file.codes, options=options, notes=tuple(notes)
    )


_DTYPES = {
    np.float32: torch.float32,
    np.float16: torch.float16,
    np.int64: torch.int64,
    np.int32: torch.int32,
    np.int16: torch.int16,
    np.int8: torch.int8,
    np.uint8: torch.uint8,
    np.bool_: torch.bool,
}


@dataclass
class Session:
    """A model loaded in LiteRT, called with arrays as the network takes them.

    Attributes:
        interpreter: LiteRT's interpreter.
        orders: For tensors stored in another order than the network's: stored dimension k is dimension
            ``order[k]``.
        float_io: Whether codes of inputs and outputs are made from and given as floats.
        codes: Outputs that are given as codes all the same.
    """

    interpreter: Any
    orders: Mapping[str, Sequence[int]] = field(default_factory=dict)
    float_io: bool = False
    codes: Sequence[str] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(d["name"] for d in self.interpreter.get_input_details())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(d["name"] for d in self.interpreter.get_output_details())

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and dtype of the inputs, in order."""
        return tuple(self._spec(d) for d in self.interpreter.get_input_details())

    def _spec(self, detail: Mapping[str, Any]) -> TensorSpec:
        name = detail["name"]
        signature = [int(n) for n in detail["shape_signature"]] or [int(n) for n in detail["shape"]]
        order = self.orders.get(name, range(len(signature)))
        shape: list[int | str] = [0] * len(signature)
        for place, dimension in enumerate(order):
            size = signature[place]
            free = "batch" if dimension == 0 else f"dimension_{dimension}"
            shape[dimension] = size if size >= 0 else free
        dtype = torch.float32 if self._coded(detail) else _DTYPES[detail["dtype"]]
        return TensorSpec(name, tuple(shape), dtype)

    def _coded(self, detail: Mapping[str, Any]) -> bool:
        return self.float_io and len(detail["quantization_parameters"]["scales"]) > 0

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once.

        Raises:
            TargetError: K403 when the inputs do not fit the model.
        """
        try:
            self._feed(inputs)
            self.interpreter.invoke()
        except Exception as error:
            raise TargetError(
                "K403", "running the model in LiteRT", why=str(error).splitlines()[0]
            ) from error
        return {d["name"]: self._read(d) for d in self.interpreter.get_output_details()}

    def _feed(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        given = []
        resized = False
        for detail in self.interpreter.get_input_details():
            array = np.asarray(inputs[detail["name"]])
            if detail["name"] in self.orders:
                array = array.transpose(self.orders[detail["name"]])
            if self._coded(detail) and array.dtype == np.float32:
                array = _encoded(array, detail)
            if array.shape != tuple(detail["shape"]):
                self.interpreter.resize_tensor_input(detail["index"], array.shape, strict=True)
                resized = True
            given.append((detail["index"], array))
        if resized:
            self.interpreter.allocate_tensors()
        for index, array in given:
            self.interpreter.set_tensor(index, array)

    def _read(self, detail: Mapping[str, Any]) -> NDArray[Any]:
        array: NDArray[Any] = self.interpreter.get_tensor(detail["index"])
        if self._coded(detail) and detail["name"] not in self.codes:
            array = _decoded(array, detail)
        if detail["name"] in self.orders:
            array = array.transpose(np.argsort(self.orders[detail["name"]]))
        return np.ascontiguousarray(array)


def _grid(detail: Mapping[str, Any]) -> tuple[np.float32, int]:
    found = detail["quantization_parameters"]
    return np.float32(found["scales"][0]), int(found["zero_points"][0])


def _encoded(array: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    scale, zero_point = _grid(detail)
    limits = np.iinfo(detail["dtype"])
    codes = np.rint(array * (np.float32(1) / scale)) + zero_point
    return codes.clip(limits.min, limits.max).astype(detail["dtype"])


def _decoded(array: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    scale, zero_point = _grid(detail)
    return (array.astype(np.int32) - zero_point).astype(np.float32) * scale


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Session:
    """Load a model file.

    Args:
        model: Path of the file, or its content.
        options: What :attr:`Written.options` says; without them the file is called as it is.
        threads: Threads used inside one operator.

    Raises:
        ArtifactError: K530 when LiteRT does not accept the file.
    """
    content = model.read_bytes() if isinstance(model, Path) else model
    where = str(model) if isinstance(model, Path) else ""
    return _session(content, options or {}, threads, where)


def _session(
    content: bytes,
    options: Mapping[str, str],
    threads: int,
    where: str = "",
    codes: Sequence[str] = (),
) -> Session:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolvers = {
        "": OpResolverType.AUTO,
        "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": OpResolverType.BUILTIN_REF,
    }
    try:
        interpreter = Interpreter(
            model_content=content,
            num_threads=threads,
            experimental_op_resolver_type=resolvers[options.get("kernels", "")],
        )
        interpreter.allocate_tensors()
    except Exception as error:
        raise ArtifactError(
            "K530",
            "loading the model in LiteRT",
            where=where,
            why=(str(error) or type(error).__name__).splitlines()[0],
        ) from error
    orders = json.loads(options.get("orders", "{}"))
    return Session(interpreter, orders, options.get("io") == "float", codes)


def probe(path: Path, options: Mapping[str, str], codes: Sequence[str]) -> Session:
    """Load a model so that the named tensors come out beside its outputs."""
    content = with_outputs(path.read_bytes(), codes)
    return _session(content, options, 1, str(path), codes)


def with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """The model with the named tensors among its outputs."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph = model.subgraphs[0]
    index = {tensor.name.decode(): place for place, tensor in enumerate(graph.tensors)}
    outputs = [int(place) for place in graph.outputs]
    outputs += [index[name] for name in dict.fromkeys(names) if index[name] not in outputs]
    graph.outputs = outputs
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operators of the file; what XNNPACK takes over counts as what it was."""
    session = _session(path.read_bytes(), {**options, "kernels": "reference"}, 1, str(path))
    counts = Counter(d["op_name"] for d in session.interpreter._get_ops_details())
    return dict(sorted(counts.items()))


def memory_job(
    path: str, options: Mapping[str, str], inputs: str, threads: int = 1
) -> Callable[[], object]:
    """A job for ``kompakt.measuring.memory``: load a model file and run it once.

    Args:
        path: The model file.
        options: Its options.
        inputs: An ``.npz`` file with its inputs by name.
        threads: Threads the runtime may use.
    """
    import ai_edge_litert.interpreter  # noqa: F401  (the runtime belongs to the baseline, not to the model)

    with np.load(inputs) as arrays:
        fed = dict(arrays)
    return lambda: load(Path(path), options, threads)(fed)


def version() -> str | None:
    """The installed version of LiteRT, or None."""
    try:
        return importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError:
        return None


LITERT = Target(
    name="litert",
    rules=rules,
    write=write,
    load=load,
    probe=probe,
    kernels=None,
    operators=operators,
    memory_job="kompakt.targets.litert:memory_job",
    version=version,
    parity=Parity(against="layers", step=1, share=0.01),
)
