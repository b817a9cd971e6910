"""The OpenVINO target: IR (``.xml`` and ``.bin``) whose layers the CPU plugin executes in u8 and i8.

The network is emitted as Q/DQ ONNX under OpenVINO's own rules and read by OpenVINO's ONNX front end, so that scales,
zero points and weight codes in the IR are kompakt's. Rules and their sources: OpenVINO's FakeQuantize operator and its
low-precision transformations; weight compression is ``Constant → Convert → Subtract → Multiply``.
"""

from __future__ import annotations

from collections.abc import Mapping

from kompakt.network.network import Network
from kompakt.quantize.kinds import NEAREST, PAD_WITH_VALUE, SCALED_ADD
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import calls_by_quantizer
from kompakt.quantize.rules import Rules
from kompakt.targets.onnx_biases import round_biases
from kompakt.targets.onnx_export import export_onnx
from kompakt.targets.onnx_rewrites import (
    absorb_padding,
    fix_reshapes,
    name_codes,
    pad_codes,
    store_in_four_bits,
    strip_metadata,
    tidy,
)
from kompakt.targets.onnx_split import split_tensors
from kompakt.targets.openvino_ir import intermediate_representation
from kompakt.targets.openvino_session import kernels, load, operators, probe
from kompakt.targets.target import Parity, Target, Written

OPTIONS: Mapping[str, str] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
"""What a file is loaded with. On processors with bfloat16 units OpenVINO would compute what is float in bfloat16, and
with compressed weights it may round activations to 8 bits: neither is what was simulated."""

_SIGNED8 = frozenset({"int8", "int8_narrow", "int7", "int7_narrow"})
_UNARY = frozenset(
    {"relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "hardswish", "hardsigmoid"}
)
_MOVERS = frozenset(
    {"reshape", "transpose", "slice", "split", "getitem", "expand", "pad", "max_pool", NEAREST}
)


def rules(isa: str) -> Rules:
    """OpenVINO's rules on an instruction set.

    Args:
        isa: ``arm`` has fast signed kernels; everything else is treated as x86.
    """
    return Rules(
        runtime="OpenVINO",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset(),
        weight_only_layers=frozenset({"conv", "conv_transpose", "linear", "embedding"}),
        grouped_layers=frozenset({"linear"}),
        group_sizes=frozenset({16, 32, 64, 128, 256}),
        whole_groups=True,
        integer_operators=frozenset({"add", "mul", "cat", "avg_pool", "global_average_pool"}),
        float_output_layers=frozenset({"linear"}),
        pass_through=_MOVERS,
        shared_inputs=frozenset({"cat"}),
        fused_activations={"conv": _UNARY, "linear": _UNARY, "add": frozenset({"relu", "relu6"})},
        activation8="int8" if isa.startswith("arm") else "uint8",
        activation16="int16",
        dynamic_activation="uint8",
        activation_formats=frozenset({"int8", "uint8"}),
        weight_formats={
            "static": _SIGNED8,
            "dynamic": frozenset(),
            "weight_only": _SIGNED8 | {"uint8", "int4", "uint4", "fp16", "bf16"},
        },
        rounding="affine_even",
        summing_layers=frozenset({"conv"}),
        reasons={
            "linear:dynamic": "OpenVINO chooses the groups of dynamic activations itself",
            "softmax": "softmax runs in float: its exponentials span more than 8 bits",
            "attention": "attention runs in float; its projections are integer layers",
            "layer_norm": "normalisation over features runs in float in OpenVINO",
            "group_norm": "normalisation over groups runs in float in OpenVINO",
            "batch_norm": "this batch norm follows no layer it could be folded into",
            "rnn": "kompakt writes recurrent layers in float for OpenVINO",
            PAD_WITH_VALUE: "padding with another number than 0 runs in float",
            SCALED_ADD: "an addition that scales one side runs in float",
            "conv_transpose": "transposed convolutions are written in float for OpenVINO",
            "embedding": "an embedding is looked up, not multiplied",
            "matmul": "a product of two activations: its codes would not be reused",
        },
    )


def write(network: Network) -> Written:
    """Write a frozen (or untouched float) network as IR.

    Raises:
        TargetError: K401 when an operator has no ONNX form or OpenVINO does not know it, K402 when the
            written model is not valid.
    """
    model = export_onnx(network)
    strip_metadata(model)
    split_tensors(model)
    absorb_padding(model)
    fix_reshapes(model)
    store_in_four_bits(model, _four_bit_weights(network))
    sites = {f"{path}.scale": sites for path, sites in calls_by_quantizer(network).items()}
    codes = name_codes(model, sites)
    pad_codes(model)
    tidy(model)
    round_biases(model)
    files = intermediate_representation(model, network.input_specs)
    return Written(files=files, codes=codes, options=dict(OPTIONS))


def _four_bit_weights(network: Network) -> dict[str, str]:
    """Initializer name to the 4-bit format its codes are stored in."""
    return {
        f"{path}.{name}": str(layer.treatment.weight)
        for path, layer in network.named_modules()
        if isinstance(layer, Treated) and layer.treatment.weight in ("int4", "uint4")
        for name in ("weight_codes", "weight_zero_point")
    }


OPENVINO = Target(
    name="openvino",
    rules=rules,
    write=write,
    load=load,
    probe=probe,
    kernels=kernels,
    operators=operators,
    package="openvino",
    module="openvino",
    parity=Parity(against="layers", step=1, share=1e-4, output_error=1e-5, probe_error=2e-2),
)

__all__ = ["OPENVINO", "OPTIONS", "rules", "write"]
