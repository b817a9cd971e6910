"""The one call: a trained model in, a certified artifact out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import kompakt
from kompakt.artifact import Artifact, OutputClaim, claim_output, write_artifact
from kompakt.certification import Certified, certify_trial
from kompakt.errors import BudgetError, DataError, MetricError
from kompakt.measuring.accuracy import PairedEvaluation
from kompakt.measuring.data import Prepared, for_network, hold_in_memory, prepare, with_groups
from kompakt.measuring.environment import resolved_isa
from kompakt.measuring.metrics import get_metric
from kompakt.measuring.record import Record
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.options import Options, check_options, target_for
from kompakt.progress import note
from kompakt.recording import trial_journal
from kompakt.report import render
from kompakt.schemes import FLOAT, Scheme, get_scheme
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate
from kompakt.search.ladder import Ladder
from kompakt.search.memory import Memory
from kompakt.search.runtimes import AUTO, Make, candidates_for_auto, side_by_side
from kompakt.search.split import Half, example_batch, half_sizes, spread_rows
from kompakt.search.trial import Trial
from kompakt.search.workbench import Workbench
from kompakt.targets import get_target

QUICK_SAMPLES = 32
"""Samples, drawn across the data, for comparing calibrators, correcting biases and checking parity."""
HELD_BYTES = 1 << 30
"""Validation data up to this size is held in memory, to be read in random order."""
UNSHUFFLED = (
    "the validation data is larger than {limit:,} MiB and was read in its own order, not held in memory: "
    "hopeless candidates could not be dropped early"
)
LEAST_SAMPLES = 2
"""Without spread there is no interval: see ``measuring.comparison``."""


Given = tuple[Iterable[Any] | None, Sequence[Any] | None]
"""Data, and the group of each of its samples."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What :func:`compress` made.

    Attributes:
        record: Everything that was measured.
        artifact: The directory that ships.
        network: The placed, frozen network the artifact was written from.
    """

    record: Record
    artifact: Artifact
    network: Network

    @property
    def path(self) -> Path:
        """Where the artifact is."""
        return self.artifact.path

    def __repr__(self) -> str:
        record = self.record
        return (
            f"Result(scheme={record.scheme_name!r}, verdict={record.verdict!r}, "
            f"budget_met={record.budget_met}, path={str(self.path)!r})\n  {record.verdict_text}"
        )


def compress(
    model: nn.Module | Network,
    *,
    example_inputs: Any = None,
    calibration: Iterable[Any] | str | None = None,
    validation: Iterable[Any] | None = None,
    test: Iterable[Any] | None = None,
    groups: Sequence[Any] | None = None,
    test_groups: Sequence[Any] | None = None,
    metric: str = "agreement",
    budget: Budget | None = None,
    target: str = "onnxruntime",
    target_options: Mapping[str, bool] | None = None,
    isa: str = "auto",
    level: int | None = None,
    scheme: str | Scheme | None = None,
    calibrator: str | None = None,
    methods: Sequence[str] = (),
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    keep_float: Sequence[str] = (),
    threads: int = 1,
    batch: int = 1,
    seed: int = 0,
    out: str | Path,
    name: str | None = None,
    measure_latency: bool = True,
    measure_memory: bool = True,
    commands: Sequence[str] = (),
    journal: str | Path | None = None,
) -> Result:
    """Compress a trained model and prove what came out.

    Args:
        model: A trained ``nn.Module``, or a captured network.
        example_inputs: A tensor, a tuple of positional or a dict of keyword inputs.
        calibration: Batches of inputs for static activation ranges; without it only level 1 is possible.
            ``"generated"`` makes some from what the network's batch norms remember.
        validation: Batches of ``(inputs, labels)`` (or inputs, for metrics without labels). Every other sample
            is used to choose, the others to certify; all of them certify when nothing is chosen.
        test: Separate batches to certify on; then all of ``validation`` is used to choose.
        groups: Which group (video, document, patient) each sample of ``validation`` belongs to, one label a sample in
            its order. Intervals are then over groups, and no group is used both to choose and to certify.
        test_groups: The same for ``test``.
        metric: A metric's name, or ``package.module:function``.
        budget: What must hold.
        target: The runtime; ``auto`` tries every installed one and takes the fastest that holds the budget.
        target_options: Settings of the runtime's files, such as ``{"integer_io": True}`` for ``litert``.
        isa: Instruction set to write for; ``auto`` is this machine's.
        level: Highest level to try: 1 needs no data, 2 is static. By default 2 where there is calibration data.
        scheme: Use this scheme instead of the ladder's own candidates.
        calibrator: With ``scheme``: its calibrator.
        methods: With ``scheme``: names of methods that improve it, in order (see ``quantize.METHODS``).
        dynamic: Further dynamic dimensions, such as ``{"input_ids": {1: "sequence"}}``.
        keep_float: Selectors of layers left in float.
        threads: Threads the runtime may use.
        batch: Samples in one call when latency is measured.
        seed: Of everything random.
        out: The artifact's directory.
        name: What to call the model.
        measure_latency: Whether to measure latency.
        measure_memory: Whether to measure peak memory.
        commands: Command lines that reproduce this, for the report.
        journal: A file that keeps finished trials: the same call after a kill makes none of them again.

    Returns:
        The result. A budget that cannot be met still gives the artifact that came closest, with
        ``record.budget_met`` false.

    Raises:
        KompaktError: Any of its kinds; nothing is half-written then.
    """
    options = Options(
        metric=metric,
        budget=budget or Budget(),
        target=target,
        isa=resolved_isa(isa),
        level=level,
        scheme=get_scheme(scheme) if isinstance(scheme, str) else scheme,
        calibrator=calibrator,
        methods=tuple(methods),
        keep_float=tuple(keep_float),
        threads=threads,
        batch=batch,
        seed=seed,
        name=name or type(model).__name__,
        measure_latency=measure_latency,
        measure_memory=measure_memory,
        commands=tuple(commands),
        target_options=dict(target_options or {}),
    )
    check_options(options, calibration=calibration is not None, validation=validation is not None)
    if options.target != AUTO and get_target(options.target).stand_in is not None:
        # Another runtime's speed and memory say nothing about the one the file is for.
        options = replace(options, measure_latency=False, measure_memory=False)
    with claim_output(out) as claim, tempfile.TemporaryDirectory(prefix="kompakt-") as scratch:
        return _Job(options, Path(scratch), claim, journal).run(
            model, example_inputs, dynamic, calibration, (validation, groups), (test, test_groups)
        )


class _Job:
    """One call of :func:`compress`."""

    def __init__(
        self, options: Options, scratch: Path, claim: OutputClaim, journal: str | Path | None
    ) -> None:
        self.options, self.scratch, self.claim = options, scratch, claim
        self.journal = journal
        self.rng = np.random.default_rng(options.seed)
        self.split: dict[str, int] | None = None
        self.warnings: list[str] = []
        self.runtimes: tuple[dict[str, Any], ...] = ()

    def run(
        self,
        model: nn.Module | Network,
        example_inputs: Any,
        dynamic: Mapping[str, Mapping[int, str]] | None,
        calibration: Iterable[Any] | str | None,
        validation: Given,
        test: Given,
    ) -> Result:
        torch.manual_seed(self.options.seed)
        network = (
            model if isinstance(model, Network) else capture(model, example_inputs, dynamic=dynamic)
        )
        metric = get_metric(self.options.metric)
        data = _prepared(for_network(calibration, network), network, role="calibration")
        selection, certification = self._divide(
            _grouped(validation, network, role="validation", needs_labels=metric.needs_labels),
            _grouped(test, network, role="test", needs_labels=metric.needs_labels),
        )
        samples = data if data is not None else selection
        few = spread_rows(samples or [], QUICK_SAMPLES, network.input_specs)

        def make(target: str, candidates: tuple[Candidate, ...]) -> Ladder:
            folder = self.scratch / f"{target}-{len(list(self.scratch.iterdir()))}"
            folder.mkdir()
            bench = Workbench(
                network,
                target_for(self.options, target),
                self.options.isa,
                folder,
                data,
                few,
                self.options.threads,
            )
            ladder = self._ladder(bench, selection, candidates or self._fixed())
            ladder.memory = None if journal is None else Memory(journal, bench)
            return ladder

        with trial_journal(self.journal, self.options, network, data, selection) as journal:
            ladder, trial = self._best(make)
        if trial is None or trial.build is None:
            raise _nothing_built(ladder)
        certified = certify_trial(
            trial,
            ladder=ladder,
            data=certification,
            source=model,
            options=self.options,
            rng=self.rng,
        )
        return self._write(certified)

    def _best(self, make: Make) -> tuple[Ladder, Trial | None]:
        """The best trial, of the runtime asked for or of all that are installed."""
        if self.options.target != AUTO:
            ladder = make(self.options.target, ())
            return ladder, ladder.climb()
        found = side_by_side(
            candidates_for_auto(), make, rng=self.rng, threads=self.options.threads
        )
        self.runtimes = tuple(contender.to_json() for contender in found)
        winner = next((c for c in found if c.outcome == "chosen"), found[0])
        assert winner.ladder is not None
        return winner.ladder, winner.trial

    def _divide(
        self, validation: Prepared | None, test: Prepared | None
    ) -> tuple[Prepared | None, Prepared | None]:
        """Data to choose on and data to certify on."""
        if validation is None or test is not None or self.options.scheme is not None:
            return validation, test or validation
        held = self._in_random_order(validation)
        counts = half_sizes(held)
        if min(counts) < LEAST_SAMPLES:
            raise MetricError(
                "K230",
                "validation data to choose and to certify on",
                why=f"each half needs {LEAST_SAMPLES} samples or more",
            )
        self.split = {"choosing": counts[0], "certifying": counts[1]}
        note(split_note(self.split))
        halves = (prepare(Half(held, which), held.input_specs) for which in (0, 1))
        return next(halves), next(halves)

    def _in_random_order(self, data: Prepared) -> Prepared:
        """The data shuffled in memory, or as it is when it is too large for that."""
        first = next(iter(data))
        size = sum(tensor.nbytes for tensor in first.inputs.values()) * (data.batches or 1)
        if size <= HELD_BYTES:
            try:
                held = hold_in_memory(data, limit_bytes=HELD_BYTES, shuffle=self.options.seed)
                return prepare(held, data.input_specs, labelled=data.labelled)
            except DataError as error:
                if error.code != "K214":
                    raise
        if not data.shuffled:
            self.warnings.append(UNSHUFFLED.format(limit=HELD_BYTES >> 20))
        return data

    def _ladder(
        self, bench: Workbench, selection: Prepared | None, fixed: tuple[Candidate, ...]
    ) -> Ladder:
        options = self.options
        judge = (
            PairedEvaluation(bench.float_build().runnable, selection, get_metric(options.metric))
            if selection is not None
            else None
        )
        return Ladder(
            bench=bench,
            budget=options.budget,
            judge=judge,
            example=example_batch(bench.prepared, bench.samples, options.batch),
            rng=self.rng,
            time_it=options.measure_latency,
            level=2 if options.level is None else options.level,
            keep_float=options.keep_float,
            fixed=fixed,
        )

    def _fixed(self) -> tuple[Candidate, ...]:
        scheme = self.options.scheme
        if scheme is None:
            return ()
        for select in self.options.keep_float:
            scheme = scheme.with_override(select, FLOAT)
        static = scheme.needs_calibration
        calibrator = (self.options.calibrator or "mse") if static else None
        level = 2 if static else int(scheme.default.mode != "float")
        methods = self.options.methods
        candidate = Candidate(
            name=" + ".join((scheme.name, *methods)),
            level=level,
            scheme=scheme,
            calibrator=calibrator,
            methods=methods,
        )
        return (candidate,)

    def _write(self, certified: Certified) -> Result:
        build, record = certified.build, certified.record
        record = replace(
            record,
            artifact=str(self.claim.target),
            validation_split=self.split,
            runtimes=self.runtimes,
            warnings=[*record.warnings, *self.warnings],
        )
        artifact = write_artifact(
            self.claim,
            files=build.written.files,
            manifest={
                "source_sha256": record.model["source_sha256"],
                "scheme": record.scheme,
                "target": record.target,
                "versions": {"kompakt": kompakt.__version__, **record.environment["versions"]},
                "seed": record.seed,
            },
            record=record.to_json(),
            report=render,
            calibration=certified.sketch,
            golden=certified.golden,
        )
        return Result(record=record, artifact=artifact, network=build.placed)


def split_note(split: Mapping[str, int]) -> str:
    """That half of the validation data was held back for choosing, and how to avoid it."""
    return (
        f"validation split: {split['choosing']:,} samples to choose, {split['certifying']:,} for the final figures; "
        "give test data (--test) to avoid this"
    )


def _grouped(given: Given, network: Network, *, role: str, needs_labels: bool) -> Prepared | None:
    data = _prepared(given[0], network, role=role, needs_labels=needs_labels)
    return None if data is None else with_groups(data, given[1])


def _prepared(
    data: Iterable[Any] | None, network: Network, *, role: str, needs_labels: bool = False
) -> Prepared | None:
    if data is None:
        return None
    prepared = prepare(data, network.input_specs, needs_labels=needs_labels, role=role)
    once = iter(data) is data
    # Data is read several times: a generator is kept in memory.
    return (
        prepare(hold_in_memory(prepared, shuffle=None), network.input_specs) if once else prepared
    )


def _nothing_built(ladder: Ladder) -> BudgetError:
    reasons = "; ".join(f"{t.candidate.name}: {t.why}" for t in ladder.trials) or "no candidate"
    return BudgetError("K602", "compressing this model", why=reasons)
