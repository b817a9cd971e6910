"""The TensorRT target: explicit Q/DQ ONNX by TensorRT's own rules, with what builds an engine from it.

Rules and their sources are in :mod:`kompakt.targets.tensorrt_rules`, which also checks files of others. TensorRT needs
a GPU; what is loaded, compared and timed here is the same file in ONNX Runtime, with nothing fused, so that it computes
what the Q/DQ pairs say: float products of decoded codes, as a strongly typed engine defines them.
"""

from __future__ import annotations

import importlib.metadata

from torch import nn

from kompakt.errors import TargetError
from kompakt.network.network import Network
from kompakt.network.onnx import source_of
from kompakt.numerics.granularity import PerGroup
from kompakt.quantize.kinds import NEAREST, PAD_WITH_VALUE, SCALED_ADD
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import calls_by_quantizer
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.rules import Rules
from kompakt.targets import onnxruntime
from kompakt.targets.onnx_export import export_onnx
from kompakt.targets.onnx_files import serialized
from kompakt.targets.onnx_rewrites import (
    absorb_padding,
    fix_reshapes,
    name_codes,
    store_in_four_bits,
    strip_metadata,
    tidy,
)
from kompakt.targets.onnx_split import split_tensors
from kompakt.targets.target import Parity, Target, Written
from kompakt.targets.tensorrt_build import BUILD_FILE, build_script, trtexec_line
from kompakt.targets.tensorrt_rewrites import decode_weights, float_biases

OPTIONS = {"session.disable_quant_qdq": "1"}
"""ONNX Runtime's own fusion of Q/DQ pairs is off: it would round biases and float weights on its own account."""

FP8_OPTIONS = {"optimization.disable_specified_optimizers": "ReluQuantRewrite;ClipQuantRewrite"}
"""Nor may it drop a ReLU or clip before a Q: it takes the zero of E4M3 for its lowest code."""

_SIGNED8 = frozenset({"int8", "int8_narrow", "int7", "int7_narrow"})
FP8 = "fp8_e4m3"
"""The float of 8 bits that layers multiply, weights by activations; or weights alone, decoded before the product."""
_UNARY = frozenset(
    {"relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "hardswish", "hardsigmoid"}
)
_MOVERS = frozenset(
    {"reshape", "transpose", "slice", "split", "getitem", "expand", "pad", "max_pool", NEAREST}
)
NOTE = "checked in ONNX Runtime, which computes the file unfused; nothing was timed"


def rules(isa: str) -> Rules:
    """TensorRT's rules; the instruction set of this machine's processor plays no part."""
    return Rules(
        runtime="TensorRT",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset(),
        weight_only_layers=frozenset({"conv", "linear"}),
        grouped_layers=frozenset({"linear"}),
        group_sizes=frozenset({64, 128}),
        whole_groups=True,
        integer_operators=frozenset({"add", "cat", "avg_pool", "global_average_pool"}),
        float_output_layers=frozenset({"conv", "linear"}),
        pass_through=_MOVERS,
        shared_inputs=frozenset({"cat"}),
        fused_activations={"conv": _UNARY, "linear": _UNARY, "add": frozenset({"relu", "relu6"})},
        summing_layers=frozenset({"conv"}),
        activation8="int8",
        activation16="int16",
        dynamic_activation="int8",
        activation_formats=frozenset({"int8", FP8}),
        symmetric_activations=frozenset({"int8", FP8}),
        weight_formats={
            "static": _SIGNED8 | {FP8},
            "dynamic": frozenset(),
            "weight_only": _SIGNED8 | {"int4", "fp16", "bf16", FP8},
        },
        rounding="divide_even",
        reasons={
            "conv:dynamic": "TensorRT quantizes no integer activations while it runs",
            "linear:dynamic": "TensorRT quantizes no integer activations while it runs",
            "softmax": "softmax runs in float: its exponentials span more than 8 bits",
            "attention": "fused attention runs in float; its projections are integer layers",
            "layer_norm": "normalisation over features runs in float in TensorRT",
            "group_norm": "normalisation over groups runs in float in TensorRT",
            "batch_norm": "this batch norm follows no layer it could be folded into",
            "rnn": "recurrent layers run in float in TensorRT",
            PAD_WITH_VALUE: "padding with another number than 0 runs in float",
            SCALED_ADD: "an addition that scales one side runs in float",
            "conv_transpose": "transposed convolutions are written in float for TensorRT",
            "embedding": "an embedding is looked up, not multiplied",
            "matmul": "a product of two activations: its codes would not be reused",
        },
    )


def write(network: Network) -> Written:
    """Write a frozen (or untouched float) network as ONNX for TensorRT, with a script that builds the engine.

    Raises:
        TargetError: K400 for weights TensorRT does not decode, K401 when an operator has no ONNX form, K402 when
            the written model is not valid.
    """
    _refuse_unknown_weights(network)
    model = export_onnx(network)
    imported = source_of(network)
    treated = any(isinstance(m, Quantizer | Treated) for m in nn.Module.modules(network))
    codes: dict[str, str] = {}
    if imported is None:
        strip_metadata(model)
        split_tensors(model)
        fix_reshapes(model)
    if imported is None or treated:
        absorb_padding(model)
        store_in_four_bits(model, _four_bit_weights(network))
        sites = {f"{path}.scale": sites for path, sites in calls_by_quantizer(network).items()}
        codes = name_codes(model, sites)
        decode_weights(model)
        float_biases(model)
        if imported is None:
            tidy(model)
    if imported is None:
        model.producer_name = "kompakt"
        model.producer_version = importlib.metadata.version("kompakt")
    files = serialized(model)
    line = trtexec_line(network.input_specs)
    script = build_script(network.input_specs, line)
    return Written(
        files={**files, BUILD_FILE: script.encode()},
        codes=codes,
        options=OPTIONS | (FP8_OPTIONS if _has_small_floats(network) else {}),
        notes=(NOTE, f"on the machine with the GPU: {line}"),
    )


def _has_small_floats(network: Network) -> bool:
    modules = nn.Module.modules(network)
    return any(isinstance(m, Quantizer) and m.format.is_small_float for m in modules)


def _refuse_unknown_weights(network: Network) -> None:
    for path, layer in network.named_modules():
        if not isinstance(layer, Treated) or layer.treatment.mode == "float":
            continue
        grouped = isinstance(layer.treatment.granularity, PerGroup)
        weight = str(layer.treatment.weight)
        if grouped and weight != "int4":
            raise TargetError(
                "K400",
                f"weights in {weight} with a scale per group for TensorRT",
                where=path,
                why="it decodes groups of 4-bit weights only",
                help="use w4(group=128), or a scale per channel",
            )
        if layer.has_zero_point:
            raise TargetError(
                "K400",
                "weights with a zero point for TensorRT",
                where=path,
                why="every zero point has to be 0 there",
                help="use symmetric weights",
            )


def _four_bit_weights(network: Network) -> dict[str, str]:
    """Initializer name to the 4-bit format its codes are stored in."""
    return {
        f"{path}.{name}": str(layer.treatment.weight)
        for path, layer in network.named_modules()
        if isinstance(layer, Treated) and layer.treatment.weight == "int4"
        for name in ("weight_codes", "weight_zero_point")
    }


TENSORRT = Target(
    name="tensorrt",
    rules=rules,
    write=write,
    load=onnxruntime.load,
    probe=onnxruntime.probe,
    kernels=None,
    operators=onnxruntime.operators,
    package="onnxruntime",
    module="onnxruntime",
    parity=Parity(against="layers", step=1, share=1e-3, output_error=1e-4),
    automatic=False,
    stand_in="onnxruntime",
)

__all__ = ["OPTIONS", "TENSORRT", "rules", "write"]
