"""A ``.pte`` file loaded and run in this process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.interface import TensorSpec
from kompakt.targets.target import Arrays

INTERFACE = "kompakt_interface"
"""The method of the file that returns, as JSON, what its inputs and outputs are called."""


@dataclass
class Program:
    """A ``.pte`` file loaded in this process.

    ``program`` is kept because ``method`` points into its memory without holding on to it.
    """

    program: Any
    method: Any
    input_specs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]
    batched: bool

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(spec.name for spec in self.input_specs)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once for every sample.

        Raises:
            TargetError: K403 when the inputs do not fit the model.
        """
        tensors = [self._checked(spec, inputs) for spec in self.input_specs]
        if not self.batched:
            return self._named(self._once(tensors))
        counts = {len(tensor) for tensor in tensors}
        if len(counts) != 1 or 0 in counts:
            raise _does_not_fit("the inputs hold different numbers of samples, or none")
        rows = [self._once([t[i : i + 1] for t in tensors]) for i in range(counts.pop())]
        return self._named([torch.cat(parts) for parts in zip(*rows, strict=True)])

    def _once(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        try:
            return list(self.method.execute(list(tensors)))
        except RuntimeError as error:
            raise _does_not_fit(first_line(error)) from error

    def _named(self, tensors: Sequence[Tensor]) -> Arrays:
        return dict(zip(self.output_names, (t.numpy() for t in tensors), strict=True))

    def _checked(self, spec: TensorSpec, inputs: Mapping[str, NDArray[Any]]) -> Tensor:
        if spec.name not in inputs:
            raise _does_not_fit(f"the input {spec.name} is missing")
        tensor = torch.from_numpy(np.array(inputs[spec.name], order="C"))
        wanted, had = spec.shape[self.batched :], tuple(tensor.shape[self.batched :])
        if tensor.dtype != spec.dtype or had != wanted or tensor.dim() != len(spec.shape):
            raise _does_not_fit(
                f"{spec} is wanted, and {dtype_name(tensor.dtype)}{list(tensor.shape)} was given"
            )
        return tensor


def _does_not_fit(why: str) -> TargetError:
    return TargetError("K403", "running the model in ExecuTorch", why=why)


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Program:
    """Load a ``.pte`` file.

    Args:
        model: Path of the file, or its content.
        options: Not used: the file says all itself.
        threads: Threads of XNNPACK's pool, which all loaded files share.

    Raises:
        ArtifactError: K530 when ExecuTorch does not accept the file.
    """
    try:
        content = model.read_bytes() if isinstance(model, Path) else model
        with quietly(native=True):
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            if portable_lib._threadpool_get_thread_count() != threads:
                portable_lib._unsafe_reset_threadpool(threads)
            program = Runtime.get().load_program(content)
            told = json.loads(program.load_method(INTERFACE).execute([])[0])
            method = program.load_method("forward")
        specs = tuple(
            TensorSpec(i["name"], tuple(i["shape"]), getattr(torch, i["dtype"]))
            for i in told["inputs"]
        )
        outputs = tuple(o["name"] for o in told["outputs"])
    except (RuntimeError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ArtifactError(
            "K530",
            "loading the model in ExecuTorch",
            where=str(model) if isinstance(model, Path) else "",
            why=first_line(error),
        ) from error
    batched = bool(specs) and all(isinstance(s.shape[0], str) for s in specs if s.shape)
    return Program(program, method, specs, outputs, batched)


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def quietly(*, native: bool = False) -> Iterator[None]:
    """Keep ExecuTorch's messages about its own libraries from the user.

    Args:
        native: Also what its C++ code writes to the error stream; the reason of an error is in the exception.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), _no_native_messages(native):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _no_native_messages(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)
