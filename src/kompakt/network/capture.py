"""Captures a PyTorch model as a Network.

The model is copied, exported to ATen operators with its batch (and chosen other dimensions)
dynamic, and rebuilt as an ordinary GraphModule in which layers are real ``nn`` modules again. The
result is run on the example and compared with the model: what differs is never returned silently.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from kompakt.errors import CaptureError
from kompakt.network.describe import describe
from kompakt.network.dropout import (
    NOT_RECOVERED,
    ONLY_ATTENTION,
    dropout_owners,
    may_hide_dropout,
    recover_dropout,
)
from kompakt.network.examples import Example, read_example, static, widened
from kompakt.network.export import export_program
from kompakt.network.inplace import functionalise
from kompakt.network.interface import plain_signature
from kompakt.network.network import Network
from kompakt.network.operators import fixed_size, remove_dead_nodes, value
from kompakt.network.private_copy import private_copy
from kompakt.network.program import Traced, flat_graph
from kompakt.network.rebuild import rebuild_layers
from kompakt.network.root import assemble
from kompakt.network.sites import name_sites
from kompakt.network.trial import run_model, verify


def capture(
    model: nn.Module,
    example_inputs: Any,
    *,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    batch_dim: int | None = 0,
) -> Network:
    """Capture ``model`` as a :class:`Network` that computes the same, to the bit.

    The network owns a copy of the weights; the model is not changed. It is returned in eval mode.

    Args:
        model: Any module that ``torch.export`` can follow, in train or eval mode.
        example_inputs: A tensor, a tuple of positional or a dict of keyword inputs.
        dynamic: More dimensions that may change, by input name: ``{"input_ids": {1: "sequence"}}``.
        batch_dim: The axis along which every input is batched; ``None`` makes all other dimensions
            fixed.

    Returns:
        The network; :attr:`Network.notes` says what the user should know about it.

    Raises:
        CaptureError: K100–K109 when the model cannot be followed; names the line of the model's
            code.
        DataError: K104 when ``dynamic`` names an input or axis that does not exist.
    """
    signature = _signature(model)
    parameters = nn.Module.parameters(model)
    floating = next((p.dtype for p in parameters if p.is_floating_point()), None)
    example = read_example(signature, example_inputs, dynamic, batch_dim, floating)
    twin, settled = private_copy(model)
    exported = _export(twin, example, requested=dynamic or {})
    network = _rebuild(twin, exported)
    notes = [
        f"'{name}' was parametrized; the network holds its value as a parameter" for name in settled
    ]
    renamed = {old: (name,) for name, olds in settled.items() for old in olds}
    network.interface = network.interface.replace(
        notes=(*notes, *exported.notes, *network.notes),
        renamed={**network.interface.renamed, **renamed},
    )
    return network


def _signature(model: nn.Module) -> inspect.Signature:
    if isinstance(model, Network):
        return model.interface.signature
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            "K109",
            f"capturing an object of type {type(model).__name__}",
            why="only an nn.Module with its Python code can be captured",
        )
    return plain_signature(model.forward)


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """An exported program, the example it was exported with, what the model returned for it, and
    what there is to say about it.
    """

    program: ExportedProgram
    example: Example
    outputs: list[Any]
    notes: tuple[str, ...] = ()


def _export(
    model: nn.Module, example: Example, requested: Mapping[str, Mapping[int, str]]
) -> _Exported:
    """Export with dynamic dimensions; where the model fixes the batch, with that of the example."""
    wide = widened(example)
    try:
        outputs = run_model(model, wide)
        program = export_program(model, wide)
        fixed = _fixed_dimensions(program, wide)
        why = "the model's code depends on it"
    except CaptureError as error:
        if requested or not example.dynamic or error.code == "K101":
            raise
        fixed, why = ["batch"], error.why
    if not fixed:
        return _Exported(program=program, example=wide, outputs=outputs)
    asked = [name for axes in requested.values() for name in axes.values() if name in fixed]
    if asked:
        raise CaptureError(
            "K106",
            f"capturing {type(model).__name__} with dimension '{asked[0]}' dynamic",
            why=f"{why}, so it can only have the size of the example",
        )
    narrow = static(example)
    outputs = run_model(model, narrow)
    return _Exported(
        program=export_program(model, narrow),
        example=narrow,
        outputs=outputs,
        notes=(f"the batch is fixed to that of the example: {why}",),
    )


def _fixed_dimensions(program: ExportedProgram, example: Example) -> list[str]:
    """Names of the dimensions that were to be dynamic and that the model fixed to one size."""
    values = {node.name: value(node) for node in program.graph.find_nodes(op="placeholder")}
    inputs = [values[str(name)] for name in program.graph_signature.user_inputs]
    return [
        dimension
        for tensor, axes in zip(inputs, example.tensor_axes, strict=True)
        for axis, dimension in axes.items()
        if fixed_size(tensor.shape[axis]) is not None
    ]


def _rebuild(model: nn.Module, exported: _Exported) -> Network:
    program, example = exported.program, exported.example
    traced = flat_graph(program, model, example.tensor_names)
    functionalise(traced)
    if may_hide_dropout(traced, model):
        _recover_dropout(traced, model, example)
    layers = rebuild_layers(traced, model)
    remove_dead_nodes(traced.graph)
    name_sites(traced.graph)
    built = assemble(traced, layers, model)
    interface = describe(model, program, example, traced, built)
    network = Network(built.root, traced.graph, interface)
    verify(network, example, exported.outputs)
    return network


def _recover_dropout(traced: Traced, model: nn.Module, example: Example) -> None:
    """Export once more in train mode and take the dropout probabilities from there.

    Some models run other code in train mode (masking, skipping layers) that cannot be captured or
    compared; then only the modules that call attention or dropout are put in train mode.
    """
    owners = dropout_owners(traced, model)
    for modules, partly in ((list(nn.Module.modules(model)), False), (owners, True)):
        training = _traced_in_training(model, modules, example)
        if training is not None and recover_dropout(traced, training):
            if partly:
                traced.notes.append(ONLY_ATTENTION)
            return
    traced.notes.append(NOT_RECOVERED)


def _traced_in_training(
    model: nn.Module, modules: Iterable[nn.Module], example: Example
) -> Traced | None:
    """The flat graph with these modules in train mode; None when it cannot be captured."""
    modes = {module: module.training for module in nn.Module.modules(model)}
    try:
        for module in modules:
            module.training = True
        training = flat_graph(export_program(model, example), model, example.tensor_names)
    except CaptureError:
        return None
    finally:
        for module, mode in modes.items():
            module.training = mode
    functionalise(training)
    return training
