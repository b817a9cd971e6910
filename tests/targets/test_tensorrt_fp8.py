"""FP8 for TensorRT: E4M3 pairs by its rules, the simulation's numbers in ONNX Runtime; other targets refuse it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from kompakt.errors import TargetError
from kompakt.measuring.parity import certify
from kompakt.network.capture import capture
from kompakt.network.onnx import import_onnx
from kompakt.network.rewrites import inference_form
from kompakt.numerics.granularity import PerGroup
from kompakt.quantize import METHODS
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import place, quantizer_calls
from kompakt.schemes import Scheme, Treatment, float32, fp8, w8a8
from kompakt.targets import TARGETS
from kompakt.targets.tensorrt_rules import check_model

from ..nets import MODELS, Deployed, batches_for, deploy, deployed, inputs, network, ranged

TENSORRT = TARGETS["tensorrt"]
RULES = TENSORRT.rules("x86-vnni")
E4M3 = ml_dtypes.float8_e4m3fn
STATIC = [name for name in MODELS if name not in ("words", "recurrent")]


def made(name: str) -> Deployed:
    return deployed(name, fp8(), target="tensorrt")


def model(name: str) -> ModelProto:
    return onnx.load_from_string(made(name).written.files["model.onnx"])


@pytest.mark.parametrize("name", STATIC)
def test_the_file_makes_the_codes_and_outputs_of_the_simulation(name: str, tmp_path: Path) -> None:
    deployment = made(name)
    path, codes = deployment.written.save(tmp_path), deployment.written.codes
    x = inputs(name, seed=5)
    feeds = {deployment.network.input_specs[0].name: x.numpy()}
    assert set(codes) == set(quantizer_calls(deployment.placed))
    assert TENSORRT.probe is not None
    found = TENSORRT.probe(path, deployment.written.options, list(codes.values()))(feeds)

    def compare(site: str, simulated: Tensor) -> None:
        np.testing.assert_array_equal(found[codes[site]], simulated.numpy(), site)

    referee = run_in_integers(deployment.placed, x, on_codes=compare)
    with torch.no_grad():
        simulated = deployment.placed(x)
        plain = deployment.network(x)
    output = next(iter(TENSORRT.load(path, deployment.written.options)(feeds).values()))
    for other in (simulated, torch.utils._pytree.tree_leaves(referee)[0]):
        np.testing.assert_allclose(output, other.numpy(), rtol=1e-5, atol=1e-6)
    assert float((simulated - plain).norm() / plain.norm()) < 0.1


@pytest.mark.parametrize("name", STATIC)
def test_the_file_keeps_every_rule_and_holds_e4m3_only(name: str) -> None:
    found = model(name)
    onnx.checker.check_model(found)
    assert check_model(found) == []
    assert max(o.version for o in found.opset_import if not o.domain) >= 19
    stored = {t.name: t for t in found.graph.initializer}
    pairs = [n for n in found.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert any(n.op_type == "QuantizeLinear" for n in pairs)
    for node in pairs:
        zero = stored[node.input[2]]
        assert zero.data_type == TensorProto.FLOAT8E4M3FN
        assert not any(zero.raw_data)
    layers = [m for m in made(name).placed.modules() if isinstance(m, Treated)]
    weights = [t for t in stored.values() if t.data_type == TensorProto.FLOAT8E4M3FN and t.dims]
    assert sum(len(t.dims) > 1 for t in weights) >= len({id(m.weight) for m in layers})


def test_weights_are_stored_as_an_independent_cast_makes_them() -> None:
    deployment = made("dense")
    stored = {t.name: t for t in model("dense").graph.initializer}
    path, layer = next(
        (p, m) for p, m in deployment.placed.named_modules() if isinstance(m, Treated)
    )
    weight = layer.weight.detach().numpy()
    scale = np.abs(weight).max(1, keepdims=True) / np.float32(448)
    wanted = np.clip(weight / scale, -448, 448).astype(E4M3).view(np.uint8)
    found = np.frombuffer(stored[f"{path}.weight_codes"].raw_data, np.uint8)
    shape = tuple(stored[f"{path}.weight_codes"].dims)
    wanted = wanted if shape == wanted.shape else wanted.T
    np.testing.assert_array_equal(found.reshape(shape), wanted)


def test_the_certificate_is_exact() -> None:
    deployment = made("residual")
    batches = batches_for("residual", seed=7)
    found = certify(
        deployment.placed, deployment.written, TENSORRT, batches, rules=deployment.rules
    )
    assert found.verdict != "failed", found.first_difference
    assert found.free_running_differing == 0


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"tensorrt"}))
def test_other_targets_refuse_it(target: str) -> None:
    with pytest.raises(TargetError, match="fp8_e4m3") as caught:
        place(network("plain"), fp8(), TARGETS[target].rules("x86-vnni"))
    assert caught.value.code == "K400"
    assert "it executes" in caught.value.help


WEIGHTS_ALONE = Scheme(name="weights", default=Treatment(mode="weight_only", weight="fp8_e4m3"))


@pytest.mark.parametrize("name", ["plain", "dense", "encoder"])
def test_weights_alone_are_decoded_before_float_products(name: str, tmp_path: Path) -> None:
    deployment = deployed(name, WEIGHTS_ALONE, target="tensorrt")
    found = onnx.load_from_string(deployment.written.files["model.onnx"])
    kinds = {n.op_type for n in found.graph.node}
    assert "DequantizeLinear" in kinds
    assert "QuantizeLinear" not in kinds
    errors = [v for v in check_model(found) if v.severity == "error"]
    assert errors == []
    x = inputs(name, seed=5)
    feeds = {deployment.network.input_specs[0].name: x.numpy()}
    path = deployment.written.save(tmp_path)
    output = next(iter(TENSORRT.load(path, deployment.written.options)(feeds).values()))
    with torch.no_grad():
        simulated = deployment.placed(x).numpy()
    np.testing.assert_allclose(output, simulated, rtol=1e-5, atol=1e-6)


def test_groups_of_weights_are_refused() -> None:
    grouped = Treatment(mode="weight_only", weight="fp8_e4m3", granularity=PerGroup(1, 64))
    wide = inference_form(capture(nn.Sequential(nn.Linear(128, 8)).eval(), torch.zeros(2, 128)))
    done = freeze_(place(wide, Scheme(name="groups", default=grouped), RULES))
    with pytest.raises(TargetError) as caught:
        TENSORRT.write(done)
    assert caught.value.code == "K400"


def test_an_onnx_file_becomes_fp8_under_its_own_names(tmp_path: Path) -> None:
    plain = deployed("residual", float32(), target="onnxruntime")
    (tmp_path / "float").mkdir()
    source = import_onnx(plain.written.save(tmp_path / "float"))
    deployment = deploy(source, batches_for("residual"), fp8(), target="tensorrt")
    found = onnx.load_from_string(deployment.written.files["model.onnx"])
    assert check_model(found) == []
    x = inputs("residual", seed=5)
    feeds = {source.input_specs[0].name: x.numpy()}
    path = deployment.written.save(tmp_path)
    output = next(iter(TENSORRT.load(path, deployment.written.options)(feeds).values()))
    with torch.no_grad():
        simulated = torch.utils._pytree.tree_leaves(deployment.placed(x))[0].numpy()
    np.testing.assert_allclose(output, simulated, rtol=1e-5, atol=1e-6)


FP8_LAYER = Treatment(mode="static", weight="fp8_e4m3", activation="fp8_e4m3")
MIXED = {
    "weights": Treatment(mode="static", weight="fp8_e4m3", activation="auto8"),
    "activations": Treatment(mode="static", weight="int8", activation="fp8_e4m3"),
    "in groups": Treatment(mode="weight_only", weight="fp8_e4m3", granularity=PerGroup(1, 32)),
}


@pytest.mark.parametrize("treatment", MIXED.values(), ids=list(MIXED))
def test_floats_and_integers_are_not_multiplied(treatment: Treatment) -> None:
    with pytest.raises(TargetError) as caught:
        place(network("plain"), Scheme(name="mixed", default=treatment), RULES)
    assert caught.value.code == "K400"


def test_one_tensor_has_one_kind_of_codes() -> None:
    with pytest.raises(TargetError, match="one tensor") as caught:
        place(network("residual"), w8a8().with_override("b.*", FP8_LAYER), RULES)
    assert caught.value.code == "K400"


GRIDS = ("weight_ranges", "gptq", "adaround", "reconstruction")
"""Methods that choose roundings or grids of integers."""


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.works_on == "placed"])
def test_methods_leave_weights_on_its_grid_alone(name: str) -> None:
    plain, calibration = network("dense"), batches_for("dense")
    done, _ = ranged(plain, fp8(), calibration, target="tensorrt")
    before = {key: value.clone() for key, value in done.named_parameters()}
    batches = [list(batch.inputs.values()) for batch in calibration]
    METHODS[name].run(done, plain, batches)  # type: ignore[call-arg,arg-type]
    for key, value in done.named_parameters():
        assert torch.equal(value, before[key]) or (name not in GRIDS and "bias" in key), key
    x = inputs("dense", seed=3)
    with torch.no_grad():
        assert float((done(x) - plain(x)).norm() / plain(x).norm()) < 0.1


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.works_on == "float"])
def test_methods_on_the_float_network_know_the_scheme(name: str) -> None:
    plain = network("encoder")
    batches = [list(batch.inputs.values()) for batch in batches_for("encoder")]
    changed, _ = METHODS[name].run(plain, fp8(), RULES, batches)  # type: ignore[misc,call-arg,arg-type]
    done, _ = ranged(changed, fp8(), batches_for("encoder"), target="tensorrt")
    x = inputs("encoder", seed=3)
    with torch.no_grad():
        assert float((done(x) - plain(x)).norm() / plain(x).norm()) < 0.2


def _first(found: ModelProto, kind: str) -> NodeProto:
    return next(n for n in found.graph.node if n.op_type == kind)


def _store(found: ModelProto, tensor: TensorProto) -> str:
    found.graph.initializer.append(tensor)
    return tensor.name


def _moved_zero(found: ModelProto) -> None:
    one = helper.make_tensor("one", TensorProto.FLOAT8E4M3FN, [], b"\x38", raw=True)
    _first(found, "QuantizeLinear").input[2] = _store(found, one)


def _other_codes(found: ModelProto) -> None:
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E5M2, [], b"\0", raw=True)
    _first(found, "QuantizeLinear").input[2] = _store(found, zero)


def _old_opset(found: ModelProto) -> None:
    del found.opset_import[:]
    found.opset_import.append(helper.make_opsetid("", 17))


def _negative_scale(found: ModelProto) -> None:
    scale = numpy_helper.from_array(np.float32(-0.5), "negative")
    _first(found, "QuantizeLinear").input[1] = _store(found, scale)


PLANTS: dict[str, Callable[[ModelProto], None]] = {
    "zero-point": _moved_zero,
    "code-type": _other_codes,
    "opset": _old_opset,
    "scale-positive": _negative_scale,
}


@pytest.mark.parametrize("rule", PLANTS)
def test_planted_violations_are_found(rule: str) -> None:
    found = model("residual")
    PLANTS[rule](found)
    assert any(violation.rule.startswith(rule) for violation in check_model(found))
