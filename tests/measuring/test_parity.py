"""The parity certificate: faults planted in the written file are found and charged to the site that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import Tensor

from kompakt.errors import DataError
from kompakt.measuring.data import Batch
from kompakt.measuring.parity import Certificate, SiteParity, Tolerances, certify
from kompakt.network.network import Network
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.place import quantizer_calls
from kompakt.schemes import Scheme, float32, fp16, w4, w8, w8a8, w8a8_dynamic, w8a16
from kompakt.targets import Written

from ..nets import ONNXRUNTIME, Deployed, deployed


def certified(
    made: Deployed, written: Written | None = None, tolerances: Tolerances | None = None
) -> Certificate:
    return certify(
        made.placed,
        written or made.written,
        ONNXRUNTIME,
        made.batches,
        rules=made.rules,
        tolerances=tolerances,
    )


def damaged(written: Written, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Written:
    """The same files with one stored tensor changed."""
    model = onnx.load_from_string(written.files["model.onnx"])
    tensor = next(t for t in model.graph.initializer if t.name == name)
    old = numpy_helper.to_array(tensor)
    new = change(old.copy()).astype(old.dtype)
    assert not np.array_equal(new, old)
    tensor.CopyFrom(numpy_helper.from_array(new, name))
    return replace(written, files={"model.onnx": model.SerializeToString()})


def live_channel(made: Deployed, site: str) -> int:
    """The channel of a site with the largest codes: a fault there cannot hide behind a ReLU."""
    seen: dict[str, Tensor] = {}

    def note(name: str, codes: Tensor) -> None:
        seen[name] = codes

    run_in_integers(made.placed, *made.batches[0].inputs.values(), on_codes=note)
    return int(seen[site].float().mean((0, 2, 3)).argmax())


def one_code(before: str, after: str | None) -> Callable[[np.ndarray], np.ndarray]:
    """Change one weight code, between channels that are alive on both sides."""

    def change(values: np.ndarray) -> np.ndarray:
        made = deployed("plain")
        out = live_channel(made, after) if after is not None else 0
        place = (out, live_channel(made, before), *[1] * (values.ndim - 2))
        values[place] += -60 if values[place] > 0 else 60
        return values

    return change


def twelve_per_cent(values: np.ndarray) -> np.ndarray:
    return values * 1.12


# --- sound files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "residual", "mixed concat", "dense 3d", "gate"])
def test_a_sound_integer_file_is_exact(name: str) -> None:
    made = deployed(name)
    found = certified(made)
    assert found.verdict == "exact"
    assert found.first_difference is None
    assert found.samples == 8
    assert [row.site for row in found.rows] == list(quantizer_calls(made.placed))
    assert {row.fed_by for row in found.rows} <= {"integer", "table"}
    assert found.unfused == ()
    assert found.forced.relative_error == found.free_running.relative_error == 0
    assert found.forced.values == 40 * (7 if name == "dense 3d" else 1)


def test_a_float_operator_between_integer_ones_is_held_to_a_tolerance() -> None:
    found = certified(deployed("encoder"))
    assert found.verdict in ("exact", "within tolerance")
    fed = {row.site: row.fed_by for row in found.rows}
    assert fed["x"] == "integer"
    assert fed["stem"] == "integer", "an integer product whose bias is added in float"
    assert fed["block.norm1"] == fed["mean"] == "float"
    assert found.forced.relative_error <= found.tolerances.output_error


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("dense", w8a8_dynamic()),
        ("dense 3d", w8()),
        ("dense", w4(group=16)),
        ("plain", fp16()),
        ("plain", float32()),
    ],
    ids=str,
)
def test_without_codes_only_equal_outputs_are_exact(name: str, scheme: Scheme) -> None:
    found = certified(deployed(name, scheme))
    assert found.rows == ()
    assert found.verdict == ("exact" if found.free_running.differing == 0 else "within tolerance")
    if scheme == w8a8_dynamic():
        assert found.verdict == "exact"


def test_wide_codes_may_be_off_by_the_rounding_of_float_kernels() -> None:
    found = certified(deployed("movers", w8a16()))
    assert found.verdict == "within tolerance"
    assert {row.bits for row in found.rows} == {16}


def test_a_signed_file_is_held_to_what_this_machine_executes() -> None:
    """Where a processor has no signed kernels, the runtime computes in float: that is said, not called a failure."""
    found = certified(deployed("residual", isa="arm"))
    assert found.verdict != "failed"
    fed = {row.site: row.fed_by for row in found.rows}
    assert all(fed[site] == "float" for site in found.unfused)


# --- planted faults ---------------------------------------------------------------------------

FAULTS = {
    "a.0.weight_codes": (one_code("x", "a.2"), "a.2"),
    "b.0.weight_codes": (one_code("a.2", "b.2"), "b.2"),
    "b.0.weight_scale": (twelve_per_cent, "b.2"),
    "b.0.bias_codes": (lambda v: v + np.abs(v).max(), "b.2"),
    "quantizers.a_2.scale": (twelve_per_cent, "a.2"),
    "quantizers.x.zero_point": (lambda v: v + 1, "x"),
    "head.weight_codes": (one_code("mean", None), "output"),
    "head.bias_codes": (lambda v: v + np.abs(v).max(), "output"),
}


@pytest.mark.parametrize("tensor", FAULTS)
def test_a_planted_fault_is_charged_to_the_first_site_that_shows_it(tensor: str) -> None:
    made = deployed("plain")
    change, site = FAULTS[tensor]
    found = certified(made, damaged(made.written, tensor, change))
    assert found.verdict == "failed"
    assert found.first_difference == site
    rows = {row.site: row for row in found.rows}
    if site in rows:
        assert rows[site].differing > 0
        wrong = [row.site for row in found.rows if row.differing]
        after = wrong[wrong.index(site) + 1 :]
        # Teacher-forced, sites behind a wrong one are right, unless they share what is wrong.
        assert tensor.startswith("quantizers") or after == []


def test_a_fault_in_a_shared_scale_is_charged_to_its_first_site() -> None:
    made = deployed("concat")
    call = quantizer_calls(made.placed)["b.2"]
    found = certified(made, damaged(made.written, f"{call.target}.scale", twelve_per_cent))
    assert found.verdict == "failed"
    assert found.first_difference == "b.2"


@pytest.mark.parametrize(
    ("scheme", "tensor"),
    [(w8(), "b.weight_scale"), (fp16(), "b.weight_codes")],
    ids=["weight-only", "fp16"],
)
def test_faults_in_files_without_codes_show_at_the_output(scheme: Scheme, tensor: str) -> None:
    made = deployed("dense", scheme)
    found = certified(made, damaged(made.written, tensor, lambda v: v + (v == v.max())))
    assert found.verdict == "failed"
    assert found.first_difference == "output"


# --- dynamic layers ---------------------------------------------------------------------------

ENCODER_LAYERS = ("stem", "block.self_attn.out_proj", "block.linear1", "block.linear2", "head")


def test_dynamic_layers_are_checked_one_by_one_on_the_runtimes_own_input() -> None:
    made = deployed("encoder", w8a8_dynamic())
    found = certified(made)
    assert found.verdict in ("exact", "within tolerance")
    assert {row.site for row in found.layers} >= set(ENCODER_LAYERS)
    assert all(row.values > 0 and row.kernel for row in found.layers)
    assert max(row.output_error for row in found.layers) <= found.tolerances.layer_error
    assert max(row.input_error for row in found.layers) <= found.tolerances.output_error
    assert found.forced.relative_error <= found.tolerances.output_error
    assert found.probe_operators == {}, "looking does not change what runs"
    data = found.to_json()
    assert data["dynamic_layers"] == len(found.layers)
    assert data["free_running_output_error"] == found.free_running.relative_error
    assert data["forced_output_error"] == found.forced.relative_error


def test_drift_of_a_free_running_referee_is_told_and_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A last-bit difference moves the codes of dynamic layers behind it; each layer itself is right all the same."""
    from kompakt.measuring import parity

    def drifting(placed: Network, *inputs: Tensor, on_codes: object, **rest: object) -> object:
        return run_in_integers(placed, *(x * 1.001 for x in inputs))

    monkeypatch.setattr(parity, "run_in_integers", drifting)
    found = certified(deployed("encoder", w8a8_dynamic()))
    assert found.verdict == "within tolerance"
    assert found.free_running.relative_error > 10 * found.tolerances.output_error
    assert found.free_running.largest > 0
    assert found.forced.relative_error <= found.tolerances.output_error


def one_step(values: np.ndarray) -> np.ndarray:
    """One weight code in a column that is used, one step off."""
    place = np.unravel_index(np.abs(values.astype(np.int32)).argmin(), values.shape)
    values[place] += 1
    return values


def one_channel(values: np.ndarray) -> np.ndarray:
    values[0] *= np.float32(1.0001)
    return values


@pytest.mark.parametrize("layer", ["stem", "block.linear1", "block.linear2", "head"])
@pytest.mark.parametrize(
    ("tensor", "change"),
    [("weight_codes", one_step), ("weight_scale", one_channel), ("bias", one_channel)],
    ids=["weight", "scale", "bias"],
)
def test_a_fault_in_a_dynamic_layer_is_charged_to_it(
    layer: str, tensor: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    made = deployed("encoder", w8a8_dynamic())
    found = certified(made, damaged(made.written, f"{layer}.{tensor}", change))
    assert found.verdict == "failed"
    assert found.first_difference == layer
    assert [r.site for r in found.layers if not r.within(found.tolerances)] == [layer]


def test_a_fault_between_dynamic_layers_is_charged_to_the_next_one() -> None:
    made = deployed("encoder", w8a8_dynamic())
    found = certified(made, damaged(made.written, "block.norm1.weight", one_channel))
    assert found.verdict == "failed"
    assert found.first_difference == "block.linear1"


def test_a_dynamic_layer_nobody_can_see_fails() -> None:
    made = deployed("dense", w8a8_dynamic())
    hidden = {name: at for name, at in made.written.dynamic.items() if name != "b"}
    found = certified(made, replace(made.written, dynamic=hidden))
    assert (found.verdict, found.first_difference) == ("failed", "b")


@pytest.mark.slow
def test_dynamic_layers_are_found_in_what_torch_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow way to write a network names its values otherwise."""
    made = deployed("dense 3d", w8a8_dynamic())
    monkeypatch.setattr("kompakt.targets.onnx_export.emitted_or_none", lambda network: None)
    found = certified(made, ONNXRUNTIME.write(made.placed))
    assert found.verdict == "exact"
    assert [row.site for row in found.layers] == ["a", "b", "c"]


def test_static_and_dynamic_layers_in_one_file() -> None:
    made = deployed("encoder", w8a8().with_override("block.linear*", w8a8_dynamic().default))
    found = certified(made)
    assert found.verdict in ("exact", "within tolerance")
    assert {row.site for row in found.layers} == {"block.linear1", "block.linear2"}
    assert found.rows
    wrong = certified(made, damaged(made.written, "block.linear2.bias", one_channel))
    assert wrong.first_difference == "block.linear2"


def test_a_fault_behind_a_float_operator_is_found() -> None:
    made = deployed("encoder")
    found = certified(
        made, damaged(made.written, "block.norm1.weight", lambda v: v * np.float32(1.3))
    )
    assert found.verdict == "failed"
    assert found.first_difference == "block.norm1"


# --- tolerances -------------------------------------------------------------------------------


def row(**settings: object) -> SiteParity:
    return SiteParity(**{"site": "s", "fed_by": "float", "codes": 10_000, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "accepted"),
    [
        (row(), True),
        (row(differing=10, largest=1), True),
        (row(differing=11, largest=1), False),
        (row(differing=1, largest=2), False),
        (row(codes=20, differing=1, largest=1), True),
        (row(codes=20, differing=2, largest=1), False),
        (row(fed_by="integer", differing=1, largest=1), False),
        (row(fed_by="integer"), True),
        (row(fed_by="table", differing=500, largest=1), True),
        (row(fed_by="table", differing=501, largest=1), False),
        (row(fed_by="table", differing=5, largest=2), False),
        (row(bits=16, differing=9_000, largest=2), True),
        (row(bits=16, differing=1, largest=3), False),
    ],
)
def test_what_a_certificate_accepts(case: SiteParity, accepted: bool) -> None:
    assert case.within(Tolerances()) is accepted


def test_rows_add_up() -> None:
    total = row(codes=0).add(np.array([1, 2, 3], np.uint8), np.array([1, 255, 0], np.uint8))
    total = total.add(np.array([-128], np.int8), np.array([127], np.int8))
    assert (total.codes, total.differing, total.largest) == (4, 3, 255)


def test_tighter_tolerances_are_kept() -> None:
    made = deployed("dense", fp16())
    assert certified(made, tolerances=Tolerances(output_error=0.0)).verdict in ("exact", "failed")


def test_nothing_to_compare_is_an_error() -> None:
    made = deployed("plain")
    with pytest.raises(DataError) as caught:
        certify(made.placed, made.written, ONNXRUNTIME, [], rules=made.rules)
    assert caught.value.code == "K203"


def test_the_record_of_a_certificate() -> None:
    data = certified(deployed("plain")).to_json()
    assert data["verdict"] == "exact"
    assert data["quantizers"] == 4
    assert data["codes"] == sum(r["codes"] for r in data["rows"])
    assert data["differing_quantizers"] == data["differing_codes"] == 0
    assert data["fused_operators"]["QLinearConv"] == 2
    assert data["unfused"] == []
    assert set(data["rows"][0]) >= {"site", "codes", "differing", "largest", "fed_by"}


def test_samples_of_several_batches_count() -> None:
    made = deployed("plain")
    one = made.batches[0]
    small = Batch({"x": one.inputs["x"][:1]}, None, 1)
    found = certify(made.placed, made.written, ONNXRUNTIME, [one, small], rules=made.rules)
    assert found.samples == 5
