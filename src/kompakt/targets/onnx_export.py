"""A network as an ONNX model: named inputs and outputs, named dynamic axes, kompakt's operators translated."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch

from kompakt.errors import TargetError
from kompakt.network.network import Network
from kompakt.network.rnn import whole_rnns
from kompakt.quantize.quantizer import stage
from kompakt.quantize.redundant import drop_redundant_activations_
from kompakt.targets.onnx_attention import expand_attention_
from kompakt.targets.onnx_emitter import OPSET
from kompakt.targets.onnx_translations import translations
from kompakt.targets.onnx_writing import emitted_or_none


def export_onnx(network: Network) -> ir.Model:
    """Write a frozen (or untouched float) network as ONNX.

    Args:
        network: Its quantizers, if any, have ranges and its treated layers are frozen.

    Returns:
        An onnx-ir model of opset 21 whose inputs, outputs and dynamic axes have the network's names.

    Raises:
        TargetError: K401 when an operator of the network has no ONNX form.
    """
    with stage(network, "write"):
        model = emitted_or_none(network)
    return traced_onnx(network) if model is None else model


def traced_onnx(network: Network) -> ir.Model:
    """The same by ``torch.onnx``, which traces the network: slow, but it knows every ATen operator."""
    try:
        with stage(network, "write"), _quietly(), torch.no_grad():
            flat = expand_attention_(drop_redundant_activations_(network.flat(), network))
            with whole_rnns(flat):
                program = torch.export.export(
                    flat, network.example_inputs(), dynamic_shapes=_dynamic_shapes(network)
                )
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=OPSET,
                output_names=[spec.name for spec in network.output_specs],
                custom_translation_table=translations(),
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        raise TargetError(
            "K401",
            "writing the network as ONNX",
            why=_first_line(error),
            help="`kompakt inspect` lists its operators; report the one named above",
        ) from error
    assert exported is not None
    model: ir.Model = exported.model
    _name_axes(model, network)
    return model


def _dynamic_shapes(network: Network) -> Any:
    """Every named dimension is dynamic; torch finds out which of them must be equal."""
    return tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(s.shape) if isinstance(size, str)}
        for s in network.input_specs
    )


def _name_axes(model: ir.Model, network: Network) -> None:
    """Give the symbolic dimensions the names the network's specs use."""
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, network.input_specs, strict=True):
        value.name = spec.name
        for found, wanted in zip(value.shape or (), spec.shape, strict=True):
            if isinstance(wanted, str) and isinstance(found, ir.SymbolicDim):
                names[str(found.value)] = wanted
    for value in _all_values(model):
        if value.shape is not None:
            value.shape = ir.Shape(
                names.get(str(d.value), d.value) if isinstance(d, ir.SymbolicDim) else d
                for d in value.shape
            )


def _all_values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter prints and warns about things a user can do nothing about."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
