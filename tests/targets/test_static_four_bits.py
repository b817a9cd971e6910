"""Static weights of 4 bits: half a byte each in the file, integer kernels in the runtime, the referee's own codes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from kompakt.errors import TargetError
from kompakt.measuring.parity import certify
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import place
from kompakt.schemes import Scheme, Treatment, w4a8
from kompakt.targets import TARGETS

from ..nets import ISA, ONNXRUNTIME, batches_for, network, ranged

INT4 = onnx.TensorProto.INT4
NARROW = Scheme(
    name="narrow", default=Treatment(mode="static", weight="int4_narrow", activation="auto8")
)


@pytest.mark.parametrize("scheme", [w4a8(), NARROW], ids=["int4", "narrow"])
@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_integer_kernels_run_on_weights_stored_in_four_bits(
    name: str, scheme: Scheme, tmp_path: Path
) -> None:
    placed, _ = ranged(network(name), scheme, batches_for(name))
    freeze_(placed)
    written = ONNXRUNTIME.write(placed)
    path = written.save(tmp_path)
    stored = {i.name: i for i in onnx.load(str(path)).graph.initializer}
    layers = {path: m for path, m in placed.named_modules() if isinstance(m, Treated)}
    assert layers
    for layer, module in layers.items():
        codes = stored[f"{layer}.weight_codes"]
        assert codes.data_type == INT4
        assert len(codes.raw_data) == (module.weight.numel() + 1) // 2
    executed = ONNXRUNTIME.operators(path, written.options)
    assert executed["QLinearConv"] + executed["QGemm"] == len(layers)
    assert not {"Conv", "Gemm", "MatMul", "Cast"} & set(executed)
    found = certify(placed, written, ONNXRUNTIME, batches_for(name), rules=ONNXRUNTIME.rules(ISA))
    assert found.verdict == "exact"


def test_codes_reach_from_minus_eight_to_seven() -> None:
    placed, _ = ranged(network("plain"), w4a8(), batches_for("plain"))
    layer = placed.get_submodule("b.0")
    assert isinstance(layer, Treated)
    with torch.no_grad():
        layer.weight[0] = -1.0
        layer.weight[1] = 1.0
    freeze_(placed)
    assert layer.weight_codes is not None
    assert layer.weight_codes.dtype == torch.int8
    assert int(layer.weight_codes.min()) >= -8
    assert int(layer.weight_codes[1].max()) == 7


@pytest.mark.parametrize("target", ["openvino", "tensorrt", "coreml"])
def test_runtimes_without_such_kernels_refuse(target: str) -> None:
    with pytest.raises(TargetError) as caught:
        place(network("plain"), w4a8(), TARGETS[target].rules(ISA))
    assert caught.value.code == "K400"
    assert "static weights in int4" in str(caught.value)
