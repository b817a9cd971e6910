"""The ExecuTorch target: ``.pte`` files whose layers run in XNNPACK's int8 kernels, on phones and in this process.

Rules and their sources: the XNNPACK backend's page on quantization in ExecuTorch's documentation, and the constraints
of its partitioner. Activations are int8 with a zero point, weights symmetric int8. The lowering is ExecuTorch's own,
the quantizer is not: scales and codes are the network's.

The file holds one sample. Loaded here, a batch runs sample by sample.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from kompakt.errors import TargetError
from kompakt.network.network import Network
from kompakt.quantize.kinds import PAD_WITH_VALUE, SCALED_ADD
from kompakt.quantize.rules import Rules
from kompakt.targets.decomposed import decomposed
from kompakt.targets.executorch_delegate import executed
from kompakt.targets.executorch_program import (
    INTERFACE,
    dtype_name,
    first_line,
    load,
    quietly,
)
from kompakt.targets.lowering_check import refuse_garbage
from kompakt.targets.one_sample import one_sample, size_notes
from kompakt.targets.target import Parity, Target, Written

MODEL_FILE = "model.pte"
_FUSED = frozenset({"relu", "relu6"})
_MOVERS = frozenset({"reshape", "transpose", "slice", "split", "getitem", "pad", "max_pool"})


def rules(isa: str) -> Rules:
    """XNNPACK's rules; they are the same on every instruction set.

    Args:
        isa: Not looked at.
    """
    return Rules(
        runtime="ExecuTorch (XNNPACK)",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset(),
        weight_only_layers=frozenset(),
        grouped_layers=frozenset(),
        group_sizes=frozenset(),
        integer_operators=frozenset({"add", "mul", "cat", "relu", "relu6", "global_average_pool"}),
        float_output_layers=frozenset(),
        pass_through=_MOVERS,
        shared_inputs=frozenset({"cat"}),
        fused_activations={"conv": _FUSED, "linear": _FUSED, "add": frozenset({"relu"})},
        activation8="int8",
        activation16="int16",
        dynamic_activation="int8",
        activation_formats=frozenset({"int8"}),
        weight_formats={
            "static": frozenset({"int8", "int8_narrow", "int7", "int7_narrow"}),
            "dynamic": frozenset({"int8", "int8_narrow"}),
            "weight_only": frozenset({"int8", "int8_narrow"}),
        },
        rounding="reciprocal_even",
        reasons={
            "linear:dynamic": "XNNPACK finds a range for each row, which kompakt does not simulate",
            "linear:weight_only": "XNNPACK has no kernel for 8-bit weights and float activations",
            "conv:dynamic": "XNNPACK finds a range for each image, which kompakt does not simulate",
            "conv:weight_only": "XNNPACK has no kernel for 8-bit weights and float activations",
            "conv_transpose": "kompakt writes transposed convolutions for XNNPACK in float",
            "softmax": "softmax runs in float: its exponentials span more than 8 bits",
            "avg_pool": "XNNPACK averages windows in float",
            "leaky_relu": "XNNPACK computes leaky ReLU in float here",
            "sigmoid": "XNNPACK computes sigmoid in float here",
            "embedding": "an embedding is looked up, not multiplied",
            "rnn": "ExecuTorch runs recurrent layers in float, step by step",
            "batch_norm": "this batch norm follows no layer it could be folded into",
            PAD_WITH_VALUE: "padding with another number than 0 runs in float",
            SCALED_ADD: "an addition that scales one side runs in float",
        },
    )


def write(network: Network) -> Written:
    """Write a frozen (or untouched float) network as a ``.pte`` file, and run it once.

    Raises:
        TargetError: K401 when ExecuTorch cannot lower an operator, K402 when the file computes something else.
    """
    module = decomposed(network, pairs_behind_padding=False, one_grid_for_cat=True)
    examples, batch = one_sample(network)
    interface = json.dumps(_interface(network, examples, batch), sort_keys=True)
    content = _lowered(module, examples, interface)
    refuse_garbage(load(content), module, examples)
    return Written(files={MODEL_FILE: content}, notes=size_notes(network, batch))


def _lowered(module: fx.GraphModule, examples: tuple[Tensor, ...], interface: str) -> bytes:
    with quietly():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            with torch.no_grad():
                program = torch.export.export(module, examples)
            edge = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                constant_methods={INTERFACE: interface},
            )
            content: bytes = edge.to_executorch().buffer
        except Exception as error:
            raise TargetError(
                "K401",
                "lowering the network with ExecuTorch",
                why=first_line(error),
                help="`kompakt inspect` lists its operators; choose another target for this network",
            ) from error
    return content


def _interface(
    network: Network, examples: Sequence[Tensor], batch: str | None
) -> dict[str, list[dict[str, Any]]]:
    inputs = [
        {"name": spec.name, "shape": list(example.shape), "dtype": dtype_name(spec.dtype)}
        for spec, example in zip(network.input_specs, examples, strict=True)
    ]
    if batch is not None:
        for one in inputs:
            one["shape"] = [batch, *list(one["shape"])[1:]]
    return {"inputs": inputs, "outputs": [{"name": spec.name} for spec in network.output_specs]}


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operators the file executes.

    XNNPACK's are named with their precision (``XNNConv2d:int8``), ExecuTorch's own with their overload.

    Args:
        path: The model file.
        options: Not used.
        visible: Not used: values inside a delegate cannot be seen.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(path.read_bytes()).program
    counts: Counter[str] = Counter()
    for plan in program.execution_plan:
        if plan.name == "forward":
            for delegate in plan.delegates:
                stored = program.backend_delegate_data[delegate.processed.index]
                counts.update(executed(bytes(stored.data)))
            called = [
                call.instr_args
                for chain in plan.chains
                for call in chain.instructions
                if hasattr(call.instr_args, "op_index")
            ]
            names = (plan.operators[call.op_index] for call in called)
            counts.update(".".join(filter(None, (op.name, op.overload))) for op in names)
    return dict(sorted(counts.items()))


EXECUTORCH = Target(
    name="executorch",
    rules=rules,
    write=write,
    load=load,
    probe=None,
    kernels=None,
    operators=operators,
    package="executorch",
    module="executorch.runtime",
    parity=Parity(against="outputs", output_error=0.02, integer_error=1e-5),
)
