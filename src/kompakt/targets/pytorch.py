"""The torch target: a ``.pt2`` ExportedProgram that Inductor compiles to int8 kernels on x86.

The file is a program of ATen and ``quantized_decomposed`` operators with stored int8 weights, as ``torch.export.save``
writes it: any PyTorch reads it, and ``torch.compile`` with freezing turns its layers into oneDNN's int8 kernels. The
rules are those of Inductor's patterns for x86: unsigned activations, symmetric int8 weights, sums in float between.

Options: ``run`` is ``inductor`` (compiled while it is loaded, which takes seconds to a minute and needs a C++ compiler)
or ``eager`` (the same operators one by one, in float).
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.network import Network
from kompakt.quantize.rules import Rules
from kompakt.targets.decomposed import decomposed
from kompakt.targets.lowering_check import refuse_garbage
from kompakt.targets.pytorch_program import (
    INTERFACE,
    Program,
    first_line,
    interface_of,
    quietly,
    repacked,
    specs_from,
)
from kompakt.targets.target import Parity, Target, Written

MODEL_FILE = "model.pt2"

_FUSED = frozenset({"relu", "relu6"})
_WEIGHTS8 = frozenset({"int8", "int8_narrow", "int7", "int7_narrow"})


def rules(isa: str) -> Rules:
    """The rules of Inductor's int8 patterns.

    Args:
        isa: Not looked at: the same program serves every processor.
    """
    return Rules(
        runtime="PyTorch",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset({"linear"}),
        weight_only_layers=frozenset({"conv", "conv_transpose", "linear", "embedding"}),
        grouped_layers=frozenset({"linear"}),
        group_sizes=frozenset({16, 32, 64, 128, 256}),
        integer_operators=frozenset(),
        float_output_layers=frozenset({"conv", "linear"}),
        pass_through=frozenset({"reshape", "transpose", "slice", "pad", "max_pool"}),
        shared_inputs=frozenset(),
        fused_activations={"conv": _FUSED, "linear": _FUSED},
        activation8="uint8",
        activation16="uint16",
        dynamic_activation="uint8",
        activation_formats=frozenset({"uint8"}),
        weight_formats={
            "static": _WEIGHTS8,
            "dynamic": _WEIGHTS8,
            "weight_only": _WEIGHTS8 | {"uint8", "int4", "uint4", "fp16", "bf16"},
        },
        rounding="reciprocal_even",
        reasons={
            "add": "Inductor adds in float, fused with the convolution before it",
            "conv:dynamic": "Inductor has no integer convolution with ranges found at run time",
            "conv_transpose": "Inductor has no integer kernel for transposed convolution",
            "rnn": "Inductor has no integer recurrent kernel",
            "embedding": "an embedding is looked up, not multiplied",
            "softmax": "softmax runs in float: its exponentials span more than 8 bits",
        },
    )


def exported(
    network: Network, examples: tuple[Tensor, ...] | None = None
) -> torch.export.ExportedProgram:
    """A frozen (or untouched float) network as an ExportedProgram.

    Args:
        network: The network.
        examples: Inputs whose sizes are fixed; by default the network's dynamic dimensions stay dynamic.

    Raises:
        TargetError: K401 when PyTorch cannot export it.
    """
    module = decomposed(network)
    shapes = tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(s.shape) if isinstance(size, str)}
        for s in network.input_specs
    )
    try:
        with torch.no_grad(), quietly():
            if examples is not None:
                return torch.export.export(module, examples)
            given = tuple(example.detach().contiguous() for example in network.example_inputs())
            return torch.export.export(module, given, dynamic_shapes=shapes)
    except Exception as error:
        raise TargetError(
            "K401", "exporting the network with PyTorch", why=first_line(error)
        ) from error


def write(network: Network) -> Written:
    """Write a frozen (or untouched float) network as a ``.pt2`` program.

    Raises:
        TargetError: K401 when PyTorch cannot export it.
    """
    program, buffer = exported(network), io.BytesIO()
    for node in program.graph.nodes:  # what is left out names this process's objects and files
        node.meta = {name: node.meta[name] for name in ("val", "tensor_meta") if name in node.meta}
    with quietly():
        torch.export.save(program, buffer, extra_files={INTERFACE: interface_of(network)})
    return Written(files={MODEL_FILE: repacked(buffer.getvalue())}, options={"run": "inductor"})


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Program:
    """Load a ``.pt2`` program and compile it.

    Args:
        model: Path of the file, or its content.
        options: ``run`` is ``inductor`` or ``eager``.
        threads: PyTorch's threads inside one operator, for the whole process.

    Raises:
        ArtifactError: K530 when PyTorch does not accept the file.
    """
    torch.set_num_threads(threads)
    module, told, examples = _program(model)
    if (options or {}).get("run", "inductor") == "eager":
        return Program(module, *specs_from(told))
    try:
        with torch.no_grad(), quietly():
            compiled = _compiled(module, told, examples)
    except Exception as error:
        raise ArtifactError(
            "K530",
            "compiling the model with Inductor",
            where=str(model) if isinstance(model, Path) else "",
            why=first_line(error),
            help='a C++ compiler is needed; load it with options={"run": "eager"} to run it without',
        ) from error
    return Program(compiled, *specs_from(told))


def _compiled(module: fx.GraphModule, told: str, examples: Sequence[Tensor]) -> Callable[..., Any]:
    """The compiled program, for any batch where Inductor can, else once for each size it meets.

    Raises:
        TargetError: K402 when what was compiled computes something else.
    """
    specs, outputs, _ = specs_from(told)
    single = tuple(
        example[:1] if spec.shape and isinstance(spec.shape[0], str) else example
        for example, spec in zip(examples, specs, strict=True)
    )
    try:
        run = _frozen(module, dynamic=True)
        for inputs in (examples, single):  # Inductor compiles a single sample apart
            refuse_garbage(Program(run, specs, outputs), module, inputs)
    except TargetError:
        torch._dynamo.reset()
        run = _frozen(module, dynamic=False)
        refuse_garbage(Program(run, specs, outputs), module, examples)
    return run


def _frozen(module: fx.GraphModule, *, dynamic: bool) -> Callable[..., Any]:
    compiled = torch.compile(module, dynamic=dynamic)

    def run(*tensors: Tensor) -> Any:
        # Not an option of torch.compile: the weights must be known as constants before Inductor is called.
        with torch._inductor.config.patch(freezing=True):
            return compiled(*tensors)

    return run


def _program(model: Path | bytes) -> tuple[fx.GraphModule, str, tuple[Tensor, ...]]:
    """The program, what its inputs and outputs are called, and its example inputs."""
    try:
        content = model.read_bytes() if isinstance(model, Path) else model
        zipfile.ZipFile(io.BytesIO(content)).close()
        told = {INTERFACE: ""}
        with quietly():
            program = torch.export.load(io.BytesIO(content), extra_files=told)
        specs_from(told[INTERFACE])
        examples = tuple(program.example_inputs[0]) if program.example_inputs else ()
        return program.module(check_guards=False), told[INTERFACE], examples
    except Exception as error:
        raise ArtifactError(
            "K530",
            "loading the model in PyTorch",
            where=str(model) if isinstance(model, Path) else "",
            why=first_line(error),
        ) from error


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operators after the passes in which Inductor finds its int8 layers.

    What is left between them, it fuses into loops of its own.

    Args:
        path: The model file.
        options: ``run`` as for :func:`load`.
        visible: Not used.
    """
    module, _, examples = _program(path)
    if options.get("run", "inductor") != "eager":
        module = lowered(module, examples)
    targets = (str(node.target) for node in module.graph.nodes if node.op == "call_function")
    return dict(sorted(Counter(targets).items()))


def lowered(module: fx.GraphModule, examples: Sequence[Tensor]) -> fx.GraphModule:
    """The program as Inductor compiles it at these inputs: oneDNN's int8 layers in place of their patterns."""
    from torch._inductor.fx_passes.freezing_patterns import freezing_passes

    with torch.no_grad(), quietly():
        keep = torch.export.default_decompositions()
        for operator in list(keep):
            if not torch._export.utils._is_cia_op(operator):
                del keep[operator]
        program = torch.export.export(module, tuple(examples)).run_decompositions(keep)
        plain: fx.GraphModule = program.module(check_guards=False)
        for node in list(plain.graph.nodes):
            if node.target is torch.ops.aten.t.default:
                with plain.graph.inserting_before(node):
                    turned = plain.graph.call_function(
                        torch.ops.aten.permute.default, (node.args[0], [1, 0])
                    )
                node.replace_all_uses_with(turned)
                plain.graph.erase_node(node)
        plain.recompile()
        freezing_passes(plain, tuple(examples))
    return plain


TORCH = Target(
    name="torch",
    rules=rules,
    write=write,
    load=load,
    probe=None,
    kernels=None,
    operators=operators,
    package="torch",
    module="torch",
    parity=Parity(against="outputs", output_error=0.05),
)
