"""From a float network and data to a diagnosis: checked, placed, calibrated, then measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from kompakt.errors import DataError
from kompakt.measuring.cause import Cause
from kompakt.measuring.data import Batch, Prepared, hold_in_memory, prepare
from kompakt.measuring.input_causes import Mismatch, misprepared
from kompakt.measuring.number_causes import (
    denormal_weights,
    first_nonfinite_edge,
    nonfinite_weights,
)
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe import Calibration, calibrate
from kompakt.quantize import METHODS
from kompakt.quantize.method import Batches, FloatMethod, PlacedMethod
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.ranges import set_ranges_
from kompakt.schemes import Scheme
from kompakt.search.diagnosing import Diagnosis, Found, diagnose_subject, unusable
from kompakt.search.remedies import Subject
from kompakt.search.split import Half, spread_rows
from kompakt.targets import get_target


@dataclass(frozen=True, kw_only=True)
class Known:
    """How a network is quantized.

    Attributes:
        scheme: The scheme.
        target: The runtime's name.
        isa: The instruction set.
        calibrator: An observer's name, or one for each site.
        methods: Names of methods, in order.
        calibration: What calibration saw, where it was done before.
        ranges: Scale and zero point of sites, where they are known.
    """

    scheme: Scheme
    target: str
    isa: str
    calibrator: str | Mapping[str, str] = "mse"
    methods: tuple[str, ...] = ()
    calibration: Calibration | None = None
    ranges: Mapping[str, tuple[float, int]] = field(default_factory=dict)


def examine(
    network: Network,
    known: Known,
    data: Iterable[Any],
    calibration: Iterable[Any] | None,
    samples: int,
) -> Diagnosis:
    """Place, calibrate and diagnose a network.

    Args:
        network: A captured network; its batch norms, where it still has them, tell what it was trained on.
        known: How it is quantized.
        data: Batches to measure on.
        calibration: Batches for the ranges.
        samples: Rows of data to measure on.

    Raises:
        DataError: K626 when the data has fewer than 2 rows.
    """
    prepared = inference_form(network)
    measured, fresh = two_parts(prepare(data, network.input_specs, role="data"), network, samples)
    broken = nonfinite_weights(network)
    if not broken and (edge := first_nonfinite_edge(prepared, measured)):
        broken = [edge]
    if broken:
        return unusable(broken, _rows(measured))
    given = None if calibration is None else _held(calibration, network)
    subject = _subject(network, prepared, known, measured, fresh, given)
    return with_suspects(
        diagnose_subject(subject),
        subject,
        wrong=misprepared(network, measured),
        calibration=misprepared(network, _few(given, network)) if given is not None else None,
        denormal=denormal_weights(prepared),
    )


def _subject(
    network: Network,
    prepared: Network,
    known: Known,
    measured: Batches,
    fresh: Batches,
    given: Prepared | None,
) -> Subject:
    rules = get_target(known.target).rules(known.isa)
    few = _few(given, network) if given is not None else fresh
    reference = prepared
    for name in known.methods:
        if METHODS[name].works_on == "float":
            run = cast("FloatMethod", METHODS[name].run)
            reference, _ = run(reference, known.scheme, rules, few)
    placed = place(reference, known.scheme, rules)
    seen, taps = known.calibration, plan_of(placed).taps
    if taps and (seen is None or given is not None or not set(taps) <= set(seen.statistics)):
        batches: Iterable[Any] = fresh if given is None else (b.inputs for b in given)
        seen = calibrate(reference, taps, batches)
    if taps and seen is not None:
        observer = known.calibrator if known.calibrator != "per site" else "mse"
        set_ranges_(placed, seen, observer)
        _set_known_ranges(placed, known.ranges)
    for name in known.methods:
        if METHODS[name].works_on == "placed":
            cast("PlacedMethod", METHODS[name].run)(placed, reference, few)
    judged = given is not None or known.calibration is not None
    return Subject(
        placed=placed,
        reference=reference,
        scheme=known.scheme,
        rules=rules,
        batches=measured,
        calibration=seen,
        calibrator=known.calibrator if known.calibrator != "per site" else "mse",
        saturates=bool(rules.pair_sums) and rules.avoid_saturation,
        fresh=fresh,
        judges_calibration=judged,
    )


def _set_known_ranges(placed: Network, ranges: Mapping[str, tuple[float, int]]) -> None:
    for site in plan_of(placed).quantized("activation"):
        quantizer = placed.get_submodule(str(site.quantizer))
        if site.name in ranges and isinstance(quantizer, Quantizer) and not quantizer.fixed:
            scale, zero_point = ranges[site.name]
            quantizer.set_parameters(torch.tensor(scale), torch.tensor(zero_point))


def two_parts(data: Prepared, network: Network, samples: int) -> tuple[Batches, Batches]:
    """Rows spread over the data, dealt out alternately: to measure on, and to calibrate with.

    Raises:
        DataError: K626 when there are fewer than 2 rows (or, for a fixed batch size, batches).
    """
    rows = spread_rows(data, 2 * samples, network.input_specs)
    symbol = network.input_specs[0].shape[0] if network.input_specs[0].shape else None
    if isinstance(symbol, str):
        again = prepare(rows, network.input_specs)
        parts = [tensors_of(Half(again, which)) for which in (0, 1)]
    else:
        parts = [tensors_of(rows[which::2]) for which in (0, 1)]
    if not parts[0] or not parts[1]:
        raise DataError(
            "K626",
            f"a diagnosis on {sum(b.size for b in rows)} rows of data",
            why="errors are measured on one half of them and ranges tried on the other",
            help="give more data; 64 rows or more tell most",
        )
    return parts[0], parts[1]


def tensors_of(batches: Iterable[Batch]) -> list[list[Tensor]]:
    """The inputs of batches, as methods take them."""
    return [list(batch.inputs.values()) for batch in batches]


def _held(data: Iterable[Any], network: Network) -> Prepared:
    prepared = prepare(data, network.input_specs, role="calibration")
    if iter(data) is data:
        return prepare(hold_in_memory(prepared, shuffle=None), network.input_specs)
    return prepared


def _few(given: Prepared | None, network: Network) -> list[list[Tensor]]:
    return [] if given is None else tensors_of(spread_rows(given, 32, network.input_specs))


def _rows(batches: Sequence[Sequence[Tensor]]) -> int:
    return sum(int(b[0].shape[0]) if b and b[0].dim() else 1 for b in batches)


def with_suspects(
    found: Diagnosis,
    subject: Subject,
    *,
    wrong: Mismatch | None,
    calibration: Mismatch | None,
    denormal: Sequence[Cause],
) -> Diagnosis:
    """Add what needs no simulation: data that is not what the model was trained on, and denormal weights.

    Args:
        found: The diagnosis so far.
        subject: What was diagnosed.
        wrong: What is wrong with the data.
        calibration: What is wrong with the calibration data.
        denormal: Layers with denormal weights.
    """
    first: list[Found] = []
    if wrong is not None:
        first.append(_suspect(wrong, found, "in this data, "))
    elif calibration is not None and not any(f.cause.role == "data" for f in found.faults):
        first.append(_suspect(calibration, found, "in the calibration data, "))
    if denormal and not first:
        first += denormal_found(subject, denormal, found)
    return found.with_first(first)


def denormal_found(subject: Subject, causes: Sequence[Cause], found: Diagnosis) -> list[Found]:
    """Denormal weights that matter: those whose layer, or what it feeds, costs most."""
    before = found.output_error or 0.0
    faults = found.faults
    return [
        Found(
            cause=cause,
            before=before,
            after=faults[0].after if faults else None,
            remedy=faults[0].remedy if faults else None,
            fault=bool(faults),
        )
        for cause in causes[:1]
    ]


def _suspect(mismatch: Mismatch, found: Diagnosis, where: str) -> Found:
    cause = Cause(
        code=mismatch.code,
        site="",
        role="data",
        sentence=where + mismatch.sentence,
        remedies=(),
        facts=mismatch.facts,
    )
    return Found(cause=cause, before=found.output_error or 0.0, after=None, remedy=None, fault=True)


__all__ = ["Known", "examine", "tensors_of", "two_parts"]
