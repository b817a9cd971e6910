"""The ONNX Runtime target: Q/DQ ONNX that its CPU provider fuses into integer kernels.

Rules and their sources: ONNX Runtime's quantization guide and the Q/DQ selectors of its graph optimizer. Activations
are unsigned on x86 (signed ones run hardly faster than float there) and signed on ARM.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.interface import TensorSpec
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.network.onnx import source_of
from kompakt.numerics.float_places import places_of_bytes
from kompakt.numerics.granularity import PerGroup
from kompakt.quantize.kinds import NEAREST, PAD_WITH_VALUE, SCALED_ADD
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import calls_by_quantizer
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.rules import Rules
from kompakt.targets.onnx_biases import round_biases
from kompakt.targets.onnx_dynamic import dynamic_values
from kompakt.targets.onnx_export import export_onnx
from kompakt.targets.onnx_files import serialized
from kompakt.targets.onnx_rewrites import (
    absorb_padding,
    fix_reshapes,
    name_codes,
    pad_codes,
    shield_float_weights,
    store_in_four_bits,
    strip_metadata,
    tidy,
    widen_when_loaded,
)
from kompakt.targets.onnx_split import split_tensors
from kompakt.targets.onnxruntime_profile import profile
from kompakt.targets.target import Arrays, Target, Written

_WEIGHTS8 = frozenset({"int8", "int8_narrow", "int7", "int7_narrow", "uint8"})
_WEIGHTS4 = frozenset({"int4", "int4_narrow"})
_FUSED = frozenset({"relu", "relu6"})
_MOVERS = frozenset(
    {"reshape", "transpose", "slice", "split", "getitem", "expand", "pad", "max_pool", NEAREST}
)
_INTEGER_OPERATORS = frozenset(
    {
        *("add", "mul", "cat", "relu", "relu6"),
        *("avg_pool", "global_average_pool", "leaky_relu", "sigmoid"),
    }
)


def rules(isa: str) -> Rules:
    """ONNX Runtime's rules on an instruction set.

    Args:
        isa: ``arm`` has fast signed kernels; all else is x86, where only ``x86-vnni`` never saturates.
    """
    signed = isa.startswith("arm")
    return Rules(
        runtime="ONNX Runtime",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset({"linear"}),
        weight_only_layers=frozenset({"conv", "conv_transpose", "linear", "embedding"}),
        grouped_layers=frozenset({"linear"}),
        group_sizes=frozenset({16, 32, 64, 128, 256}),
        integer_operators=_INTEGER_OPERATORS,
        float_output_layers=frozenset({"linear"}),
        pass_through=_MOVERS,
        shared_inputs=frozenset({"cat"}),
        fused_activations={"conv": _FUSED, "linear": _FUSED, "add": _FUSED},
        activation8="int8" if signed else "uint8",
        activation16="int16" if signed else "uint16",
        dynamic_activation="uint8",
        activation_formats=frozenset({"int8", "uint8", "int16", "uint16"}),
        weight_formats={
            "static": _WEIGHTS8 | _WEIGHTS4,
            "dynamic": frozenset({"int8", "int8_narrow", "int7", "int7_narrow"}),
            "weight_only": _WEIGHTS8 | {"int4", "uint4", "fp16", "bf16"},
        },
        rounding="divide_even",
        pair_sums=frozenset({"conv", "linear"}),
        avoid_saturation=not signed and isa != "x86-vnni",
        reasons={
            "softmax": "softmax runs in float: its exponentials span more than 8 bits",
            "attention": "fused attention runs in float; its projections are integer layers",
            "layer_norm": "normalisation over features runs in float in ONNX Runtime",
            "group_norm": "normalisation over groups runs in float in ONNX Runtime",
            "batch_norm": "this batch norm follows no layer it could be folded into",
            "gelu": "GELU runs in float, fused with the layer before it",
            "rnn": "ONNX Runtime has no static integer RNN kernel",
            "rnn:dynamic": "kompakt does not write ONNX Runtime's dynamic LSTM kernel",
            "rnn:weight_only": "ONNX Runtime has no recurrent kernel for compressed weights",
            PAD_WITH_VALUE: "padding with another number than 0 runs in float",
            SCALED_ADD: "an addition that scales one side runs in float",
            "conv_transpose": "ONNX Runtime has no integer kernel for transposed convolution",
            "conv:dynamic": "ONNX Runtime's dynamic integer convolution is slower than float",
            "embedding": "an embedding is looked up, not multiplied",
            "matmul": "a product of two activations: its codes would not be reused",
        },
    )


def write(network: Network) -> Written:
    """Write a frozen (or untouched float) network as ONNX files.

    Raises:
        TargetError: K401 when an operator has no ONNX form, K402 when the written model is not valid.
    """
    model = export_onnx(network)
    imported = source_of(network)
    if imported is None:
        strip_metadata(model)
        split_tensors(model)
        fix_reshapes(model)
    treated = any(isinstance(m, Quantizer | Treated) for m in nn.Module.modules(network))
    codes: dict[str, str] = {}
    if imported is None or treated:
        absorb_padding(model)
        store_in_four_bits(model, _four_bit_weights(network))
        widen_when_loaded(model, _static_four_bit_weights(network))
        sites = {f"{path}.scale": sites for path, sites in calls_by_quantizer(network).items()}
        codes = name_codes(model, sites)
        pad_codes(model)
        if imported is None:
            tidy(model)
        round_biases(model)
        shield_float_weights(model)
    dynamic = dynamic_values(model, network)
    if imported is None:
        model.producer_name = "kompakt"
        model.producer_version = importlib.metadata.version("kompakt")
    options = _options(network)
    return Written(files=serialized(model), codes=codes, dynamic=dynamic, options=options)


def _options(network: Network) -> dict[str, str]:
    """Session settings the file must be loaded with."""
    options: dict[str, str] = {}
    treated = (layer for _, layer in network.named_modules() if isinstance(layer, Treated))
    if any(isinstance(layer.treatment.granularity, PerGroup) for layer in treated):
        # By default the blocked kernel rounds activations to 8 bits as well; 1 keeps them float.
        options["session.qdq_matmulnbits_accuracy_level"] = "1"
    if any(kind_of(node) == "layer_norm" for node in network.graph.nodes):
        # The fused kernel computes one value at a time: an addition and a normalisation are faster.
        options["optimization.disable_specified_optimizers"] = "SkipLayerNormFusion"
    return options


def _four_bit_weights(network: Network) -> dict[str, str]:
    names: dict[str, str] = {}
    for path, layer in network.named_modules():
        if not isinstance(layer, Treated) or layer.treatment.mode == "static":
            continue
        if layer.treatment.weight in ("int4", "uint4"):
            names[f"{path}.weight_codes"] = str(layer.treatment.weight)
            names[f"{path}.weight_zero_point"] = str(layer.treatment.weight)
    return names


def _static_four_bit_weights(network: Network) -> list[str]:
    return [
        f"{path}.weight_codes"
        for path, layer in network.named_modules()
        if isinstance(layer, Treated)
        and layer.treatment.mode == "static"
        and layer.treatment.weight in _WEIGHTS4
    ]


_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(int16)": torch.int16,
    "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}


def _placed(kind: str, array: Any) -> Any:
    """Floats of 8 bits, which ONNX Runtime hands out as bytes, as places on the number line."""
    if not kind.startswith("tensor(float8"):
        return array
    return places_of_bytes(torch.from_numpy(array)).numpy()


def _size(size: int | str | None, place: int) -> int | str:
    return size if size is not None else f"dimension_{place}"


@dataclass
class Session:
    """A model loaded in ONNX Runtime."""

    session: Any

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(i.name for i in self.session.get_inputs())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(o.name for o in self.session.get_outputs())

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and dtype of the inputs, in order."""
        return tuple(
            TensorSpec(i.name, tuple(_size(d, n) for n, d in enumerate(i.shape)), _DTYPES[i.type])
            for i in self.session.get_inputs()
        )

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once.

        Raises:
            TargetError: K403 when the inputs do not fit the model.
        """
        wanted = {name: np.asarray(inputs[name]) for name in self.input_names if name in inputs}
        try:
            results = self.session.run(None, wanted)
        except Exception as error:
            raise TargetError(
                "K403", "running the model in ONNX Runtime", why=str(error).splitlines()[0]
            ) from error
        return {o.name: _placed(o.type, r) for o, r in zip(self._outputs, results, strict=True)}

    @property
    def _outputs(self) -> list[Any]:
        return list(self.session.get_outputs())


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Session:
    """Load a model file.

    Args:
        model: Path of the file, or its content.
        options: Session settings the artifact asks for.
        threads: Threads used inside one operator.

    Raises:
        ArtifactError: K530 when ONNX Runtime does not accept the file.
    """
    return Session(_session(model, options or {}, threads))


def _session(
    model: Path | bytes,
    options: Mapping[str, str],
    threads: int,
    optimized: Path | None = None,
) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    if optimized is not None:
        settings.optimized_model_filepath = str(optimized)
    for key, value in options.items():
        settings.add_session_config_entry(key, value)
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(
            "K530",
            "loading the model in ONNX Runtime",
            where=str(model) if isinstance(model, Path) else "",
            why=str(error).splitlines()[0],
        ) from error


def probe(path: Path, options: Mapping[str, str], codes: Sequence[str]) -> Session:
    """Load a model so that the named values come out beside its outputs."""
    return Session(_session(_with_visible(path, codes), _beside(path, options), threads=1))


def kernels(path: Path, options: Mapping[str, str], codes: Sequence[str]) -> dict[str, str]:
    """The operator that makes each named value, after all of ONNX Runtime's own optimizations.

    Integer products that hand out float, so that a bias can be added before their codes are made, count as such.
    """
    graph = _optimized(_with_visible(path, codes), _beside(path, options))
    makers = {output: node for node in graph.node for output in node.output}
    found = {}
    for name in codes:
        maker = _walk_back(name, makers, ("Transpose",))  # the layout its kernels prefer
        if maker is not None and maker.op_type == "QuantizeLinear":
            inner = _walk_back(maker.input[0], makers, _EPILOGUE)
            maker = inner if inner is not None and inner.op_type in _PRODUCTS else maker
        found[name] = maker.op_type if maker is not None else ""
    return found


_PRODUCTS = ("MatMulIntegerToFloat", "QGemm")
_EPILOGUE = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Add", "Relu", "Clip")


def _walk_back(name: str, makers: Mapping[str, Any], through: Sequence[str]) -> Any:
    """The node that makes a value, past nodes of these types that compute from one tensor only."""
    node = makers.get(name)
    while node is not None and node.op_type in through:
        inputs = [makers[i] for i in node.input if i in makers]
        if len(inputs) != 1:
            break
        node = inputs[0]
    return node


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operators ONNX Runtime executes after all its own optimizations.

    Args:
        path: The model file.
        options: Session settings.
        visible: Values that come out beside the outputs, which can keep the runtime from fusing.
    """
    graph = _optimized(_with_visible(path, visible), _beside(path, options))
    return dict(sorted(Counter(node.op_type for node in graph.node).items()))


def _with_visible(path: Path, codes: Sequence[str]) -> bytes:
    """The model with the named values among its outputs; external data stays where it is."""
    model = onnx.load(str(path), load_external_data=False)
    existing = {value.name for value in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in codes if name not in existing
    )
    content: bytes = model.SerializeToString()
    return content


def _beside(path: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Options that make a model loaded from memory find the external data beside ``path``."""
    return {**options, "session.model_external_initializers_file_folder_path": str(path.parent)}


def _optimized(model: Path | bytes, options: Mapping[str, str]) -> Any:
    """The graph ONNX Runtime executes, without its weights."""
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        beside = {"session.optimized_model_external_initializers_file_name": "weights"}
        _session(model, {**options, **beside}, 1, optimized)
        return onnx.load(str(optimized), load_external_data=False).graph


ONNXRUNTIME = Target(
    name="onnxruntime",
    rules=rules,
    write=write,
    load=load,
    probe=probe,
    kernels=kernels,
    operators=operators,
    package="onnxruntime",
    module="onnxruntime",
    profile=profile,
)
