"""The workbench: one captured network and all that is done for it once, whatever the number of candidates.

The network is captured, put in inference form, written in float and calibrated once; each candidate then only costs its
placement and its file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from kompakt.errors import DataError
from kompakt.measuring.certificate import Certificate
from kompakt.measuring.data import Batch
from kompakt.measuring.parity import certify
from kompakt.network.network import Network
from kompakt.network.onnx import source_of
from kompakt.network.rewrites import inference_form
from kompakt.observe import Calibration, calibrate
from kompakt.quantize import METHODS
from kompakt.quantize.avoid_saturation import ROUNDS, avoid_saturation_
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.layers import Treated
from kompakt.quantize.method import Batches, FloatMethod, PlacedMethod
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.quantize.rules import Rules
from kompakt.quantize.saturation import PairSums, PairSumWatch
from kompakt.schemes import float32
from kompakt.search.candidates import Candidate
from kompakt.search.split import spread_rows
from kompakt.targets import Runnable, Target, Written

COMPARED_SAMPLES = 8
"""Samples that weights for processors that saturate are compared on."""


@dataclass
class Stopwatch:
    """CPU and wall seconds of each stage of a job."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside the ``with`` block to a stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu


@dataclass(kw_only=True)
class Build:
    """A candidate as a file.

    Attributes:
        candidate: What was built.
        placed: The frozen network.
        written: The files' content.
        path: The model file on disk.
        runnable: The loaded file.
        reference: The float network it was placed from: the prepared one, or what methods made of it.
        calibration: What calibration saw of that; None where no range was needed.
        pair_sums: Sums that could saturate on a processor the file is for, on all calibration data; None where there
            is no such processor.
    """

    candidate: Candidate
    placed: Network
    reference: Network
    calibration: Calibration | None
    written: Written
    path: Path
    runnable: Runnable
    pair_sums: list[PairSums] | None = None


@dataclass
class _Form:
    """A float form of the network: as it came, or changed by methods; and what calibration saw of it."""

    network: Network
    calibration: Calibration | None = None
    taps: dict[str, str] = field(default_factory=dict)


class Workbench:
    """Builds candidates for one network, target and instruction set.

    Args:
        network: A captured network.
        target: The runtime.
        isa: The instruction set to write for.
        scratch: A folder for trial files.
        calibration_data: Batches of calibration inputs, or None.
        samples: A few of them, for methods and quick comparisons.
        threads: Threads the runtime may use.
    """

    def __init__(
        self,
        network: Network,
        target: Target,
        isa: str,
        scratch: Path,
        calibration_data: Iterable[Batch] | None,
        samples: Sequence[Batch],
        threads: int,
    ) -> None:
        self.clock = Stopwatch()
        self.network, self.samples = network, samples
        self.target, self.isa, self.scratch, self.threads = target, isa, scratch, threads
        self.rules: Rules = target.rules(isa)
        with self.clock.stage("rewrite"):
            self.prepared = inference_form(network)
        self._data = calibration_data
        self._plain = _Form(self.prepared)
        self._forms: dict[tuple[Any, ...], _Form] = {}
        self._drawn: dict[int, Sequence[Batch]] = {}
        self._float: Build | None = None
        self._count = 0

    @property
    def has_data(self) -> bool:
        """Whether static candidates are possible."""
        return self._data is not None

    @property
    def calibration(self) -> Calibration | None:
        """What calibration saw of the network as it came, once a static candidate needed it."""
        return self._plain.calibration

    def float_build(self) -> Build:
        """The float network in the target's runtime: the baseline."""
        if self._float is None:
            with self.clock.stage("write float"):
                # The user's own file, where there is one, is the baseline as it is.
                imported = source_of(self.network) is not None
                written = self.target.write(self.network if imported else self.prepared)
            candidate = Candidate(name="float", level=0, scheme=float32())
            self._float = self._load(candidate, self.prepared, written, self._plain)
        return self._float

    def build(self, candidate: Candidate) -> Build:
        """Rewrite, place, range, improve, freeze, write and load a candidate."""
        form = self._form(candidate)
        placed = self._ranged(candidate, form)
        candidate, _ = self._without_saturation(placed, candidate, form, rounds=1)
        self._improve(placed, candidate, form)
        # Other weights and corrected biases move codes a little.
        candidate, found = self._without_saturation(placed, candidate, form)
        with self.clock.stage("freeze"):
            freeze_(placed)
        with self.clock.stage("write"):
            written = self.target.write(placed)
        return replace(self._load(candidate, placed, written, form), pair_sums=found)

    def certificate(self, build: Build, samples: Sequence[Batch]) -> Certificate:
        """Whether a candidate's file computes what was simulated."""
        with self.clock.stage("parity"):
            known = build.pair_sums
            look = self.rules.pair_sums and known is None
            found = certify(
                build.placed,
                build.written,
                self.target,
                samples,
                rules=self.rules,
                watch=PairSumWatch(build.placed, self.rules) if look else None,
            )
            return found if known is None else replace(found, pair_sums=tuple(known))

    def place(self, candidate: Candidate) -> Network:
        """Place a candidate's scheme, give its quantizers ranges and apply its methods; not yet frozen."""
        form = self._form(candidate)
        placed = self._ranged(candidate, form)
        self._improve(placed, candidate, form)
        return placed

    def reference(self, candidate: Candidate) -> Network:
        """The float network that a candidate is placed from."""
        return self._form(candidate).network

    def _form(self, candidate: Candidate) -> _Form:
        """The float form a candidate's methods ask for; made once."""
        names = tuple(n for n in candidate.methods if METHODS[n].works_on == "float")
        if not names:
            return self._plain
        key = (names, json.dumps(candidate.scheme.to_json(), sort_keys=True))
        if key not in self._forms:
            network = self.prepared
            for name in names:
                method = METHODS[name]
                with self.clock.stage(name):
                    run = cast("FloatMethod", method.run)
                    network, _ = run(
                        network, candidate.scheme, self.rules, self._batches(method.samples)
                    )
            self._forms[key] = _Form(network)
        return self._forms[key]

    def _ranged(self, candidate: Candidate, form: _Form) -> Network:
        with self.clock.stage("place"):
            placed = place(form.network, candidate.scheme, self.rules)
        taps = plan_of(placed).taps
        if taps:
            calibration = self._calibrated(form, taps)
            with self.clock.stage("ranges"):
                set_ranges_(placed, calibration, candidate.calibrator or "mse")
        return placed

    def _without_saturation(
        self, placed: Network, candidate: Candidate, form: _Form, rounds: int = ROUNDS
    ) -> tuple[Candidate, list[PairSums] | None]:
        """Other weights for layers that saturate on a processor the file is for, in place.

        Returns:
            The candidate with these, and what was found in the end.
        """
        if not (self.rules.avoid_saturation and self.rules.pair_sums):
            return candidate, None
        few = spread_rows(self.samples, COMPARED_SAMPLES, self.prepared.input_specs)
        with self.clock.stage("saturation"):
            changed, found = avoid_saturation_(
                placed,
                self._inputs,
                self.rules,
                reference=form.network,
                samples=list(_tensors_of(few)),
                rounds=rounds,
            )
        scheme = candidate.scheme
        for path in changed:
            layer = placed.get_submodule(path)
            assert isinstance(layer, Treated)
            scheme = scheme.with_override(escape(path), layer.treatment)
        return replace(candidate, scheme=scheme), found

    def _inputs(self) -> Iterator[list[Tensor]]:
        """The calibration data from its start, batch by batch."""
        return _tensors_of(self._data or ())

    def _improve(self, placed: Network, candidate: Candidate, form: _Form) -> None:
        """Apply a candidate's methods, in place."""
        for name in candidate.methods:
            method = METHODS[name]
            if method.works_on == "placed":
                with self.clock.stage(name):
                    run = cast("PlacedMethod", method.run)
                    run(placed, form.network, self._batches(method.samples))

    def _batches(self, count: int) -> Batches:
        """About so many calibration samples, as methods take them."""
        return method_batches(self.drawn(count)) if count else []

    def drawn(self, count: int) -> Sequence[Batch]:
        """About so many calibration samples, spread over all of them; all where there are no more."""
        if count not in self._drawn:
            at_hand, seen = sum(batch.size for batch in self.samples), self._plain.calibration
            enough = at_hand >= count or (seen is not None and at_hand >= seen.samples)
            source = self.samples if enough or self._data is None else self._data
            self._drawn[count] = spread_rows(source, count, self.prepared.input_specs)
        return self._drawn[count]

    def calibrated(self, taps: Mapping[str, str]) -> Calibration:
        """Statistics of (at least) these sites, from one pass over the calibration data.

        Raises:
            DataError: K601 when there is no calibration data.
        """
        return self._calibrated(self._plain, taps)

    def _calibrated(self, form: _Form, taps: Mapping[str, str]) -> Calibration:
        if self._data is None:
            raise DataError(
                "K601",
                "a static scheme without calibration data",
                why="static activation ranges come from data",
                help="give --calibration DATA, or choose --level 1 (dynamic, weight-only)",
            )
        if form.calibration is None or not set(taps) <= set(form.taps):
            wanted = {**form.taps, **taps}  # what earlier candidates observed is still needed
            with self.clock.stage("calibrate"):
                form.calibration = calibrate(
                    form.network, wanted, (batch.inputs for batch in self._data)
                )
            form.taps = wanted
        return form.calibration

    def _load(self, candidate: Candidate, placed: Network, written: Written, form: _Form) -> Build:
        folder = self.scratch / f"trial-{self._count}"
        self._count += 1
        folder.mkdir()
        path = written.save(folder)
        with self.clock.stage("load"):
            runnable = self.target.load(path, written.options, self.threads)
        return Build(
            candidate=candidate,
            placed=placed,
            reference=form.network,
            calibration=form.calibration,
            written=written,
            path=path,
            runnable=runnable,
        )


def method_batches(batches: Iterable[Batch]) -> Batches:
    """Samples as methods take them."""
    return [list(batch.inputs.values()) for batch in batches]


def _tensors_of(batches: Iterable[Batch]) -> Iterator[list[Tensor]]:
    return (list(batch.inputs.values()) for batch in batches)
