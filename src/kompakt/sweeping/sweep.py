"""The one call of a sweep: many ways to compress a model, each written, checked, judged and timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import kompakt
from kompakt.artifact.output import writing_errors
from kompakt.measuring.data import Dataset, prepare
from kompakt.measuring.environment import environment, resolved_isa
from kompakt.measuring.metrics import get_metric
from kompakt.measuring.verdict import is_share
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.recording import weights_sha256
from kompakt.schemes import Scheme
from kompakt.search.journal import Journal, digest
from kompakt.sweeping.course import Course
from kompakt.sweeping.crew import Alone, Crew
from kompakt.sweeping.findings import JOURNAL, PAGE, front_of, publish, with_standings
from kompakt.sweeping.parcel import Parcel, model_parts, packed
from kompakt.sweeping.plan import MOST_ENUMERATED, Space
from kompakt.sweeping.proposals import Proposals
from kompakt.sweeping.stage import Settings, Stage
from kompakt.sweeping.wanted import Wanted, divided

DEFAULT_TRIALS = 60
START = "kompakt.sweeping.parcel:unpacked"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What :func:`sweep` found.

    Attributes:
        document: Everything, as plain JSON values.
        path: The folder with the page, the JSON and the journal.
    """

    document: Mapping[str, Any]
    path: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a trial, in the order of the plans."""
        return list(self.document["rows"])

    @property
    def front(self) -> list[dict[str, Any]]:
        """The rows on the front, the most accurate first."""
        rows = {row["number"]: row for row in self.rows}
        return [rows[number] for number in self.document["front"]]

    def __repr__(self) -> str:
        names = "; ".join(f"{row['name']} on {row['target']}" for row in self.front)
        page = str(self.path / PAGE)
        return f"Sweep({len(self.rows)} trials, front: {names or 'empty'}, page={page!r})"


def sweep(
    model: nn.Module | Network,
    *,
    example_inputs: Any = None,
    calibration: Iterable[Any] | None = None,
    validation: Iterable[Any] | None = None,
    metric: str = "agreement",
    schemes: Sequence[str | Scheme] = ("w8a8", "w8a8-dynamic", "w8"),
    methods: Sequence[Sequence[str]] = ((), ("bias_correction",)),
    targets: Sequence[str] = ("onnxruntime",),
    calibrators: Sequence[str] = ("mse",),
    per_layer: Sequence[str] = (),
    trials: int | None = None,
    sampler: str = "nsga2",
    isa: str = "auto",
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    keep_float: Sequence[str] = (),
    threads: int = 1,
    batch: int = 1,
    confidence: float = 0.95,
    seed: int = 0,
    jobs: int = 1,
    ray: str | None = None,
    measure_latency: bool = True,
    journal: str | Path | None = None,
    out: str | Path,
    name: str | None = None,
    commands: Sequence[str] = (),
) -> Sweep:
    """Try many ways to compress a model, and draw the front of accuracy, latency and size.

    Every trial that is finished is in a journal: the same call again makes only what is missing. The page in ``out`` is
    renewed as trials come in, and holds what is known when the sweep is interrupted.

    Args:
        model: A trained ``nn.Module``, or a captured network.
        example_inputs: A tensor, a tuple of positional or a dict of keyword inputs.
        calibration: Batches of inputs for ranges and methods. Without it every other sample of ``validation`` serves.
        validation: Batches of ``(inputs, labels)`` to judge all trials on.
        metric: A metric's name, or ``package.module:function``.
        schemes: Schemes, by name, by file, or as they are.
        methods: Combinations of methods; the empty one is none.
        targets: Runtimes; ``auto`` for all that are installed. All times are told beside the first one's float file.
        calibrators: Observers, for static schemes.
        per_layer: Schemes whose treatment every single layer may have instead, such as ``("float32", "w8a16")``.
        trials: How many trials; a space that holds no more is tried as a whole, in a larger one optuna proposes them.
        sampler: ``nsga2`` or ``tpe``.
        isa: Instruction set to write for; ``auto`` is this machine's.
        dynamic: Further dynamic dimensions.
        keep_float: Selectors of layers left in float in every trial.
        threads: Threads a runtime may use.
        batch: Samples in a call that is timed.
        confidence: Of every interval.
        seed: Of everything random.
        jobs: Trials at once. Only one is timed at a time, and nothing else is computed meanwhile.
        ray: Make the trials on a Ray cluster: ``auto``, an address, or ``local``.
        measure_latency: Whether to time files.
        journal: The journal; by default it is in ``out``.
        out: The folder for the page and the JSON.
        name: What to call the model.
        commands: Command lines that reproduce this, for the page.

    Returns:
        Everything that was found.

    Raises:
        KompaktError: The call, the data or the metric is wrong. A trial that cannot be made is no error: its row says
            why.
    """
    asked = Wanted(
        schemes=schemes,
        methods=methods,
        targets=targets,
        calibrators=calibrators,
        keep_float=keep_float,
        per_layer=per_layer,
        trials=trials,
        sampler=sampler,
        jobs=jobs,
    )
    torch.manual_seed(seed)
    network = (
        model if isinstance(model, Network) else capture(model, example_inputs, dynamic=dynamic)
    )
    prepared = inference_form(network)
    space = asked.space(prepared)
    job = _Job(
        space=space,
        settings=Settings(
            metric=metric,
            isa=resolved_isa(isa),
            reference=space.targets[0],
            threads=threads,
            batch=batch,
            seed=seed,
            confidence=confidence,
            time_it=measure_latency,
        ),
        name=name or type(model).__name__,
        network=network,
        data=_data(network, calibration, validation, metric, space),
        commands=tuple(commands),
    )
    folder = Path(out)
    with writing_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    place = Path(journal) if journal is not None else folder / JOURNAL
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kompakt-")))
        parcel = partial(_parcel, job, model, example_inputs, dynamic)
        hire = partial(_crew, job, parcel, scratch, jobs, ray)
        with Journal.open(place, job.identity()) as kept:
            course = Course(kept, hire, lambda: _write(job, course, folder), share=is_share(metric))
            try:
                _follow(course, job, prepared, trials, sampler)
            finally:
                course.close()
                _write(job, course, folder)
    return Sweep(document=job.document(course), path=folder)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What all trials of a sweep have in common."""

    space: Space
    settings: Settings
    name: str
    network: Network
    data: tuple[Dataset | None, Dataset | None]
    commands: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """What must be the same for a row of the journal to be used."""
        calibration, validation = self.data
        settings = vars(self.settings)
        return {
            "kompakt": kompakt.__version__,
            "model": digest([weights_sha256(self.network), str(self.network.graph)]),
            "calibration": calibration.sha256() if calibration is not None else None,
            "validation": validation.sha256() if validation is not None else None,
            **settings,
        }

    def document(self, course: Course) -> dict[str, Any]:
        """Everything that is known so far."""
        rows = with_standings(course.rows)
        settings, space = self.settings, self.space
        baseline = next((row["baseline"] for row in rows if row["baseline"] is not None), None)
        calibration, validation = self.data
        return {
            "kind": "sweep",
            "kompakt": kompakt.__version__,
            "model": {
                "name": self.name,
                "parameters": sum(p.numel() for p in self.network.parameters()),
                "source_sha256": weights_sha256(self.network),
            },
            "metric": {
                "name": settings.metric,
                "higher_is_better": get_metric(settings.metric).higher_is_better,
                "n": None if validation is None else validation.count(),
            },
            "baseline": {"metric": baseline},
            "confidence": settings.confidence,
            "settings": vars(settings),
            "data": {
                "calibration": None if calibration is None else calibration.count(),
                "validation": None if validation is None else validation.count(),
            },
            "space": {
                "schemes": [scheme.name for scheme in space.schemes],
                "methods": [list(methods) for methods in space.methods],
                "targets": list(space.targets),
                "calibrators": list(space.calibrators),
                "layers": len(space.layers),
                "treatments": list(space.treatments),
                "typed": dict(space.typed),
            },
            "planned": course.planned,
            "reused": course.reused,
            "searched": course.searched,
            "rows": rows,
            "front": front_of(rows),
            "environment": environment(),
            "commands": list(self.commands),
        }


def _data(
    network: Network,
    calibration: Iterable[Any] | None,
    validation: Iterable[Any] | None,
    metric: str,
    space: Space,
) -> tuple[Dataset | None, Dataset | None]:
    specs = network.input_specs
    needs_labels = get_metric(metric).needs_labels
    static = any(s.needs_calibration for s in space.schemes) or any(
        treatment.mode == "static" for treatment in space.treatments.values()
    )
    needed = static or any(space.methods)
    return divided(
        None if calibration is None else prepare(calibration, specs, role="calibration"),
        None
        if validation is None
        else prepare(validation, specs, needs_labels=needs_labels, role="validation"),
        needed=needed,
    )


def _parcel(
    job: _Job,
    model: nn.Module | Network,
    example_inputs: Any,
    dynamic: Mapping[str, Mapping[int, str]] | None,
) -> bytes:
    module, files = model_parts(model)
    if isinstance(model, Network):
        names = [spec.name for spec in model.input_specs]
        example_inputs = dict(zip(names, model.example_inputs(), strict=True))
    calibration, validation = job.data
    return packed(
        Parcel(
            model=module,
            files=files,
            example_inputs=example_inputs,
            dynamic=dynamic,
            calibration=calibration,
            validation=validation,
            settings=job.settings,
        )
    )


def _crew(job: _Job, parcel: Any, scratch: Path, jobs: int, ray: str | None) -> Crew:
    if ray is not None:
        from kompakt.sweeping.ray_crew import RayCrew

        return RayCrew(START, parcel(), jobs, ray)
    if jobs > 1:
        from kompakt.sweeping.processes import Processes

        return Processes(START, parcel(), jobs)
    return Alone(Stage(job.network, *job.data, job.settings, scratch).run)


def _follow(course: Course, job: _Job, prepared: Network, trials: int | None, sampler: str) -> None:
    """Try the whole space where it is small, else what a search proposes."""
    grid = job.space.grid()
    limit = MOST_ENUMERATED if trials is None else trials
    if len(grid) <= limit and not job.space.has_layers:
        course.try_all(grid)
        return
    seed = job.settings.seed
    searches = [
        Proposals(job.space, target, prepared, sampler=sampler, seed=seed + index)
        for index, target in enumerate(job.space.targets)
    ]
    course.searched = sampler
    course.search(searches, trials or DEFAULT_TRIALS)


def _write(job: _Job, course: Course, folder: Path) -> str:
    """Write down what is known; returns it in a line."""
    document = job.document(course)
    publish(document, folder)
    return (
        f"{len(document['front'])} of {len(course.rows)} trials on the front, see {folder / PAGE}"
    )
