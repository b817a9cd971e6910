"""The target for microcontrollers: the TFLite file as firmware wants it, run by TensorFlow Lite for Microcontrollers.

Inputs and outputs are codes and images have their channels last, so that the device neither converts nor transposes.
The arena (the memory the interpreter needs beside the file) is measured when the file is written: together with the
list of operators it decides whether a Cortex-M can hold the model. CMSIS-NN's kernels compute the same numbers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.errors import ArtifactError
from kompakt.network.network import Network
from kompakt.quantize.rules import Rules
from kompakt.targets import litert
from kompakt.targets.litert_c_array import c_files
from kompakt.targets.litert_session import Session
from kompakt.targets.litert_writing import emit_tflite
from kompakt.targets.target import Parity, Target, Written

ROUNDING = "divide_away"
LARGEST_ARENA = 1 << 30
ARENA_STEP = 16
"""The arena is found to within so many bytes: what the interpreter aligns to."""


def rules(isa: str) -> Rules:
    """The rules of LiteRT with the arithmetic of its reference kernels; they are the same on every processor."""
    return replace(
        litert.rules(isa),
        runtime="TensorFlow Lite for Microcontrollers",
        rounding=ROUNDING,
        arithmetic="fixed_point",
        # Its reference kernels for floats with stored codes, and for 16-bit activations, are few.
        dynamic_layers=frozenset(),
        weight_only_layers=frozenset(),
        activation_formats=frozenset({"int8"}),
    )


def write(
    network: Network,
    *,
    integer_io: bool = True,
    channels_last: bool = True,
    c_array: bool = False,
) -> Written:
    """Write a frozen (or untouched float) network as a ``.tflite`` file for firmware.

    Args:
        network: The network.
        integer_io: Inputs and outputs hold codes.
        channels_last: Images come in and go out as (batch, height, width, channels).
        c_array: Whether to write C source and header for firmware beside the model.

    Raises:
        TargetError: K401 when an operator has no form in TFLite.
    """
    file = emit_tflite(network, integer_io=integer_io, last_io=channels_last)
    notes = []
    size = None
    if TFLITE_MICRO.version() is not None:
        size = arena_bytes(file.content)
        known = "does not run it" if size is None else f"needs an arena of {size} bytes"
        notes.append(f"TensorFlow Lite for Microcontrollers {known}")
    notes.append("operators: " + ", ".join(sorted(file.operators)))
    sources = c_files(file.content, size) if c_array else {}
    return litert.written(file, ROUNDING if integer_io else "", notes, sources)


_PROBE = """
import os, sys
from tflite_micro.python.tflite_micro import runtime
content = open(sys.argv[1], "rb").read()
def runs(size):
    child = os.fork()  # too small an arena can end the process
    if child == 0:
        try:
            runtime.Interpreter.from_bytes(content, arena_size=size).invoke()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
high = 1 << 12
while not runs(high):
    high *= 2
    if high > int(sys.argv[2]):
        sys.exit(1)
low = 0
while high - low > int(sys.argv[3]):
    middle = (low + high) // 2
    low, high = (low, middle) if runs(middle) else (middle, high)
print(high)
"""


def arena_bytes(content: bytes) -> int | None:
    """The smallest arena a model runs in on this machine (pointers take 8 bytes here, 4 on a Cortex-M).

    Args:
        content: The ``.tflite`` file.

    Returns:
        Bytes, to within 16; None when the interpreter does not run the model in 1 GiB.
    """
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        path = Path(folder) / litert.MODEL_FILE
        path.write_bytes(content)
        # A process of its own: the interpreter prints to the terminal, and a hostile file may crash it.
        command = [sys.executable, "-c", _PROBE, str(path), str(LARGEST_ARENA), str(ARENA_STEP)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(ran.stdout) if ran.returncode == 0 else None


class MicroInterpreter:
    """The interpreter with the methods of LiteRT's; batches are run sample by sample.

    Args:
        content: The ``.tflite`` file.

    Raises:
        RuntimeError: The interpreter refuses the file.
    """

    def __init__(self, content: bytes) -> None:
        from tflite_micro.python.tflite_micro import runtime

        size = 1 << 20
        while True:
            try:
                self.interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
                break
            except RuntimeError:
                size *= 4
                if size > LARGEST_ARENA:
                    raise
        self.inputs, self.outputs = litert.ends(content)
        self.given: dict[int, NDArray[Any]] = {}
        self.made: dict[int, NDArray[Any]] = {}

    def get_input_details(self) -> list[dict[str, Any]]:
        """Name, shape, type and grid of every input."""
        return self.inputs

    def get_output_details(self) -> list[dict[str, Any]]:
        """The same of every output."""
        return self.outputs

    def resize_tensor_input(self, index: int, shape: Sequence[int], *, strict: bool) -> None:
        """Accept any number of samples of the right shape."""
        wanted = list(self.inputs[self._place(index)]["shape"])
        if list(shape[1:]) != wanted[1:]:
            raise ValueError(f"the input has the shape {list(shape)}, not {wanted}")

    def allocate_tensors(self) -> None:
        """Nothing: the arena is allocated."""

    def set_tensor(self, index: int, array: NDArray[Any]) -> None:
        """Remember an input."""
        self.given[index] = array

    def get_tensor(self, index: int) -> NDArray[Any]:
        """An output."""
        return self.made[index]

    def invoke(self) -> None:
        """Run every sample."""
        rows: dict[int, list[NDArray[Any]]] = {d["index"]: [] for d in self.outputs}
        samples = {len(array) for array in self.given.values()}
        for sample in range(min(samples)):
            for place, detail in enumerate(self.inputs):
                array = self.given[detail["index"]]
                if array.dtype != detail["dtype"]:
                    raise ValueError(f"the input holds {array.dtype}")
                self.interpreter.set_input(array[sample : sample + 1], place)
            self.interpreter.invoke()
            for place, detail in enumerate(self.outputs):
                rows[detail["index"]].append(np.array(self.interpreter.get_output(place)))
        self.made = {index: np.concatenate(parts) for index, parts in rows.items()}

    def _place(self, index: int) -> int:
        return [d["index"] for d in self.inputs].index(index)


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Session:
    """Load a model file.

    Args:
        model: Path of the file, or its content.
        options: What :attr:`Written.options` says; without them the file is called as it is.
        threads: Not used: a microcontroller has one.

    Raises:
        ArtifactError: K530 when the interpreter does not accept the file.
    """
    content = model.read_bytes() if isinstance(model, Path) else model
    return _session(content, options or {}, str(model) if isinstance(model, Path) else "")


def _session(
    content: bytes, options: Mapping[str, str], where: str, codes: Sequence[str] = ()
) -> Session:
    try:
        # The interpreter for microcontrollers trusts its file; LiteRT's checks it first.
        litert.load(content, {"kernels": "reference"})
        interpreter = MicroInterpreter(content)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            "K530",
            "loading the model in TensorFlow Lite for Microcontrollers",
            where=where,
            why=(str(error) or type(error).__name__).splitlines()[0],
        ) from error
    return litert.adapted(interpreter, options, codes)


def probe(path: Path, options: Mapping[str, str], codes: Sequence[str]) -> Session:
    """Load a model so that the named tensors come out beside its outputs."""
    content = litert.with_outputs(path.read_bytes(), codes)
    return _session(content, options, str(path), codes)


TFLITE_MICRO = Target(
    name="tflite-micro",
    rules=rules,
    write=write,
    load=load,
    probe=probe,
    kernels=None,
    operators=litert.operators,
    package="tflite-micro",
    module="tflite_micro.python.tflite_micro",
    parity=Parity(against="integers"),
    automatic=False,
)
