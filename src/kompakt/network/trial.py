"""Runs a model on its example inputs, and compares a captured network with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError
from kompakt.network import tree
from kompakt.network.examples import Example
from kompakt.network.export import quiet, unfused_attention
from kompakt.network.failure import first_line, user_frame
from kompakt.network.interface import call_arguments
from kompakt.network.network import Network


def run_model(model: nn.Module, example: Example) -> list[Any]:
    """The flattened output of ``model`` on the example, with a fixed seed.

    Raises:
        CaptureError: K100 when the model itself fails on the example.
    """
    # Clones, because a model may change its inputs in place.
    inputs = [tensor.detach().clone() for tensor in example.tensors]
    args, kwargs = call_arguments(example.signature, example.bound_to(inputs))
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


def verify(network: Network, example: Example, outputs: Sequence[Any]) -> None:
    """Compare a network with what its model returned; note a small difference, refuse a large one.

    Args:
        network: Freshly captured.
        example: What the model was run on.
        outputs: Its flattened output, from :func:`run_model`.

    Raises:
        CaptureError: K108 when they differ by more than 1e-4 (relative).
    """
    found = run_model(network, example)
    worst = 0.0
    for wanted, got in zip(outputs, found, strict=True):
        if isinstance(wanted, Tensor) and not torch.equal(wanted, got):
            worst = max(worst, relative_difference(wanted, got))
    if worst > 1e-4:
        raise CaptureError(
            "K108",
            f"capturing {network.original_class}",
            why=f"the captured network's output differs from the model's by {worst:.1e} (relative)",
        )
    if worst > 0:
        note = f"the output differs from the model's by {worst:.1e} (relative) on the example"
        network.interface = network.interface.replace(notes=(*network.notes, note))


def relative_difference(wanted: Tensor, got: Tensor) -> float:
    """``‖got − wanted‖ / ‖wanted‖`` with equal NaN and infinities ignored; infinite when shapes
    differ.
    """
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return float("inf")
    same = (wanted == got) | ((wanted != wanted) & (got != got))
    first, second = wanted[~same].double(), got[~same].double()
    if first.numel() == 0:
        return 0.0
    scale = wanted.double().nan_to_num(posinf=0.0, neginf=0.0).norm().clamp_min(1e-30)
    difference = float((second - first).norm() / scale)
    return difference if difference == difference else float("inf")
