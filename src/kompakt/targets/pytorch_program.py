"""What the files of PyTorch's runtimes share: their names and shapes, and how they are called."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kompakt.errors import TargetError
from kompakt.network.interface import TensorSpec
from kompakt.network.network import Network
from kompakt.targets.target import Arrays

INTERFACE = "kompakt.json"
"""The entry of a file's archive that says what its inputs and outputs are called."""

_MANGLED = re.compile(r"/___torch_mangle_\d+(?=\.py)")
"""What PyTorch puts into the name of a class that this process has scripted before."""
_OLDEST = (1980, 1, 1, 0, 0, 0)


def interface_of(network: Network, *, single: bool = False) -> str:
    """Names, shapes and element types of a network's inputs, and names of its outputs, as JSON.

    Args:
        network: The network.
        single: Whether its file computes one sample a call.
    """
    inputs = [
        {
            "name": spec.name,
            "shape": list(spec.shape),
            "dtype": str(spec.dtype).removeprefix("torch."),
        }
        for spec in network.input_specs
    ]
    told: dict[str, Any] = {
        "inputs": inputs,
        "outputs": [spec.name for spec in network.output_specs],
    }
    if single:
        told["single"] = True
    return json.dumps(told, sort_keys=True)


def specs_from(text: str | bytes) -> tuple[tuple[TensorSpec, ...], tuple[str, ...], bool]:
    """Input specs, output names, and whether one call is one sample, from what :func:`interface_of` wrote.

    Raises:
        ValueError: When it is something else.
    """
    told = json.loads(text)
    try:
        specs = tuple(
            TensorSpec(i["name"], tuple(i["shape"]), getattr(torch, i["dtype"]))
            for i in told["inputs"]
        )
        return specs, tuple(told["outputs"]), bool(told.get("single"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{INTERFACE} lacks something: {error}") from error


def repacked(archive: bytes, extra: Mapping[str, str] | None = None) -> bytes:
    """An archive of PyTorch's with entries added, and without what differs from one writing to the next.

    Args:
        archive: A zip file as PyTorch writes it, with all entries in one folder.
        extra: Texts to add, by name.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        entries = {name: old.read(name) for name in old.namelist()}
        root = next(iter(entries)).split("/")[0]
        entries |= {f"{root}/extra/{name}": text.encode() for name, text in (extra or {}).items()}
        for written, content in entries.items():
            if written.endswith(".debug_pkl"):  # names the files this process ran
                continue
            name, kept = _MANGLED.sub("", written), content
            if name.endswith("/.data/serialization_id"):
                kept = b"0" * len(content)
            elif _MANGLED.search(written) or name.endswith("/data.pkl"):
                kept = re.sub(rb"\.___torch_mangle_\d+", b"", content)
            elif name.endswith(".cpp"):  # its comments name folders, and when it was compiled
                kept = re.sub(rb"(?m)^//.*\n?", b"", content).strip() + b"\n"
            new.writestr(zipfile.ZipInfo(name, _OLDEST), kept)
    return out.getvalue()


@dataclass
class Program:
    """A loaded program: a function from tensors to tensors, and the names it was captured with."""

    function: Callable[..., Any]
    input_specs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]
    single: bool = False
    """Whether it computes one sample a call, so that batches run one by one."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(spec.name for spec in self.input_specs)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once.

        Raises:
            TargetError: K403 when the inputs do not fit the model.
        """
        tensors = [self._checked(spec, inputs) for spec in self.input_specs]
        try:
            with torch.no_grad():
                results = self._run(tensors)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise _does_not_fit(first_line(error)) from error
        return dict(zip(self.output_names, (t.numpy() for t in results), strict=True))

    def _run(self, tensors: list[Tensor]) -> list[Tensor]:
        if self.single:
            counts = {len(tensor) for tensor in tensors}
            if len(counts) != 1 or 0 in counts:
                raise ValueError("the inputs hold different numbers of samples, or none")
            samples = range(counts.pop())
            rows = [_flat(self.function(*(t[i : i + 1] for t in tensors))) for i in samples]
            return [torch.cat(parts) for parts in zip(*rows, strict=True)]
        return _flat(self.function(*tensors))

    def _checked(self, spec: TensorSpec, inputs: Mapping[str, NDArray[Any]]) -> Tensor:
        if spec.name not in inputs:
            raise _does_not_fit(f"the input {spec.name} is missing")
        tensor = torch.from_numpy(np.array(inputs[spec.name], order="C"))
        sizes = zip(spec.shape, tensor.shape, strict=False)
        fits = len(spec.shape) == tensor.dim() and all(
            isinstance(wanted, str) or wanted == had for wanted, had in sizes
        )
        if tensor.dtype != spec.dtype or not fits:
            had = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            raise _does_not_fit(f"{spec} is wanted, and {had} was given")
        return tensor


def _flat(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


def _does_not_fit(why: str) -> TargetError:
    return TargetError("K403", "running the model in PyTorch", why=why)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep PyTorch's messages about its own deprecations from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
