"""What every method does to every benchmark model, alone and together: the written file against the float one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kompakt
from benchmarks import models
from benchmarks.cases import cifar, minilm, mobilenet
from benchmarks.datasets import kws
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.errors import KompaktError
from kompakt.measuring.data import prepare
from kompakt.quantize import METHODS
from kompakt.schemes import get_scheme
from kompakt.search.candidates import Candidate
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Build, Workbench
from kompakt.targets import get_target

TITLE = "What each method does, alone and together"
SAMPLES = 32
Score = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
Splits = Mapping[str, Iterable[Any]]


def same_answer(ours: NDArray[Any], exact: NDArray[Any]) -> NDArray[np.float64]:
    """Whether the largest output is the same one: (N,)."""
    return (ours.argmax(-1) == exact.argmax(-1)).astype(np.float64)


def cosine(ours: NDArray[Any], exact: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of the outputs: (N,)."""
    a, b = ours.astype(np.float64), exact.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / lengths)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model under one scheme.

    Attributes:
        model: Key of the model in ``models.MODELS``.
        scheme: Preset of the scheme.
        splits: Its data: ``calibration`` and ``test``.
        score: How close outputs are to the float file's, one number a sample.
        unit: Of the score's mean, for the table.
        together: Methods that are tried together, one tuple after another.
        dynamic: Further dynamic dimensions of the model.
        calibrator: Of static schemes.
    """

    model: str
    scheme: str
    splits: Callable[[Setup], Splits]
    together: tuple[tuple[str, ...], ...]
    score: Score = same_answer
    unit: str = "%"
    dynamic: Mapping[str, Mapping[int, str]] | None = None
    calibrator: str = "mse"

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.model} {self.scheme}"


def _clips(setup: Setup) -> Splits:
    return {
        "calibration": kws(setup.assets, "calibration").batches(20),
        "test": kws(setup.assets, "evaluation").take(setup.some(800, 200)).batches(20),
    }


ALL_8 = (
    ("equalize", "refine_ranges", "bias_correction"),
    ("refine_ranges", "adaround", "bias_correction"),
)
ALL_4 = (
    ("gptq", "bias_correction"),
    ("adaround", "bias_correction"),
    ("reconstruction", "bias_correction"),
)
SUBJECTS = (
    Subject(model="mobilenet_v1_075", scheme="w8a8", splits=mobilenet.splits, together=ALL_8),
    Subject(model="mobilenet_v1_075", scheme="w4a8", splits=mobilenet.splits, together=ALL_4),
    Subject(model="resnet20", scheme="w8a8", splits=cifar.splits, together=ALL_8),
    Subject(model="resnet20", scheme="w4a8", splits=cifar.splits, together=ALL_4),
    Subject(model="kws_dscnn", scheme="w8a8", splits=_clips, together=ALL_8),
    Subject(
        model="minilm",
        scheme="w8a8",
        splits=minilm.splits,
        score=cosine,
        unit="cosine",
        together=(("split_outliers", "smooth"),),
        calibrator="minmax",
        dynamic=minilm.DYNAMIC,
    ),
    Subject(
        model="minilm",
        scheme="w4",
        splits=minilm.splits,
        score=cosine,
        unit="cosine",
        together=(("awq", "gptq"),),
        dynamic=minilm.DYNAMIC,
    ),
)


def combinations(subject: Subject) -> list[tuple[str, ...]]:
    """Nothing, each method alone, and those that belong together."""
    return [(), *((name,) for name in METHODS), *subject.together]


def run(setup: Setup) -> Outcome:
    """Build every combination for ONNX Runtime and compare its outputs with the float file's on the test data."""
    table = [row for subject in SUBJECTS for row in _subject(setup, subject)]
    rows = [
        Row(
            what=f"{row['subject']}: {' + '.join(row['methods']) or 'as it comes'}",
            figure=row["figure"] if row["figure"] is not None else "not applied",
            unit=row["unit"],
            note=row["note"],
        )
        for row in table
    ]
    return Outcome(rows=rows, details={"title": TITLE, "table": table})


def _subject(setup: Setup, subject: Subject) -> Iterable[dict[str, Any]]:
    entry = models.MODELS[subject.model]
    network = kompakt.capture(entry.load(setup.assets), entry.example(), dynamic=subject.dynamic)
    splits = subject.splits(setup)
    data = prepare(splits["calibration"], network.input_specs, role="calibration")
    folder = setup.scratch / subject.name.replace(" ", "-")
    folder.mkdir()
    samples = spread_rows(data, SAMPLES, network.input_specs)
    bench = Workbench(network, get_target("onnxruntime"), "x86-vnni", folder, data, samples, 1)
    tested = [b.arrays() for b in prepare(splits["test"], network.input_specs, role="test")]
    outputs = partial(_outputs, tested=tested)
    exact = outputs(bench.float_build())
    for methods in combinations(subject):
        yield _measured(bench, subject, methods, outputs, exact)


def _measured(
    bench: Workbench,
    subject: Subject,
    methods: tuple[str, ...],
    outputs: Callable[[Build], list[NDArray[Any]]],
    exact: list[NDArray[Any]],
) -> dict[str, Any]:
    scheme = get_scheme(subject.scheme)
    candidate = Candidate(
        name=" + ".join(methods) or "plain",
        level=2,
        scheme=scheme,
        calibrator=subject.calibrator if scheme.needs_calibration else None,
        methods=methods,
    )
    row: dict[str, Any] = {"subject": subject.name, "methods": list(methods), "unit": subject.unit}
    began = time.process_time()
    try:
        build = bench.build(candidate)
    except KompaktError as refused:
        return row | {"figure": None, "cpu_s": None, "note": f"{refused.what}: {refused.why}"}
    seconds = time.process_time() - began
    scores = np.concatenate(
        [subject.score(a, b) for a, b in zip(outputs(build), exact, strict=True)]
    )
    _forget(build.path)
    figure = float(scores.mean()) * (100 if subject.unit == "%" else 1)
    note = f"{scores.size:,} test samples; {seconds:.1f} CPU-s to build"
    return row | {"figure": round(figure, 4), "cpu_s": round(seconds, 1), "note": note}


def _outputs(build: Build, tested: list[dict[str, NDArray[Any]]]) -> list[NDArray[Any]]:
    return [next(iter(build.runnable(inputs).values())) for inputs in tested]


def _forget(path: Path) -> None:
    """Files of trials are not kept: there are many."""
    path.unlink(missing_ok=True)


__all__ = ["SUBJECTS", "combinations", "run"]
