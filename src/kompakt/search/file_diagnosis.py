"""What an artifact shows without the float model it was made from: its codes on new data against its calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kompakt.artifact import Artifact, open_artifact
from kompakt.errors import ArtifactError, DataError
from kompakt.measuring.cause import Cause
from kompakt.measuring.data import Batch, prepare
from kompakt.measuring.edge_causes import BEYOND, WIDER
from kompakt.measuring.input_causes import compare_inputs
from kompakt.numerics.float_places import at_float_places, half_of_last_step
from kompakt.numerics.formats import Format, get_format
from kompakt.observe import Calibration, EdgeStatistics, clipped_share, from_arrays
from kompakt.observe.input_scalars import InputScalars, describe
from kompakt.schemes import Scheme
from kompakt.search.diagnosing import Diagnosis, Found
from kompakt.search.examination import Known
from kompakt.search.split import spread_rows
from kompakt.targets import get_target

UNLIKE = 0.01
"""So large a share of the codes at an end of the range, beyond what calibration expects, is no chance."""


def remembered(path: Path) -> Known:
    """How an artifact was made, from its record and its calibration sketch.

    Raises:
        ArtifactError: K510–K516 when it is damaged, K627 when its record does not tell.
    """
    artifact = open_artifact(path)
    record = artifact.record
    try:
        target = record["target"]
        ranges = {
            str(row["name"]): (float(row["scale"]), int(row["zero_point"]))
            for row in record["sites"]
            if row["role"] == "activation" and row.get("scale") is not None
        }
        return Known(
            scheme=Scheme.from_json(record["scheme"]),
            target=str(target["name"]),
            isa=str(target["isa"]),
            calibrator=str(record["calibrator"] or "mse"),
            methods=tuple(record["methods"]),
            calibration=_sketch(artifact),
            ranges=ranges,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            "K627", f"diagnosing {path}", why=f"its record does not tell how it was made: {error}"
        ) from error


def _sketch(artifact: Artifact) -> Calibration | None:
    arrays = artifact.calibration()
    return None if arrays is None else from_arrays(arrays)


def diagnose_file(path: Path, data: Iterable[Any], samples: int) -> Diagnosis:
    """Compare an artifact's inputs and codes on data with what its calibration saw.

    Args:
        path: The artifact's directory.
        data: Batches of inputs; labels are ignored.
        samples: Rows to look at.

    Raises:
        ArtifactError: The directory is no artifact, or is damaged.
        DataError: K626 without data; others when it does not fit the model.
    """
    artifact = open_artifact(path)
    known, facts = remembered(path), artifact.record["target"]
    target, file = get_target(known.target), artifact.file(str(facts["main"]))
    codes = facts["codes"] if target.probe is not None else {}
    options = facts["session_options"]
    session = target.probe(file, options, list(codes.values())) if target.probe else None
    plain = target.load(file, options) if session is None else session
    rows = spread_rows(prepare(data, plain.input_specs), samples, plain.input_specs)
    if not rows:
        raise DataError("K626", "a diagnosis without data", why="there is nothing to measure on")
    seen = known.calibration
    found: list[Found] = []
    if seen is not None:
        found += _inputs(seen, rows)
        if session is not None and codes:
            found += _edges(seen, rows, session, codes, known, artifact.record)
    count = sum(batch.size for batch in rows)
    stored = artifact.record.get("error_split") or {}
    notes = [str(found_["sentence"]) for found_ in stored.get("causes", ()) if found_.get("fault")]
    told = f"when it was made: {stored['summary']}" if stored.get("summary") else ""
    head = (
        f"on {count} samples, without the float model (give it as the source to split the error by layer): "
        + (
            "inputs and codes are like those of its calibration"
            if not found
            else "this data is unlike its calibration"
        )
    )
    if seen is None:
        head = (
            "the artifact holds no calibration sketch: there is nothing to compare this data with"
        )
    return Diagnosis(
        summary=head,
        output_error=None,
        samples=count,
        causes=found,
        notes=[*([told] if told else []), *notes],
    )


def _inputs(seen: Calibration, rows: list[Batch]) -> list[Found]:
    now: dict[str, InputScalars] = {}
    for batch in rows:
        for name, tensor in batch.inputs.items():
            if tensor.dim() and tensor.numel():
                here = describe(tensor)
                now[name] = now[name].extend(here) if name in now else here
    mismatch = compare_inputs(seen, Calibration(inputs=now, samples=sum(b.size for b in rows)))
    if mismatch is None:
        return []
    cause = Cause(
        code=mismatch.code,
        site="",
        role="data",
        sentence=mismatch.sentence,
        remedies=(),
        facts=mismatch.facts,
    )
    return [Found(cause=cause, before=0.0, after=None, remedy=None, fault=True)]


def _edges(
    seen: Calibration,
    rows: list[Batch],
    session: Any,
    codes: Mapping[str, str],
    known: Known,
    record: Mapping[str, Any],
) -> list[Found]:
    """Sites whose codes crowd at an end of the range, or use little of it, unlike in calibration; worst first."""
    formats = {r["name"]: r["format"] for r in record["sites"] if r["role"] == "activation"}
    shares: dict[str, list[float]] = {}
    spans: dict[str, float] = {}
    for batch in rows:
        outputs = session(batch.arrays())
        for site, name in codes.items():
            if site in known.ranges and site in formats:
                fmt, grid = get_format(formats[site]), known.ranges[site]
                found = _numbers(outputs[name], fmt)
                shares.setdefault(site, []).append(_share_at_ends(found, fmt, grid))
                spans[site] = max(spans.get(site, 0.0), _span(found, grid))
    causes: list[tuple[float, Cause]] = []
    for site in codes:
        statistics = seen.statistics.get(site)
        if site not in shares or statistics is None or statistics.is_empty:
            continue
        clipped, span = float(np.mean(shares[site])), spans[site]
        reach = max(statistics.high, 0.0) - min(statistics.low, 0.0)
        expected = _expected(statistics, get_format(formats[site]), known.ranges[site])
        if clipped > UNLIKE + BEYOND * expected:
            text = (
                f"{clipped:.2%} of the codes of `{site}` stand at an end of its range; calibration expects "
                f"{expected:.2%}: this data goes beyond it"
            )
            causes.append(
                (clipped, _edge_cause("beyond_calibration", site, text, {"share": clipped}))
            )
        elif span * WIDER < reach:
            text = (
                f"`{site}` uses 1/{reach / max(span, 1e-30):.0f} of the range that calibration saw"
            )
            causes.append(
                (
                    0.0,
                    _edge_cause(
                        "wider_calibration", site, text, {"ratio": reach / max(span, 1e-30)}
                    ),
                )
            )
    causes.sort(key=lambda pair: -pair[0])
    return [
        Found(cause=cause, before=0.0, after=None, remedy=None, fault=True)
        for _, cause in causes[:6]
    ]


def _edge_cause(code: str, site: str, text: str, facts: dict[str, Any]) -> Cause:
    return Cause(code=code, site=site, role="activation", sentence=text, remedies=(), facts=facts)


def _expected(statistics: EdgeStatistics, fmt: Format, grid: tuple[float, int]) -> float:
    """The share of values that calibration saw at an end of the range or beyond it."""
    scale, zero = grid
    half = half_of_last_step(fmt) if fmt.is_small_float else 0.5
    low = (fmt.qmin - zero + half) * scale if zero > fmt.qmin else -math.inf
    return clipped_share(statistics, low, (fmt.qmax - zero - half) * scale)


def _numbers(codes: NDArray[Any], fmt: Format) -> NDArray[Any]:
    """Codes as the numbers that the scale multiplies: small floats come as places on the number line."""
    if not fmt.is_small_float:
        return codes
    numbers: NDArray[Any] = at_float_places(torch.from_numpy(codes), fmt).float().numpy()
    return numbers


def _share_at_ends(codes: NDArray[Any], fmt: Format, grid: tuple[float, int]) -> float:
    """Share of the codes at an end of the format that does not stand for 0."""
    _, zero = grid
    high = codes >= int(fmt.qmax) if zero < fmt.qmax else np.zeros(1, bool)
    low = codes <= int(fmt.qmin) if zero > fmt.qmin else np.zeros(1, bool)
    return float(high.mean() + low.mean())


def _span(codes: NDArray[Any], grid: tuple[float, int]) -> float:
    scale, zero = grid
    values = (torch.tensor([float(codes.min()), float(codes.max())]) - zero) * scale
    return float(max(values[1], torch.tensor(0.0)) - min(values[0], torch.tensor(0.0)))


__all__ = ["diagnose_file", "remembered"]
