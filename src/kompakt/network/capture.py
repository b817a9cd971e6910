"""Captures a PyTorch model as a Network.

The model is copied, exported to ATen operators with its batch (and chosen other dimensions)
dynamic, and rebuilt as an ordinary GraphModule in which layers are real ``nn`` modules again. The
result is run on the example and compared with
the model: what differs is never returned silently.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kompakt.errors import CaptureError
from kompakt.network import tree
from kompakt.network.describe import describe
from kompakt.network.dropout import may_hide_dropout, recover_dropout
from kompakt.network.examples import Example, read_example, static, widened
from kompakt.network.export import export_program, quiet, unfused_attention
from kompakt.network.failure import first_line, user_frame
from kompakt.network.inplace import functionalise
from kompakt.network.interface import call_arguments, plain_signature
from kompakt.network.network import Network
from kompakt.network.operators import fixed_size, remove_dead_nodes
from kompakt.network.private_copy import private_copy
from kompakt.network.program import Traced, flat_graph
from kompakt.network.rebuild import rebuild_layers
from kompakt.network.root import assemble
from kompakt.network.sites import name_sites


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
        CaptureError: K100–K107 when the model cannot be followed; names the line of the model's
            code.
        DataError: K104 when ``dynamic`` names an input or axis that does not exist.
    """
    example = read_example(_signature(model), example_inputs, dynamic, batch_dim)
    twin, settled = private_copy(model)
    example, program, fixed = _export(twin, example, requested=dynamic or {})
    network = _rebuild(twin, program, example)
    notes = [
        f"'{name}' was parametrized; the network holds its value as a parameter" for name in settled
    ]
    renamed = {old: (name,) for name, olds in settled.items() for old in olds}
    network.interface = network.interface.replace(
        notes=(*notes, *fixed, *network.notes), renamed={**network.interface.renamed, **renamed}
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


def _export(
    model: nn.Module, example: Example, requested: Mapping[str, Mapping[int, str]]
) -> tuple[Example, ExportedProgram, list[str]]:
    """Export with dynamic dimensions; where the model fixes the batch, with the batch of the example."""
    wide = widened(example)
    try:
        run_model(model, wide)
        program = export_program(model, wide)
        fixed = _fixed_dimensions(program, wide)
        why = "the model's code depends on it"
    except CaptureError as error:
        if requested or not example.dynamic or error.code == "K101":
            raise
        fixed, why = ["batch"], error.why
    if not fixed:
        return wide, program, []
    asked = [name for axes in requested.values() for name in axes.values() if name in fixed]
    if asked:
        raise CaptureError(
            "K106",
            f"capturing {type(model).__name__} with dimension '{asked[0]}' dynamic",
            why=f"{why}, so it can only have the size of the example",
        )
    narrow = static(example)
    run_model(model, narrow)
    note = f"the batch is fixed to that of the example: {why}"
    return narrow, export_program(model, narrow), [note]


def _fixed_dimensions(program: ExportedProgram, example: Example) -> list[str]:
    """Names of the dimensions that were to be dynamic and that the model fixed to one size."""
    names = program.graph_signature.user_inputs
    values = {
        node.name: node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")
    }
    fixed = []
    for position, axes in example.dynamic.items():
        value = values.get(str(names[position]))
        fixed += [
            name
            for axis, name in axes.items()
            if isinstance(value, Tensor) and fixed_size(value.shape[axis]) is not None
        ]
    return fixed


def _rebuild(model: nn.Module, program: ExportedProgram, example: Example) -> Network:
    traced = flat_graph(program, model, example.names)
    functionalise(traced)
    if may_hide_dropout(traced, model):
        _recover_dropout(traced, model, example)
    layers = rebuild_layers(traced, model)
    remove_dead_nodes(traced.graph)
    name_sites(traced.graph)
    built = assemble(traced, layers, model)
    interface = describe(model, program, example, traced, built)
    network = Network(built.root, traced.graph, interface)
    return _verified(model, network, example)


def _recover_dropout(traced: Traced, model: nn.Module, example: Example) -> None:
    """Export once more in train mode and take the dropout probabilities from there."""
    modes = {module: module.training for module in nn.Module.modules(model)}
    try:
        nn.Module.train(model)
        training = flat_graph(export_program(model, example), model, example.names)
        functionalise(training)
    except CaptureError as error:
        traced.notes.append(
            f"train mode cannot be captured, so attention dropout may be missing: {error.why}"
        )
        return
    finally:
        for module, mode in modes.items():
            module.training = mode
    recover_dropout(traced, training)


def run_model(model: nn.Module, example: Example) -> list[Any]:
    """The flattened output of ``model`` on the example, with a fixed seed.

    Raises:
        CaptureError: K100 when the model itself fails on the example.
    """
    args, kwargs = call_arguments(example.signature, example.bound)
    devices = [t.device for t in example.tensors if t.device.type == "cuda"]
    with (
        quiet(),
        unfused_attention(),
        unchanged_buffers(model),
        torch.no_grad(),
        torch.random.fork_rng(devices),
    ):
        torch.manual_seed(0)
        try:
            outputs = model(*args, **kwargs)
        except Exception as error:
            raise CaptureError(
                "K100",
                f"running {type(model).__name__} on the example inputs",
                where=user_frame(error),
                why=f"{type(error).__name__}: {first_line(str(error))}",
            ) from error
    tree.register_dataclasses(outputs)
    return tree.flatten(outputs)[0]


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Give every buffer its value back afterwards: some models count their calls."""
    before = [(buffer, buffer.detach().clone()) for buffer in nn.Module.buffers(model)]
    try:
        yield
    finally:
        for buffer, value in before:
            if not torch.equal(buffer, value):
                buffer.detach().copy_(value)


def _verified(model: nn.Module, network: Network, example: Example) -> Network:
    """The network, after comparing it with the model on the example."""
    expected = run_model(model, example)
    found = run_model(network, example)
    worst = 0.0
    for wanted, got in zip(expected, found, strict=True):
        if isinstance(wanted, Tensor) and not torch.equal(wanted, got):
            worst = max(worst, relative_difference(wanted, got))
    if worst > 1e-4:
        raise CaptureError(
            "K108",
            f"capturing {type(model).__name__}",
            why=f"the captured network's output differs from the model's by {worst:.1e} (relative)",
        )
    if worst > 0:
        note = f"the output differs from the model's by {worst:.1e} (relative) on the example"
        network.interface = network.interface.replace(notes=(*network.notes, note))
    return network


def relative_difference(wanted: Tensor, got: Tensor) -> float:
    """``‖got − wanted‖ / ‖wanted‖`` with equal NaN and infinities ignored; infinite when shapes differ."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return float("inf")
    same = (wanted == got) | ((wanted != wanted) & (got != got))
    first, second = wanted[~same].double(), got[~same].double()
    if first.numel() == 0:
        return 0.0
    scale = wanted.double().nan_to_num(posinf=0.0, neginf=0.0).norm().clamp_min(1e-30)
    difference = float((second - first).norm() / scale)
    return difference if difference == difference else float("inf")
