"""Runs ``torch.export`` quietly and makes its failures readable."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kompakt.network.examples import Example
from kompakt.network.failure import capture_failure
from kompakt.network.interface import call_arguments
from kompakt.network.rnn import whole_rnns


def export_program(model: nn.Module, example: Example) -> ExportedProgram:
    """The ATen program of ``model`` in the mode (train or eval) it is in.

    Args:
        model: May be any module; it is not changed.
        example: Inputs to trace with, and which of their dimensions may change.

    Raises:
        CaptureError: K101 or K102 when PyTorch cannot follow the code.
    """
    auto = torch.export.Dim.AUTO
    named_axes = zip(example.tensor_names, example.tensor_axes, strict=True)
    shapes = {name: dict.fromkeys(axes, auto) if axes else None for name, axes in named_axes}
    with (
        quiet(),
        silent(),
        unfused_attention(),
        whole_rnns(model),
        flat_forward(model, example),
    ):
        try:
            return torch.export.export(model, example.tensors, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise capture_failure(error, type(model).__name__) from error


@contextmanager
def flat_forward(model: nn.Module, example: Example) -> Iterator[None]:
    """While this lasts, ``model.forward`` has one parameter for each input tensor, by name.

    Nested containers, keyword-only and variable arguments and constants are put back inside, so
    the exporter never sees them.
    """
    forward, before = model.forward, model.__dict__.get("forward")

    def flat(*tensors: Tensor) -> Any:
        args, kwargs = call_arguments(example.signature, example.bound_to(tensors))
        return forward(*args, **kwargs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in example.tensor_names]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    model.__dict__["forward"] = flat
    try:
        yield
    finally:
        del model.__dict__["forward"]
        if before is not None:
            model.__dict__["forward"] = before


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's warnings and logs about tracing away from the user; they are turned into
    errors or notes.
    """
    loggers = [logging.getLogger(name) for name in _talkative()]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def silent() -> Iterator[None]:
    """Swallow what is printed: the exporter prints its half-finished graph before it raises."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Switch off the fused encoder layer, which hides its linear layers from tracing; restored
    afterwards.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _talkative() -> list[str]:
    known = logging.getLogger("torch").manager.loggerDict
    return ["torch", *(name for name in known if name.startswith("torch."))]
