"""The torchscript target: TorchScript files over PyTorch's own quantized tensors.

For programs that still use ``torch.jit``: the layers are the modules ``torch.ao.quantization`` converts to
(``torch.ao.nn.quantized``), with this network's codes and scales, and the file runs wherever ``torch.jit.load`` does.
:func:`quantized_module` gives the same thing before scripting, as an eager module with a state dict.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.network import Network
from kompakt.quantize.rules import Rules
from kompakt.targets.pytorch_program import (
    INTERFACE,
    Program,
    first_line,
    interface_of,
    quietly,
    repacked,
    specs_from,
)
from kompakt.targets.pytorch_quantized import quantized_module
from kompakt.targets.target import Parity, Target, Written

MODEL_FILE = "model.pt"

_FUSED = frozenset({"relu", "relu6"})
_WEIGHTS8 = frozenset({"int8", "int8_narrow", "int7", "int7_narrow"})


def rules(isa: str) -> Rules:
    """The rules of PyTorch's quantized kernels.

    Args:
        isa: Not looked at; on x86 without VNNI ask for 7-bit weights.
    """
    return Rules(
        runtime="TorchScript",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset({"linear"}),
        weight_only_layers=frozenset(),
        grouped_layers=frozenset(),
        group_sizes=frozenset(),
        integer_operators=frozenset({"add", "mul", "cat", "global_average_pool"}),
        float_output_layers=frozenset(),
        pass_through=frozenset({"reshape", "transpose", "slice", "max_pool", "pad"}),
        shared_inputs=frozenset(),
        fused_activations={"conv": _FUSED, "linear": _FUSED, "add": frozenset({"relu"})},
        activation8="uint8",
        activation16="uint16",
        dynamic_activation="uint8",
        activation_formats=frozenset({"uint8"}),
        weight_formats={
            "static": _WEIGHTS8,
            "dynamic": _WEIGHTS8,
            "weight_only": frozenset({"int8", "int8_narrow"}),
        },
        rounding="reciprocal_offset_even",
        arithmetic="onednn",
        reasons={
            "conv:dynamic": "PyTorch's dynamic convolution is slower than float",
            "conv_transpose": "PyTorch's quantized transposed convolution has one scale only",
            "rnn": "kompakt does not write PyTorch's quantized recurrent layers",
            "embedding": "an embedding is looked up, not multiplied",
            "softmax": "softmax runs in float: its exponentials span more than 8 bits",
        },
    )


def write(network: Network) -> Written:
    """Write a frozen (or untouched float) network as TorchScript.

    Raises:
        TargetError: K401 when TorchScript has no form for an operator.
    """
    module = quantized_module(network)
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), quietly():
            scripted = torch.jit.freeze(torch.jit.script(module), optimize_numerics=False)
            torch.jit.save(scripted, buffer, _extra_files={INTERFACE: interface_of(network)})
    except Exception as error:
        raise TargetError(
            "K401",
            "writing the network as TorchScript",
            why=first_line(error),
            help="the target torch writes every network that PyTorch can export",
        ) from error
    note = (
        "load it with torch.backends.quantized.engine = 'onednn': PyTorch's default engine saturates "
        "sums of depthwise convolutions with 8-bit weights"
    )
    return Written(
        files={MODEL_FILE: repacked(buffer.getvalue())}, options={"engine": "onednn"}, notes=(note,)
    )


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Program:
    """Load a TorchScript file.

    Args:
        model: Path of the file, or its content.
        options: ``engine``: the library whose kernels the layers are packed for, by default ``onednn``.
        threads: PyTorch's threads inside one operator, for the whole process.

    Raises:
        ArtifactError: K530 when PyTorch does not accept the file.
    """
    torch.set_num_threads(threads)
    told = {INTERFACE: ""}
    try:
        content = model.read_bytes() if isinstance(model, Path) else model
        with quietly(), _engine((options or {}).get("engine", "onednn")):
            loading: Any = torch.jit.load
            module = loading(io.BytesIO(content), map_location="cpu", _extra_files=told)
        return Program(module, *specs_from(told[INTERFACE]))
    except (RuntimeError, OSError, ValueError, LookupError) as error:
        raise ArtifactError(
            "K530",
            "loading the model in PyTorch",
            where=str(model) if isinstance(model, Path) else "",
            why=first_line(error),
        ) from error


@contextlib.contextmanager
def _engine(name: str) -> Iterator[None]:
    """Layers that are loaded meanwhile are packed for this library, where PyTorch has it."""
    before = torch.backends.quantized.engine
    if name in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operators of the file.

    Args:
        path: The model file.
        options: Not used.
        visible: Not used.
    """
    with quietly():
        loading: Any = torch.jit.load
        graph = torch.jit.freeze(loading(str(path)).eval()).inlined_graph
    names = (node.kind() for node in graph.nodes())
    return dict(sorted(Counter(n for n in names if not n.startswith("prim::")).items()))


TORCHSCRIPT = Target(
    name="torchscript",
    rules=rules,
    write=write,
    load=load,
    probe=None,
    kernels=None,
    operators=operators,
    package="torch",
    module="torch",
    parity=Parity(against="outputs", output_error=0.05),
    automatic=False,
)

__all__ = ["TORCHSCRIPT", "load", "operators", "quantized_module", "rules", "write"]
