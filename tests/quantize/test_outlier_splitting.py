"""Outlier splitting leaves the function as it was and narrows the range behind an activation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.network.onnx import import_onnx
from kompakt.network.rewrites import inference_form
from kompakt.quantize.outlier_splitting import split_outliers
from kompakt.quantize.redundant import redundant_activations
from kompakt.schemes import w8a8

from ..nets import ISA, ONNXRUNTIME, Batch, deploy

RULES = ONNXRUNTIME.rules(ISA)
WIDTH = 256


class FeedForward(nn.Module):
    """Two linear layers with an activation between; one channel is many times larger than the others."""

    def __init__(self, activation: Callable[[Tensor], Tensor], size: float = 12.0) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, WIDTH), nn.Linear(WIDTH, 8)
        self.activation = activation
        with torch.no_grad():
            self.up.weight[5] *= size
            self.down.weight[:, 5] /= size

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


def erf_gelu(x: Tensor) -> Tensor:
    """GELU in its five operators, as many ONNX files have it."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def network_of(model: nn.Module, x: Tensor) -> Network:
    return inference_form(capture(model.eval(), x))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(256, 16, generator=torch.Generator().manual_seed(0))


def made(activation: Callable[[Tensor], Tensor], x: Tensor, size: float = 12.0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network_of(FeedForward(activation, size), x)


def placed_with_error(network: Network, reference: Network, x: Tensor) -> tuple[Network, float]:
    placed = deploy(network, [Batch({"x": x}, None, len(x))], w8a8()).placed
    with torch.no_grad():
        return placed, float((placed(x) - reference(x)).norm() / reference(x).norm())


@pytest.mark.parametrize("activation", [F.relu, F.gelu, erf_gelu], ids=["relu", "gelu", "erf"])
def test_the_function_stays_and_less_is_lost(
    activation: Callable[[Tensor], Tensor], x: Tensor
) -> None:
    network = made(activation, x)
    split, count = split_outliers(network, w8a8(), RULES, [[x]])
    assert count == 1
    assert split.get_submodule("up").out_features > WIDTH
    assert network.get_submodule("up").out_features == WIDTH  # the one given stays
    with torch.no_grad():
        off = (split(x) - network(x)).norm() / network(x).norm()
    assert float(off) < (1e-5 if activation is F.relu else 0.01)
    _, plain = placed_with_error(network, network, x)
    _, less = placed_with_error(split, network, x)
    assert less < 0.7 * plain


def test_the_quantizer_does_the_clamping(x: Tensor) -> None:
    network = made(F.gelu, x)
    split, _ = split_outliers(network, w8a8(), RULES, [[x]])
    placed, _ = placed_with_error(split, network, x)
    clamps = {n for n in placed.graph.nodes if n.op == "call_function" and "clamp" in n.name}
    assert len(clamps) == 1
    assert clamps == redundant_activations(placed)


def test_values_beyond_the_samples_are_still_carried(x: Tensor) -> None:
    network = made(F.gelu, x)
    split, _ = split_outliers(network, w8a8(), RULES, [[x]])
    with torch.no_grad():
        further = 1.05 * x
        off = (split(further) - network(further)).norm() / network(further).norm()
    assert float(off) < 0.02


@pytest.mark.parametrize("activation", [torch.tanh, torch.sigmoid, F.relu6])
def test_functions_that_end_are_not_split(
    activation: Callable[[Tensor], Tensor], x: Tensor
) -> None:
    assert split_outliers(made(activation, x), w8a8(), RULES, [[x]])[1] == 0


def test_nothing_is_split_without_outliers_or_samples(x: Tensor) -> None:
    assert split_outliers(made(F.gelu, x, size=1.0), w8a8(), RULES, [[x]])[1] == 0
    assert split_outliers(made(F.gelu, x), w8a8(), RULES, [])[1] == 0


def test_a_tensor_that_others_read_is_left_alone(x: Tensor) -> None:
    class Read(FeedForward):
        def forward(self, x: Tensor) -> Tensor:
            y = F.gelu(self.up(x))
            return self.down(y) + y[:, :8]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network_of(Read(F.gelu), x)
    assert split_outliers(network, w8a8(), RULES, [[x]])[1] == 0


def onnx_file(model: FeedForward, folder: Path) -> Path:
    """The same as other tools write it: products with biases added behind them, GELU in five operators."""
    arrays = {
        "w1": model.up.weight.detach().numpy().T.copy(),
        "b1": model.up.bias.detach().numpy(),
        "w2": model.down.weight.detach().numpy().T.copy(),
        "b2": model.down.bias.detach().numpy(),
        **{n: np.float32(v) for n, v in {"half": 0.5, "one": 1, "root": math.sqrt(2)}.items()},
    }
    steps = [
        *("MatMul x w1 m", "Add m b1 u", "Div u root d", "Erf d e", "Add e one f", "Mul u f g"),
        *("Mul g half h", "MatMul h w2 n", "Add n b2 y"),
    ]
    nodes = [
        helper.make_node(kind, names[:-1], names[-1:]) for kind, *names in map(str.split, steps)
    ]
    batch = ["batch"]
    graph = helper.make_graph(
        nodes,
        "feed_forward",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*batch, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*batch, 8])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    path = folder / "model.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(made), path)
    return path


def test_an_imported_file_is_split_and_its_file_runs(tmp_path: Path, x: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FeedForward(F.gelu)
    network = inference_form(import_onnx(onnx_file(model, tmp_path)))
    split, count = split_outliers(network, w8a8(), RULES, [[x]])
    assert count == 1
    with torch.no_grad():
        assert float((split(x) - network(x)).norm() / network(x).norm()) < 0.01
    deployment = deploy(split, [Batch({"x": x}, None, len(x))], w8a8())
    (tmp_path / "out").mkdir()
    path = deployment.written.save(tmp_path / "out")
    found = ONNXRUNTIME.load(path, deployment.written.options)({"x": x.numpy()})["y"]
    with torch.no_grad():
        exact = model(x).numpy()
    assert np.linalg.norm(found - exact) < 0.03 * np.linalg.norm(exact)
