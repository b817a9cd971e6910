"""The torch-aoti target: an AOTInductor package, compiled to machine code when it is written.

The same program as the torch target's, but nothing is compiled where it is loaded: Python or C++ only need PyTorch's
libraries. The price: the file holds machine code for the processor it was compiled on, and loading it runs that code.
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.network import Network
from kompakt.targets.decomposed import decomposed
from kompakt.targets.lowering_check import refuse_garbage
from kompakt.targets.one_sample import one_sample, size_notes
from kompakt.targets.pytorch import exported, rules
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
_CALLS = re.compile(rb"aoti_torch_cpu__(q\w+)\s*\(")


def write(network: Network) -> Written:
    """Compile a frozen (or untouched float) network with AOTInductor, and run it once.

    Raises:
        TargetError: K401 when Inductor cannot compile it, K402 when the package computes something else.
    """
    note = "machine code for this processor: loading the file runs it"
    try:
        content = _checked(network, exported(network), interface_of(network))
        return Written(files={MODEL_FILE: content}, notes=(note,))
    except TargetError:
        examples, batch = one_sample(network)
        if batch is None:
            raise
    # Some programs Inductor compiles wrongly for a batch of any size.
    told = interface_of(network, single=True)
    content = _checked(network, exported(network, examples), told)
    return Written(files={MODEL_FILE: content}, notes=(note, *size_notes(network, batch)))


def _checked(network: Network, program: torch.export.ExportedProgram, interface: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        path = str(Path(folder) / MODEL_FILE)
        try:
            with torch.no_grad(), quietly():
                torch._inductor.aoti_compile_and_package(
                    program, package_path=path, inductor_configs={"freezing": True}
                )
        except Exception as error:
            raise TargetError(
                "K401",
                "compiling the network with AOTInductor",
                why=first_line(error),
                help="a C++ compiler is needed where it is written; the target torch compiles later",
            ) from error
        content = repacked(Path(path).read_bytes(), {INTERFACE: interface})
    examples = one_sample(network)[0]
    refuse_garbage(load(content), decomposed(network), examples)
    return content


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Program:
    """Load a package. It holds machine code: load only what you would run.

    Args:
        model: Path of the file, or its content.
        options: Not used.
        threads: PyTorch's threads inside one operator, for the whole process.

    Raises:
        ArtifactError: K530 when PyTorch does not accept the file.
    """
    torch.set_num_threads(threads)
    try:
        content = model.read_bytes() if isinstance(model, Path) else model
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            root = archive.namelist()[0].split("/")[0]
            told = specs_from(archive.read(f"{root}/extra/{INTERFACE}"))
            if archive.testzip() is not None:
                raise ValueError("a part of the archive is damaged")
        # It unpacks what it loads, so the file itself may go.
        with tempfile.NamedTemporaryFile(suffix=".pt2") as copy, quietly():
            copy.write(content)
            copy.flush()
            package: Any = torch._inductor.aoti_load_package(copy.name)
    except (RuntimeError, OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            "K530",
            "loading the package in PyTorch",
            where=str(model) if isinstance(model, Path) else "",
            why=first_line(error),
        ) from error
    return Program(package, *told)


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the calls of oneDNN's int8 layers in the package's own C++ source.

    Args:
        path: The model file.
        options: Not used.
        visible: Not used.
    """
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".wrapper.cpp"):
                body = archive.read(name).partition(b"::run_impl(")[2]
                counts.update(m.decode() for m in _CALLS.findall(body))
    return dict(sorted(counts.items()))


TORCH_AOTI = Target(
    name="torch-aoti",
    rules=rules,
    write=write,
    load=load,
    probe=None,
    kernels=None,
    operators=operators,
    package="torch",
    module="torch",
    parity=Parity(against="outputs", output_error=0.05),
    automatic=False,
)
