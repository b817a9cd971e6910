"""The coreml target: an ``.mlpackage`` with int8 weights and quantized activations, for Apple's devices.

coremltools converts the program of ``quantized_decomposed`` operators; every pair becomes ``quantize``/``dequantize``,
every stored weight ``constexpr_affine_dequantize``, with the network's own scales and codes. An ``.mlpackage`` is a
folder, so that the file is a zip of it: unpack it where Xcode or coremltools should read it.

Core ML runs on macOS only. Elsewhere :func:`load` checks the structure of the file, and calling what it returns is
refused. The file computes one sample a call.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kompakt.errors import ArtifactError, TargetError
from kompakt.network.interface import TensorSpec
from kompakt.network.network import Network
from kompakt.quantize.rules import Rules
from kompakt.targets.decomposed import decomposed
from kompakt.targets.one_sample import one_sample, size_notes
from kompakt.targets.pytorch_program import first_line, interface_of, quietly, specs_from
from kompakt.targets.target import Arrays, Parity, Target, Written

MODEL_FILE = "model.mlpackage.zip"
PACKAGE = "model.mlpackage"
METADATA = "kompakt.interface"
"""The entry of the model's own metadata that says what its inputs and outputs are called."""

_FUSED = frozenset({"relu", "relu6"})
_WEIGHTS8 = frozenset({"int8", "int8_narrow", "int7", "int7_narrow"})
_OLDEST = (1980, 1, 1, 0, 0, 0)
_PARTS = {"model": "com.apple.CoreML/model.mlmodel", "weights": "com.apple.CoreML/weights"}


def rules(isa: str) -> Rules:
    """The rules of Core ML's quantized operators (iOS 17, macOS 14).

    Args:
        isa: Not looked at.
    """
    return Rules(
        runtime="Core ML",
        static_layers=frozenset({"conv", "linear"}),
        dynamic_layers=frozenset(),
        weight_only_layers=frozenset({"conv", "linear"}),
        grouped_layers=frozenset(),
        group_sizes=frozenset(),
        integer_operators=frozenset({"add"}),
        float_output_layers=frozenset({"conv", "linear"}),
        pass_through=frozenset({"reshape", "transpose", "slice", "pad", "max_pool"}),
        shared_inputs=frozenset(),
        fused_activations={"conv": _FUSED, "linear": _FUSED, "add": _FUSED},
        activation8="uint8",
        activation16="int16",
        dynamic_activation="uint8",
        activation_formats=frozenset({"int8", "uint8"}),
        weight_formats={
            "static": _WEIGHTS8,
            "dynamic": _WEIGHTS8,
            "weight_only": _WEIGHTS8 | {"uint8"},
        },
        rounding="divide_even",
        reasons={
            "linear:dynamic": "Core ML has no kernels with ranges found at run time",
            "conv:dynamic": "Core ML has no kernels with ranges found at run time",
            "conv_transpose": "kompakt writes transposed convolutions for Core ML in float",
            "embedding": "an embedding is looked up, not multiplied",
            "rnn": "Core ML's recurrent layers run in float",
            "softmax": "softmax runs in float: its exponentials span more than 8 bits",
        },
    )


def write(network: Network) -> Written:
    """Write a frozen (or untouched float) network as a zipped ``.mlpackage``.

    Raises:
        TargetError: K401 when coremltools cannot convert an operator.
    """
    module = decomposed(network)
    examples, batch = one_sample(network)
    with quietly(), without_progress(), tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        import coremltools

        try:
            with torch.no_grad():
                program = torch.export.export(module, examples).run_decompositions({})
            converted = coremltools.convert(
                program,
                minimum_deployment_target=coremltools.target.iOS17,
                compute_precision=coremltools.precision.FLOAT32,
                skip_model_load=True,
            )
        except Exception as error:
            raise TargetError(
                "K401",
                "converting the network with coremltools",
                why=first_line(error),
                help="`kompakt inspect` lists its operators; choose another target for this network",
            ) from error
        spec = _described(converted.get_spec(), network, single=batch is not None)
        path = Path(folder) / PACKAGE
        weights = converted.weights_dir
        coremltools.models.utils.save_spec(spec, str(path), weights_dir=weights)
        content = _zipped(path, spec)
    notes = (f"unpack it to get {PACKAGE}", *size_notes(network, batch))
    return Written(files={MODEL_FILE: content}, notes=notes)


def _described(spec: Any, network: Network, *, single: bool) -> Any:
    """The specification with the network's names, and without the day it was made."""
    import coremltools

    described = spec.description
    sides = ((described.input, network.input_specs), (described.output, network.output_specs))
    for features, specs in sides:
        for found, wanted in zip(features, specs, strict=True):
            if found.name != wanted.name:
                coremltools.models.utils.rename_feature(spec, found.name, wanted.name)
    about = spec.description.metadata.userDefined
    about.pop("com.github.apple.coremltools.conversion_date", None)
    about[METADATA] = interface_of(network, single=single)
    return spec


def _zipped(package: Path, spec: Any) -> bytes:
    """The package as a zip whose bytes depend on its content only."""
    manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
    named = {e["path"]: e for e in manifest["itemInfoEntries"].values()}
    keys = {path: str(uuid.uuid5(uuid.NAMESPACE_URL, path)) for path in named}
    manifest["itemInfoEntries"] = {keys[path]: named[path] for path in sorted(named)}
    manifest["rootModelIdentifier"] = keys[_PARTS["model"]]
    entries = {
        "Manifest.json": json.dumps(manifest, indent=4, sort_keys=True).encode(),
        f"Data/{_PARTS['model']}": spec.SerializeToString(deterministic=True),
    }
    for path in sorted((package / "Data" / _PARTS["weights"]).rglob("*")):
        entries[path.relative_to(package).as_posix()] = path.read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in sorted(entries.items()):
            archive.writestr(zipfile.ZipInfo(f"{PACKAGE}/{name}", _OLDEST), content)
    return out.getvalue()


@dataclass
class Package:
    """An ``.mlpackage`` whose structure was checked; it can be called on macOS only."""

    spec: Any
    input_specs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]
    single: bool
    content: bytes = field(repr=False)
    _model: Any = None

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(spec.name for spec in self.input_specs)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once for every sample.

        Raises:
            TargetError: K403 when this is no macOS, or the inputs do not fit the model.
        """
        import sys

        if sys.platform != "darwin":
            raise TargetError(
                "K403",
                "running the model in Core ML",
                why="Core ML runs on macOS only; here the structure of the file is checked",
                help="run it on a Mac with macOS 14 or newer",
            )
        return self._predict(inputs)

    def _predict(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        import coremltools

        if self._model is None:
            folder = tempfile.mkdtemp(prefix="kompakt-")
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
                archive.extractall(folder)
            self._model = coremltools.models.MLModel(str(Path(folder) / PACKAGE))
        try:
            if not self.single:
                return dict(self._model.predict(dict(inputs)))
            count = len(next(iter(inputs.values())))
            rows = [
                self._model.predict({name: a[i : i + 1] for name, a in inputs.items()})
                for i in range(count)
            ]
        except Exception as error:
            raise TargetError(
                "K403", "running the model in Core ML", why=first_line(error)
            ) from error
        return {name: np.concatenate([row[name] for row in rows]) for name in self.output_names}


def load(
    model: Path | bytes, options: Mapping[str, str] | None = None, threads: int = 1
) -> Package:
    """Read a zipped ``.mlpackage`` and check its structure.

    Args:
        model: Path of the file, or its content.
        options: Not used.
        threads: Not used: Core ML decides itself.

    Raises:
        ArtifactError: K530 when it is no such package, or lacks a weight.
    """
    try:
        content = model.read_bytes() if isinstance(model, Path) else model
        spec = read_spec(content)
        specs, outputs, single = specs_from(spec.description.metadata.userDefined[METADATA])
        named = tuple(f.name for f in spec.description.output)
        if named != outputs or tuple(f.name for f in spec.description.input) != tuple(
            s.name for s in specs
        ):
            raise ValueError("its inputs and outputs are not those it was written with")
    except Exception as error:
        raise ArtifactError(
            "K530",
            "reading the Core ML package",
            where=str(model) if isinstance(model, Path) else "",
            why=first_line(error),
        ) from error
    return Package(spec, specs, outputs, single, content)


def read_spec(content: bytes) -> Any:
    """The specification inside a zipped package, with every stored weight found in its file.

    Raises:
        ValueError: When a part is missing or damaged.
    """
    with quietly():
        from coremltools.proto import Model_pb2
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"{damaged} is damaged")
        manifest = json.loads(archive.read(f"{PACKAGE}/Manifest.json"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        spec = Model_pb2.Model.FromString(archive.read(f"{PACKAGE}/Data/{root}"))
        if spec.WhichOneof("Type") != "mlProgram":
            raise ValueError("it holds no ML program")
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    for operation in operations(spec):
        for stored in operation.attributes.values():
            if stored.WhichOneof("value") != "blobFileValue":
                continue
            blob = stored.blobFileValue
            name = blob.fileName.replace("@model_path", f"{PACKAGE}/Data/com.apple.CoreML")
            if blob.offset >= sizes.get(name, 0):
                raise ValueError(f"a weight lies behind the end of {name}")
    return spec


def operations(spec: Any) -> Iterator[Any]:
    """The operations of a specification's main function, in order."""
    for block in spec.mlProgram.functions["main"].block_specializations.values():
        yield from block.operations


def operators(
    path: Path, options: Mapping[str, str], visible: Sequence[str] = ()
) -> dict[str, int]:
    """Count the operations of the file; which of them run in integers, the device decides.

    Args:
        path: The model file.
        options: Not used.
        visible: Not used.
    """
    counts = Counter(op.type for op in operations(load(path).spec) if op.type != "const")
    return dict(sorted(counts.items()))


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Keep coremltools' progress bars from the error stream."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


COREML = Target(
    name="coreml",
    rules=rules,
    write=write,
    load=load,
    probe=None,
    kernels=None,
    operators=operators,
    package="coremltools",
    module="coremltools",
    parity=Parity(against="outputs", output_error=0.05),
    automatic=False,
)
