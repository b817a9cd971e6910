"""The LiteRT target: a TFLite flatbuffer by the 8-bit quantization specification, run by XNNPACK.

Rules and their sources: LiteRT's quantization specification (which operators need equal input and output scales, which
have fixed ones, weights in [−127, 127]) and what its XNNPACK delegate executes. Activations are signed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kompakt.errors import ArtifactError
from kompakt.network.network import Network
from kompakt.quantize.kinds import NEAREST, PAD_WITH_VALUE, SCALED_ADD
from kompakt.quantize.rules import Rules
from kompakt.targets.litert_c_array import c_files
from kompakt.targets.litert_schema import TYPES
from kompakt.targets.litert_session import CODES, Session
from kompakt.targets.litert_writing import TfliteFile, emit_tflite
from kompakt.targets.target import Parity, Target, Written

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


def write(
    network: Network,
    *,
    integer_io: bool = False,
    channels_last: bool = False,
    c_array: bool = False,
) -> Written:
    """Write a frozen (or untouched float) network as a ``.tflite`` file.

    Args:
        network: The network.
        integer_io: Inputs and outputs of the file hold codes, as firmware wants them; the default is floats.
        channels_last: Images come in and go out as (batch, height, width, channels).
        c_array: Whether to write C source and header for firmware beside the model.

    Raises:
        TargetError: K401 when an operator has no form in TFLite.
    """
    file = emit_tflite(network, integer_io=integer_io, last_io=channels_last)
    sources = c_files(file.content) if c_array else {}
    return written(file, "reciprocal_even" if integer_io else "", sources=sources)


def written(
    file: TfliteFile,
    rounding: str,
    notes: Sequence[str] = (),
    sources: Mapping[str, bytes] | None = None,
) -> Written:
    """A file with the options it is loaded with.

    Args:
        file: What was emitted.
        rounding: How floats become the codes of its inputs, where it takes codes.
        notes: What else a user should know.
        sources: Files to put beside the model.
    """
    options = {}
    if file.orders:
        orders = {name: list(order) for name, order in sorted(file.orders.items())}
        options["orders"] = json.dumps(orders, separators=(",", ":"))
    if rounding:
        options["rounding"] = rounding
    transposes = file.operators.get("TRANSPOSE", 0)
    shape = f"{sum(file.operators.values())} operators, {transposes} of them TRANSPOSE"
    return Written(
        files={MODEL_FILE: file.content, **(sources or {})},
        codes=file.codes,
        options=options,
        notes=(shape, *notes),
    )


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
    return adapted(interpreter, options, codes)


def adapted(interpreter: Any, options: Mapping[str, str], codes: Sequence[str] = ()) -> Session:
    """An interpreter called as :attr:`Written.options` say."""
    orders = json.loads(options.get("orders", "{}"))
    return Session(interpreter, orders, options.get("rounding", ""), codes)


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
    wanted = dict.fromkeys(name.removesuffix(CODES) for name in names)
    outputs += [index[name] for name in wanted if index[name] not in outputs]
    graph.outputs = outputs
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def ends(content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of a file as LiteRT's interpreter describes them."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    kinds = {kind.code: kind.numpy for kind in TYPES.values()}

    def described(index: int) -> dict[str, Any]:
        tensor = graph.Tensors(index)
        grid, shape = tensor.Quantization(), [tensor.Shape(i) for i in range(tensor.ShapeLength())]
        coded = grid is not None and grid.ScaleLength() > 0
        signature = [tensor.ShapeSignature(i) for i in range(tensor.ShapeSignatureLength())]
        return {
            "index": index,
            "name": tensor.Name().decode(),
            "shape": shape,
            "shape_signature": signature or shape,
            "dtype": kinds[tensor.Type()],
            "quantization_parameters": {
                "scales": [grid.Scale(0)] if coded else [],
                "zero_points": [grid.ZeroPoint(0)] if coded else [],
            },
        }

    inputs = [described(graph.Inputs(i)) for i in range(graph.InputsLength())]
    return inputs, [described(graph.Outputs(i)) for i in range(graph.OutputsLength())]


def operator_names(content: bytes) -> list[str]:
    """The operators a file uses, each once, by their names in the schema."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    codes = (model.OperatorCodes(i).BuiltinCode() for i in range(model.OperatorCodesLength()))
    return sorted({names[code] for code in codes})


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operators of the file; what XNNPACK takes over counts as what it was."""
    session = _session(path.read_bytes(), {**options, "kernels": "reference"}, 1, str(path))
    counts = Counter(d["op_name"] for d in session.interpreter._get_ops_details())
    return dict(sorted(counts.items()))


LITERT = Target(
    name="litert",
    rules=rules,
    write=write,
    load=load,
    probe=probe,
    kernels=None,
    operators=operators,
    package="ai-edge-litert",
    module="ai_edge_litert.interpreter",
    parity=Parity(against="integers", dynamic_error=0.03),
)
