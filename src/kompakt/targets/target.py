"""What a target is: a runtime's rules as data, one way to write and one way to load."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kompakt.network.interface import TensorSpec
from kompakt.network.network import Network
from kompakt.quantize.rules import Rules

Arrays = dict[str, NDArray[Any]]
BESIDE = (".c", ".h", ".py", ".sh", ".md", ".txt")
"""How files end that lie beside a model for people and compilers."""
Against = Literal["integers", "layers", "outputs"]


class Runnable(Protocol):
    """A loaded model file: call it with arrays by input name, get arrays by output name."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and dtype of the inputs, in order."""

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once."""


@dataclass(frozen=True)
class LayerValues:
    """Names of the values of a file that hold the float input and output of one call of a layer."""

    input: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Written:
    """A network as the files of one runtime.

    Attributes:
        files: File name to content; the first is the model.
        options: Settings the runtime must be loaded with to compute what was simulated.
        codes: For each quantized site, the name of the value that holds its codes in the file.
        dynamic: For each layer that finds its range while it runs, where its float input and output are, by call.
        notes: What a user should know about this file.
    """

    files: dict[str, bytes]
    options: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    dynamic: dict[str, tuple[LayerValues, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def visible(self) -> list[str]:
        """The values a parity check looks at: codes, and float values of dynamic layers, each once."""
        values = (v for calls in self.dynamic.values() for v in calls)
        floats = (name for v in values for name in (v.input, v.output))
        return list(dict.fromkeys((*self.codes.values(), *floats)))

    @property
    def main(self) -> str:
        """The name of the model file."""
        return next(iter(self.files))

    @property
    def size_bytes(self) -> int:
        """Size of the model's files on disk; source code and scripts beside them do not count."""
        return sum(
            len(content) for name, content in self.files.items() if not name.endswith(BESIDE)
        )

    def save(self, folder: Path) -> Path:
        """Write the files into an existing folder; returns the model file's path."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder / self.main


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How files of a runtime are compared with the simulation, and what is accepted.

    Attributes:
        against: ``integers``: the integer referee, running freely, must give the very same codes; ``layers``: each
            quantizer is fed the runtime's own codes (teacher-forced), and the codes it makes may differ by
            ``step``; ``outputs``: the runtime shows no codes, so that only outputs are compared.
        step: By how many codes a code may differ, layer by layer.
        share: Share of codes that may differ so much, layer by layer.
        output_error: Relative error of the outputs, running freely, that is accepted where only outputs are compared.
        integer_error: The same where integer kernels alone feed every quantizer; ``output_error`` unless given.
        probe_error: By how much the outputs of the file with visible codes may differ from those of the file itself;
            ``output_error`` unless given. Making values visible can keep a runtime from fusing.
        dynamic_error: Like ``output_error``, for networks with layers that find their ranges while they run, where the
            runtime does so by a formula of its own and shows none of their values; 0 where it shows them.
    """

    against: Against = "integers"
    step: int = 0
    share: float = 0.0
    output_error: float = 1e-5
    integer_error: float | None = None
    probe_error: float | None = None
    dynamic_error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The time one operator takes.

    Attributes:
        name: Its name in the graph the runtime executes.
        operator: Its type there.
        milliseconds: Median over some runs.
    """

    name: str
    operator: str
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime.

    Attributes:
        name: What users type.
        rules: The rules for an instruction set (``x86-vnni``, ``x86``, ``arm``, ``any``).
        write: Writes a frozen (or untouched float) network.
        load: Loads a model file with the options it was written with, for so many threads.
        probe: Loads it so that the codes of all quantizers come out as well: (path, options, codes) to Runnable; None
            when the runtime shows no codes.
        kernels: For each value that holds codes, the operator the runtime makes it with: (path, options, codes); None
            when it does not say.
        operators: Counts the operators the runtime really executes: (path, options) to counts.
        package: The distribution that holds the runtime.
        module: What is imported of it before a file is loaded.
        parity: How its files are certified.
        profile: The time of every operator: (path, options, inputs, threads) to rows; None when the runtime does not
            tell.
        stand_in: The runtime that checks its files here, where its own cannot run: nothing is timed then.
        automatic: Whether ``--target auto`` tries it: it runs on this machine what it writes.
    """

    name: str
    rules: Callable[[str], Rules]
    write: Callable[[Network], Written]
    load: Callable[..., Runnable]
    probe: Callable[[Path, Mapping[str, str], Sequence[str]], Runnable] | None
    kernels: Callable[[Path, Mapping[str, str], Sequence[str]], dict[str, str]] | None
    operators: Callable[..., dict[str, int]]
    package: str
    module: str
    parity: Parity = Parity()
    profile: Callable[..., list[Spent]] | None = None
    automatic: bool = True
    stand_in: str | None = None

    def version(self) -> str | None:
        """The installed version of :attr:`package`, or None when it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


def as_arrays(inputs: Mapping[str, Any]) -> Arrays:
    """Tensors or arrays by name, as contiguous numpy arrays."""
    # numpy makes 0-d arrays 1-d when asked for contiguous ones.
    return {name: np.array(value, order="C", copy=None) for name, value in inputs.items()}
