"""An artifact as a model repository of the Triton Inference Server."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kompakt.artifact import Artifact, open_artifact
from kompakt.artifact.contents import CALIBRATION, GOLDEN, REPORT
from kompakt.artifact.output import writing_errors
from kompakt.deploy.triton_config import KINDS, Served, ensemble_config, model_config
from kompakt.deploy.triton_repository import ModelFolder, write_folders
from kompakt.deploy.triton_steps import TYPES, Step, Tensor, read_step
from kompakt.errors import UsageError

IMAGE = "nvcr.io/nvidia/tritonserver:26.04-py3"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How Triton runs the files of one target.

    Attributes:
        name: The backend.
        file: What the model file is called in a version's folder.
        device: Where it runs unless told otherwise.
        platform: For backends that want it.
        accelerator: An execution accelerator.
        positional: Whether tensors are named by position, as TorchScript has no names.
        options: Settings of the artifact that are in the file itself, so that the server needs none.
    """

    name: str
    file: str
    device: str = "cpu"
    platform: str = ""
    accelerator: str = ""
    positional: bool = False
    options: frozenset[str] = frozenset()


BACKENDS: dict[str, Backend] = {
    "onnxruntime": Backend(name="onnxruntime", file="model.onnx"),
    "openvino": Backend(name="openvino", file="model.xml"),
    "tensorrt": Backend(
        name="onnxruntime",
        file="model.onnx",
        device="gpu",
        accelerator="tensorrt",
        options=frozenset({"session.disable_quant_qdq"}),
    ),
    "torchscript": Backend(
        name="pytorch", file="model.pt", platform="pytorch_libtorch", positional=True
    ),
}
PLAN = Backend(name="tensorrt", file="model.plan", device="gpu", platform="tensorrt_plan")


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How a model is served.

    Attributes:
        name: Its name; the artifact's own when empty.
        max_batch: The largest batch the server makes of waiting requests; 0 for none. ``None``: 32 where the model
            takes any batch, else 0.
        instances: How many run side by side, on each device.
        device: ``cpu``, ``gpu``, ``auto`` or empty for what the backend is for.
        queue_delay_us: How many microseconds a request may wait for others to share its batch.
        version: The number of the version's folder.
        warmup: Whether requests are run before the model is ready.
        plan: An engine that was built of an artifact for ``tensorrt``.
        before: An ``.onnx`` or ``.py`` file that makes the model's inputs.
        behind: One that takes its outputs.
    """

    name: str = ""
    max_batch: int | None = None
    instances: int = 1
    device: str = ""
    queue_delay_us: int = 100
    version: int = 1
    warmup: bool = True
    plan: Path | None = None
    before: Path | None = None
    behind: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What was written.

    Attributes:
        repository: The model repository.
        models: Names of the models that were written; clients ask for the last.
        command: The ``docker run`` line that serves them.
        schema: With whose schema every ``config.pbtxt`` was read back: ``tritonclient`` or ``kompakt``.
        notes: What a user should know.
    """

    repository: Path
    models: tuple[str, ...]
    command: str
    schema: str
    notes: tuple[str, ...] = ()


def deploy_triton(
    artifact: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    options: TritonOptions | None = None,
) -> Deployment:
    """Write an artifact into a model repository; nothing is there until all of it is.

    Args:
        artifact: The artifact's directory; every file is compared with its manifest first.
        repository: The repository; it is made when it is not there.
        options: How the model is served.

    Raises:
        ArtifactError: K510–K516: it is no whole artifact.
        UsageError: K001 for a name, number or device that cannot be used, K540 when Triton has no backend for its
            target, K542 for a batch the model does not take, K543 for a step that does not fit.
        OutputError: K541 when that model or version is there already, K500–K506 when it cannot be written.
    """
    options = options or TritonOptions()
    _check(options)
    opened = open_artifact(artifact)
    backend = _backend(opened, options)
    name = options.name or _as_name(str(opened.record["model"].get("name") or "model"))
    served = _served(opened, backend, name, options)
    device = options.device or backend.device
    config = model_config(
        served,
        instances=options.instances,
        device=device,
        queue_delay_us=options.queue_delay_us,
        warmup=_warmup_shapes(opened, served) if options.warmup else None,
    )
    main = ModelFolder(served=served, config=config, files=_files(opened, backend, options))
    folders = _with_steps(main, options)
    schema = [folder.check() for folder in folders][-1]
    target = Path(os.path.realpath(repository))
    with writing_errors(target):
        write_folders(target, folders, options.version)
    return Deployment(
        repository=target,
        models=tuple(folder.served.name for folder in folders),
        command=docker_line(target, gpu=device == "gpu"),
        schema=schema,
        notes=tuple(_notes(opened, backend, options)),
    )


def docker_line(repository: Path, *, gpu: bool) -> str:
    """The command that serves a repository: HTTP on port 8000, gRPC on 8001, metrics on 8002."""
    command = ["docker", "run", "--rm", *(["--gpus", "all"] if gpu else [])]
    for port in (8000, 8001, 8002):
        command += ["-p", f"{port}:{port}"]
    command += ["-v", f"{repository}:/models:ro", IMAGE]
    return shlex.join([*command, "tritonserver", "--model-repository=/models"])


def _check(options: TritonOptions) -> None:
    """Refuse settings no server can work with."""
    wrong = None
    if options.name and not _NAME.fullmatch(options.name):
        wrong = f"the name {options.name!r}", "it has to be letters, digits, _ . and -"
    elif options.device and options.device not in KINDS:
        wrong = f"the device {options.device!r}", f"it is one of {', '.join(KINDS)}"
    elif options.instances < 1 or options.version < 1 or options.queue_delay_us < 0:
        wrong = "a number of instances, version or delay", "it is too small"
    elif options.max_batch is not None and not 0 <= options.max_batch < 2**31:
        wrong = f"max_batch={options.max_batch}", "it is too small or too large"
    if wrong is not None:
        raise UsageError("K001", wrong[0], why=wrong[1])


def _as_name(text: str) -> str:
    made = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._-")[:100]
    return made or "model"


def _backend(opened: Artifact, options: TritonOptions) -> Backend:
    target = str(opened.record["target"]["name"])
    if target not in BACKENDS:
        raise UsageError(
            "K540",
            f"serving an artifact for {target} with Triton",
            why="Triton has no backend for its files",
            help=f"compress with --target {', '.join(BACKENDS)}",
        )
    if options.plan is not None and target != "tensorrt":
        why = f"the artifact is for {target}, an engine is made of one for tensorrt"
        raise UsageError("K540", "serving an engine", why=why)
    return PLAN if options.plan is not None else BACKENDS[target]


def _served(opened: Artifact, backend: Backend, name: str, options: TritonOptions) -> Served:
    model = opened.record["model"]
    if any(row["dtype"] not in TYPES for row in (*model["inputs"], *model["outputs"])):
        raise UsageError("K540", "serving this artifact", why="Triton does not know its types")
    first = {(row["shape"] or [0])[0] for row in (*model["inputs"], *model["outputs"])}
    batched = len(first) == 1 and isinstance(next(iter(first)), str)
    largest = (32 if batched else 0) if options.max_batch is None else options.max_batch
    if largest and not batched:
        raise UsageError(
            "K542",
            f"batches of up to {largest} for {name}",
            why="its inputs and outputs do not all begin with one dynamic dimension",
            help="compress with --dynamic INPUT:0=batch, or serve it with --max-batch 0",
        )
    return Served(
        name=name,
        backend=backend.name,
        platform=backend.platform,
        accelerator=backend.accelerator,
        file=backend.file,
        inputs=_tensors(model["inputs"], "INPUT" if backend.positional else ""),
        outputs=_tensors(model["outputs"], "OUTPUT" if backend.positional else ""),
        max_batch=largest,
    )


def _tensors(rows: Sequence[Mapping[str, Any]], positional: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=f"{positional}__{number}" if positional else str(row["name"]),
            dtype=str(row["dtype"]),
            shape=tuple(d if isinstance(d, int) else -1 for d in row["shape"]),
        )
        for number, row in enumerate(rows)
    )


def _files(opened: Artifact, backend: Backend, options: TritonOptions) -> dict[str, bytes]:
    """The files of a version's folder."""
    if options.plan is not None:
        try:
            return {backend.file: options.plan.read_bytes()}
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError("K001", f"the engine {options.plan}", why=why) from error
    main = str(opened.record["target"]["main"])
    own = [n for n in opened.files if n not in (REPORT, CALIBRATION, GOLDEN)]
    stem = main.rpartition(".")[0]
    parts = [n for n in own if n == main or n in (f"{main}.data", f"{stem}.bin")]
    if backend.name == "onnxruntime" and len(parts) > 1:
        # With weights in a file of their own, the model is a folder of that name.
        return {f"{backend.file}/{name}": opened.read(name) for name in parts}
    return {backend.file if n == main else n: opened.read(n) for n in parts}


def _warmup_shapes(opened: Artifact, served: Served) -> dict[str, list[int]] | None:
    """The shape of every input as the model was measured with it; None when nothing tells a dynamic dimension."""
    golden = opened.golden()
    names = [str(row["name"]) for row in opened.record["model"]["inputs"]]
    seen = golden.batches[0].inputs if golden is not None and golden.batches else {}
    shapes = {}
    for name, tensor in zip(names, served.inputs, strict=True):
        shape = list(tensor.shape)
        if name in seen and len(seen[name].shape) == len(shape):
            shape = [s if d == -1 else d for d, s in zip(shape, seen[name].shape, strict=True)]
        shapes[tensor.name] = shape[1:] if served.max_batch else shape
    return None if any(-1 in shape for shape in shapes.values()) else shapes


def _with_steps(main: ModelFolder, options: TritonOptions) -> list[ModelFolder]:
    """The model, and where there are steps, those and the ensemble, which clients ask for."""
    paths = {"pre": options.before, "post": options.behind}
    steps = {role: read_step(path) for role, path in paths.items() if path is not None}
    if not steps:
        return [main]
    made = {role: _step_folder(main, role, step, options) for role, step in steps.items()}
    order = [f for f in (made.get("pre"), main, made.get("post")) if f is not None]
    _check_wiring(order)
    name = f"{main.served.name}_ensemble"
    served = Served(name=name, backend="", file="", inputs=(), outputs=(), max_batch=0)
    config = ensemble_config(name, [folder.served for folder in order])
    return [*order, ModelFolder(served=served, config=config)]


def _step_folder(main: ModelFolder, role: str, step: Step, options: TritonOptions) -> ModelFolder:
    batch = main.served.max_batch
    name = f"{main.served.name}_{role}"
    if batch and not step.batched:
        raise UsageError(
            "K543",
            f"the step {name}",
            why="its tensors do not begin with a dynamic batch, as the model's do",
            help="give it a dynamic first dimension, or serve the model with --max-batch 0",
        )
    served = Served(
        name=name,
        backend=step.backend,
        file=step.file,
        inputs=step.inputs,
        outputs=step.outputs,
        max_batch=batch,
    )
    config = model_config(
        served,
        instances=options.instances,
        device="cpu",
        queue_delay_us=options.queue_delay_us,
        warmup=None,
    )
    return ModelFolder(served=served, config=config, files={step.file: step.content})


def _check_wiring(order: Sequence[ModelFolder]) -> None:
    """Every model but the first takes at least one tensor of those before it, of the very type and shape."""
    known: dict[str, Tensor] = {}
    for position, folder in enumerate(order):
        served = folder.served
        shared = [t for t in served.inputs if t.name in known]
        if position and len(shared) < len(served.inputs):
            missing = next(t.name for t in served.inputs if t.name not in known)
            has = ", ".join(known) or "nothing"
            why = f"nothing before it makes {missing!r}; there is {has}"
            raise UsageError("K543", f"the step {served.name}", why=why)
        for tensor in shared:
            other = known[tensor.name]
            fits = len(tensor.shape) == len(other.shape) and all(
                a == b or -1 in (a, b) for a, b in zip(tensor.shape, other.shape, strict=True)
            )
            if tensor.dtype != other.dtype or not fits:
                why = (
                    f"{tensor.name!r} is made as {other.dtype} {list(other.shape)} and taken as "
                    f"{tensor.dtype} {list(tensor.shape)}"
                )
                raise UsageError("K543", f"the step {served.name}", why=why)
        known |= {t.name: t for t in (*(served.inputs if not position else ()), *served.outputs)}


def _notes(opened: Artifact, backend: Backend, options: TritonOptions) -> Iterator[str]:
    told = opened.record["target"].get("session_options") or {}
    left = sorted(key for key in told if key not in backend.options)
    if left and options.plan is None:
        yield f"Triton's {backend.name} backend is not given these settings: {', '.join(left)}"
    if backend.accelerator:
        yield (
            "ONNX Runtime builds the TensorRT engine when the model loads; build it before with "
            "build_engine.py and give it as --plan to load faster"
        )
    if options.plan is not None:
        yield "an engine fits the GPU and the version of TensorRT it was built with, nothing else"


__all__ = ["BACKENDS", "Deployment", "Step", "TritonOptions", "deploy_triton", "docker_line"]
