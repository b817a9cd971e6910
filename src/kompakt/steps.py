"""The steps behind :func:`kompakt.compress`, each usable alone.

network = kompakt.capture(model, x)                      # kompakt.network.capture
placed = kompakt.place(network, "w8a8")
kompakt.calibrate(placed, batches)
written = kompakt.write(placed, "model.onnx")
kompakt.measure("model.onnx", data, "top1")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from kompakt.artifact import GoldenBuilder, GoldenComparison, compare_golden, open_artifact
from kompakt.artifact.output import writing_errors
from kompakt.certification import run_network
from kompakt.errors import ArtifactError, SchemeError
from kompakt.measuring.accuracy import evaluate_together
from kompakt.measuring.comparison import compare
from kompakt.measuring.data import Batch, for_network, prepare, with_groups
from kompakt.measuring.environment import resolved_isa
from kompakt.measuring.margin import check_drop, read_drop
from kompakt.measuring.metrics import get_metric
from kompakt.measuring.single import figure_interval
from kompakt.measuring.sites import site_rows
from kompakt.network.capture import capture
from kompakt.network.layers import layers
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe import Calibration
from kompakt.observe import calibrate as observe_network
from kompakt.quantize.avoid_saturation import avoid_saturation_
from kompakt.quantize.freeze import frozen_copy
from kompakt.quantize.place import place as place_by_rules
from kompakt.quantize.place import plan_of
from kompakt.quantize.quantizer import stage
from kompakt.quantize.ranges import set_ranges_
from kompakt.quantize.rules import Rules
from kompakt.quantize.saturation import PairSums, pair_sums
from kompakt.schemes import FLOAT, Scheme, float32, get_scheme
from kompakt.targets import Written, get_target
from kompakt.targets.target import Runnable


def place(
    network: Network,
    scheme: str | Scheme,
    *,
    target: str = "onnxruntime",
    isa: str = "auto",
) -> Network:
    """Put a scheme's quantizers into a copy of a network, where a target's rules want them.

    Batch norms are folded and dropout is removed first.

    Args:
        network: A captured network; it is not changed.
        scheme: A preset's name, a scheme file, or a scheme.
        target: The runtime.
        isa: Instruction set to place for; ``auto`` is this machine's.

    Raises:
        SchemeError: The scheme is unknown or fits nothing.
        TargetError: The runtime cannot execute one of its formats.
    """
    wanted = get_scheme(scheme) if isinstance(scheme, str) else scheme
    rules = get_target(target).rules(resolved_isa(isa))
    placed = place_by_rules(inference_form(network), wanted, rules)
    placed.meta["rules"] = rules
    return placed


def calibrate(
    placed: Network, data: Iterable[Any] | str, calibrator: str | Mapping[str, str] = "mse"
) -> Calibration:
    """Stream data through a placed network and give its quantizers ranges, in place.

    Where the network is also for processors whose 16-bit sums saturate (``isa="any"``), the data is read a second time,
    and layers that would saturate on it get weights with which they do not. Data that can be read once only gives all
    layers such weights that might.

    Args:
        placed: A placed network.
        data: Batches of inputs; labels are ignored. ``"generated"`` makes some from the network's batch norms.
        calibrator: One observer's name, or one for each site.

    Returns:
        What was seen; :func:`set_ranges_` can choose other ranges from it without another pass.

    Raises:
        DataError: The data is empty, holds NaN or does not fit the network.
    """
    with stage(placed, "off"):
        data = for_network(data, placed) or ()
    batches = (batch.inputs for batch in prepare(data, placed.input_specs, role="calibration"))
    with stage(placed, "off"):
        calibration = observe_network(placed, plan_of(placed).taps, batches)
    set_ranges_(placed, calibration, calibrator)
    rules = placed.meta.get("rules")
    if isinstance(rules, Rules) and rules.avoid_saturation and rules.pair_sums:
        again = () if iter(data) is data else prepare(data, placed.input_specs, role="calibration")
        avoid_saturation_(placed, lambda: _tensors_of(again), rules)
    return calibration


def write(network: Network, path: str | Path, *, target: str = "onnxruntime") -> Written:
    """Freeze a copy of a placed network (or take a float one) and write it for a runtime.

    The network itself is left as it is: it can be calibrated or trained further and written again.

    Args:
        network: A placed network with ranges, or an untouched captured network.
        path: The model file to write; external data goes beside it.
        target: The runtime.

    Raises:
        SchemeError: K343 when a quantizer has no range.
        TargetError: The network cannot be written.
        OutputError: The file cannot be written.
    """
    written = get_target(target).write(frozen_copy(network))
    destination = Path(path)
    with writing_errors(destination):
        for name, content in written.files.items():
            final = destination if name == written.main else destination.with_name(name)
            partial = final.with_name(final.name + ".partial")
            try:
                partial.write_bytes(content)
                partial.replace(final)
            finally:
                partial.unlink(missing_ok=True)
    return written


def measure(
    model: str | Path | Network | nn.Module,
    data: Iterable[Any],
    metric: str = "top1",
    *,
    against: str | Path | Network | None = None,
    groups: Sequence[Any] | None = None,
    max_drop: float | None = None,
    confidence: float = 0.95,
    target: str = "onnxruntime",
    threads: int = 1,
) -> dict[str, Any]:
    """Score a model file, artifact or network on data, alone or paired against another.

    Args:
        model: An artifact directory, a model file, or a captured network.
        data: Batches of ``(inputs, labels)``.
        metric: The metric.
        against: What to compare with, sample by sample.
        groups: Which group (video, document, patient) each sample belongs to, one label a sample in the order of the
            data; intervals are then over groups.
        max_drop: The largest drop accepted; decides the verdict.
        confidence: Of the interval.
        target: The runtime of model files.
        threads: Threads it may use.

    Returns:
        ``metric``, ``value``, ``n`` (samples counted); without ``against`` the value's ``value_interval`` (``None``
        where there are too few samples), ``value_method`` and ``confidence``; with it ``baseline`` and the fields
        of a comparison.

    Raises:
        UsageError: K600 for a ``max_drop`` that the metric cannot exceed.
        DataError: The data does not fit the model.
        MetricError: The metric cannot judge the outputs, or no sample counts.
    """
    allowed = read_drop(max_drop)
    check_drop(get_metric(metric), allowed)
    first, specs = _runnable(model, target, threads)
    prepared = with_groups(
        prepare(data, specs, needs_labels=get_metric(metric).needs_labels), groups
    )
    runs = {"candidate": first}
    if against is not None:
        runs["float"] = _runnable(against, target, threads)[0]
    scores = evaluate_together(
        runs, prepared, get_metric(metric), reference="float" if against is not None else None
    )
    found: dict[str, Any] = {
        "metric": metric,
        "value": scores["candidate"].value(),
        "n": scores["candidate"].n,
    }
    if against is not None:
        comparison = compare(
            scores["float"].metric, scores["float"], scores["candidate"], allowed, confidence
        )
        found |= {"baseline": scores["float"].value(), **asdict(comparison)}
    else:
        interval = figure_interval(scores["candidate"], confidence)
        found |= {
            "value_interval": None if interval is None else [interval.low, interval.high],
            "value_method": None if interval is None else interval.method,
            "confidence": confidence,
        }
    return found


def load(path: str | Path, *, threads: int = 1) -> Runnable:
    """Load an artifact: every file is verified, then the model is ready to call.

    Args:
        path: The artifact's directory.
        threads: Threads the runtime may use.

    Returns:
        A callable from input arrays by name to output arrays by name.

    Raises:
        ArtifactError: The directory is no artifact, a file changed, or the runtime refuses it.
    """
    artifact = open_artifact(path)
    facts = _target_facts(artifact.manifest)
    target = get_target(facts["name"])
    return target.load(artifact.file(facts["main"]), facts["session_options"], threads)


def replay(path: str | Path) -> GoldenComparison:
    """Run an artifact's golden pack on this machine and compare codes and outputs.

    Args:
        path: The artifact's directory.

    Raises:
        ArtifactError: K520 when the artifact has no golden pack, or it is damaged.
    """
    artifact = open_artifact(path)
    facts, expected = _target_facts(artifact.manifest), artifact.golden()
    if expected is None:
        raise ArtifactError("K531", f"replaying {path}", why="it holds no golden pack")
    target = get_target(facts["name"])
    codes: dict[str, str] = facts["codes"] if target.probe is not None else {}
    model = artifact.file(facts["main"])
    options = facts["session_options"]
    named = list(codes.values())
    session = target.probe(model, options, named) if target.probe else target.load(model, options)
    builder = GoldenBuilder()
    for batch in expected.batches:
        outputs = session(batch.inputs)
        found = {site: outputs.pop(name) for site, name in codes.items()}
        builder.add(batch.inputs, outputs, found, samples=_rows(batch.inputs))
    return compare_golden(expected, builder.pack(), _output_tolerance(artifact.manifest))


def inspect(
    model: nn.Module | Network,
    *,
    example_inputs: Any = None,
    scheme: str | Scheme = "w8a8",
    target: str = "onnxruntime",
    isa: str = "auto",
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    keep_float: Sequence[str] = (),
    calibration: Iterable[Any] | None = None,
) -> list[dict[str, Any]]:
    """Every site of a model: what a scheme would do to it on a target, or why it stays float.

    Args:
        model: A model or captured network.
        example_inputs: Needed for a model.
        scheme: A preset's name, a scheme file, or a scheme.
        target: The runtime.
        isa: Instruction set; ``auto`` is this machine's.
        dynamic: Further dynamic dimensions.
        keep_float: Selectors of layers left in float.
        calibration: Batches of inputs that can be read several times; with them, which layers saturate on processors
            without VNNI is found on data.

    Returns:
        One row a site: ``name``, ``kind``, ``role``, ``format``, ``why_float``, ``why_format``, and for layers
        ``shape``, ``parameters``, ``bytes``, ``macs``; ``pair_sums`` for layers that may saturate on processors
        without VNNI.
    """
    network = (
        model if isinstance(model, Network) else capture(model, example_inputs, dynamic=dynamic)
    )
    wanted = get_scheme(scheme) if isinstance(scheme, str) else scheme
    for select in keep_float:
        wanted = wanted.with_override(select, FLOAT)
    prepared = inference_form(network)
    rules = get_target(target).rules(resolved_isa(isa))
    try:
        placed = place_by_rules(prepared, wanted, rules)
    except SchemeError as error:
        if error.code != "K345":
            raise
        placed = place_by_rules(prepared, float32(), rules)
    placed.meta["rules"] = rules
    found = {entry.layer: entry for entry in _pair_sums(placed, rules, calibration)}
    rows = site_rows(placed, {row.name: row for row in layers(prepared)}, None)
    for row in rows:
        if row["role"] == "weight" and row["name"] in found:
            row["pair_sums"] = found[row["name"]].to_json()
    return rows


def _pair_sums(placed: Network, rules: Rules, data: Iterable[Any] | None) -> list[PairSums]:
    """What saturates without VNNI: on the data, or by the weights alone; ``placed`` gets ranges from the data."""
    if not rules.pair_sums or data is None or not plan_of(placed).taps:
        return pair_sums(placed, (), rules)
    calibrate(placed, data)
    again = prepare(data, placed.input_specs, role="calibration")
    return pair_sums(frozen_copy(placed), _tensors_of(again), rules)


def _tensors_of(batches: Iterable[Batch]) -> Iterator[list[Tensor]]:
    return (list(batch.inputs.values()) for batch in batches)


def _rows(inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
    first = next(iter(inputs.values()))
    return int(first.shape[0]) if first.ndim else 1


def _output_tolerance(manifest: Mapping[str, Any]) -> float:
    """The error of the outputs that the artifact's own certificate accepts, of a right computation elsewhere.

    Where layers find their ranges while they run, last bits move codes: there the certificate states how far two
    right computations drift apart.
    """
    record = manifest.get("record")
    parity = record.get("parity") if isinstance(record, Mapping) else None
    if not isinstance(parity, Mapping):
        return 0.0
    tolerances = parity.get("tolerances")
    accepted = tolerances.get("output_error") if isinstance(tolerances, Mapping) else None
    drift = parity.get("free_running_output_error") if parity.get("dynamic_layers") else None
    known = (value for value in (accepted, drift) if isinstance(value, int | float))
    return max(known, default=0.0)


def _target_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    facts = manifest.get("target")
    wanted = {"name": str, "main": str, "session_options": dict, "codes": dict}
    if not isinstance(facts, dict) or any(
        not isinstance(facts.get(key), kind) for key, kind in wanted.items()
    ):
        raise ArtifactError("K532", "loading an artifact", why="its target is not described")
    return facts


def _runnable(model: Any, target: str, threads: int) -> tuple[Any, Any]:
    """Something to call on arrays by name, and the specs of its inputs."""
    if isinstance(model, Network):
        return (lambda arrays: run_network(model, arrays)), model.input_specs
    path = Path(model)
    if path.is_dir():
        session = load(path, threads=threads)
    elif path.suffix.lower() == ".onnx":
        from kompakt.network.onnx.untrusted import checked_file

        with checked_file(path) as copy:
            session = get_target(target).load(copy, {}, threads)
    else:
        session = get_target(target).load(path, {}, threads)
    return session, session.input_specs


__all__ = [
    "calibrate",
    "inspect",
    "load",
    "measure",
    "place",
    "replay",
    "write",
]
