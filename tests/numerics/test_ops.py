from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kompakt.errors import SchemeError
from kompakt.numerics import ops, reference
from kompakt.numerics.affine import quantize
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerChannel, PerGroup, PerTensor
from kompakt.numerics.rounding import ROUNDINGS

K = torch.ops.kompakt
DTYPES = {"uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "uint16": torch.uint16}


def parameters(name: str, channels: int | None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    fmt = get_format(name)
    shape = () if channels is None else (channels,)
    zero = torch.randint(fmt.qmin, fmt.qmax + 1, shape, generator=generator)
    return torch.rand(shape, generator=generator) * 0.1 + 0.01, zero.to(DTYPES[name])


def image(shape: tuple[int, ...] = (2, 3, 4, 5)) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-300, 300, shape, generator=generator) / 127.5


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("axis", [ops.PER_TENSOR, 1, -3])
def test_quantize_and_dequantize_equal_the_referee(name: str, axis: int) -> None:
    fmt, x = get_format(name), image()
    granularity = PerTensor() if axis == ops.PER_TENSOR else PerChannel(axis)
    scale, zero = parameters(name, None if axis == ops.PER_TENSOR else 3)
    codes = K.quantize(x, scale, zero, fmt.qmin, fmt.qmax, axis)
    assert codes.dtype == zero.dtype
    numpy = scale.numpy(), zero.numpy()
    expected = reference.quantize(x.numpy(), *numpy, fmt.qmin, fmt.qmax, granularity)
    assert np.array_equal(codes.numpy(), expected)
    back = K.dequantize(codes, scale, zero, axis)
    assert np.array_equal(back.numpy(), reference.dequantize(expected, *numpy, granularity))
    assert torch.equal(K.qdq(x, scale, zero, fmt.qmin, fmt.qmax, axis), back)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_qdq_uses_the_named_rounding(rounding: str) -> None:
    fmt, x = get_format("int8"), torch.arange(256) / 255
    scale, zero = torch.tensor(1 / 127.5), torch.tensor(-1, dtype=torch.int8)
    codes = quantize(x, scale, zero, fmt, PerTensor(), rounding)
    expected = K.dequantize(codes, scale, zero)
    assert torch.equal(
        K.qdq(x, scale, zero, fmt.qmin, fmt.qmax, ops.PER_TENSOR, rounding), expected
    )


def test_qdq_refuses_an_unknown_rounding() -> None:
    with pytest.raises(SchemeError, match="K304"):
        K.qdq(torch.ones(2), torch.tensor(1.0), torch.tensor(0), 0, 9, ops.PER_TENSOR, "floor")


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 17), st.booleans())
def test_blocked_dequantize_equals_groups(
    columns: int, rows: int, block: int, with_zero: bool
) -> None:
    generator = torch.Generator().manual_seed(rows)
    q = torch.randint(-8, 8, (rows, columns), generator=generator, dtype=torch.int8)
    groups = -(-rows // block)
    scale = torch.rand((groups, columns), generator=generator) + 0.1
    zero = torch.randint(-8, 8, (groups, columns), generator=generator, dtype=torch.int8)
    result = K.dequantize_blocked(q, scale, zero if with_zero else None, 0, block)
    expected = reference.dequantize(
        q.numpy(),
        scale.numpy(),
        zero.numpy() if with_zero else np.zeros_like(zero.numpy()),
        PerGroup(0, block),
    )
    assert np.array_equal(result.numpy(), expected)


def test_blocked_dequantize_is_onnx_runtimes(run_kernel) -> None:
    rng = np.random.default_rng(0)
    q = rng.integers(-128, 128, (70, 5), dtype=np.int8)
    scale = rng.uniform(0.01, 1, (3, 5)).astype(np.float32)
    zero = rng.integers(-128, 128, (3, 5), dtype=np.int8)
    (theirs,) = run_kernel("DequantizeLinear", [q, scale, zero], ["float32"], axis=0, block_size=32)
    tensors = (torch.from_numpy(a) for a in (q, scale, zero))
    assert np.array_equal(K.dequantize_blocked(*tensors, 0, 32).numpy(), theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("axis", [ops.PER_TENSOR, 1])
def test_opcheck(memory_format: torch.memory_format, axis: int) -> None:
    scale, zero = parameters("uint8", None if axis == ops.PER_TENSOR else 3)
    x = image().to(memory_format=memory_format)
    q = K.quantize(x, scale, zero, 0, 255, axis)
    torch.library.opcheck(K.quantize.default, (x, scale, zero, 0, 255, axis))
    torch.library.opcheck(K.dequantize.default, (q, scale, zero, axis))
    for rounding in ROUNDINGS:
        sample = x.detach().clone().requires_grad_()
        torch.library.opcheck(K.qdq.default, (sample, scale, zero, 0, 255, axis, rounding))


@pytest.mark.parametrize("with_zero", [False, True])
def test_opcheck_blocked(with_zero: bool) -> None:
    q = torch.zeros(70, 4, dtype=torch.int8)
    zero = torch.zeros(3, 4, dtype=torch.int8) if with_zero else None
    torch.library.opcheck(K.dequantize_blocked.default, (q, torch.rand(3, 4), zero, 0, 32))


def test_gradient_passes_inside_and_stops_where_clipped() -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 0.996, 1.0, 5.0], requires_grad=True)
    scale, zero = torch.tensor(1 / 128), torch.tensor(0, dtype=torch.int8)
    K.qdq(x, scale, zero, -128, 127).backward(torch.arange(1.0, 7.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0, 0.0]


def test_scale_gets_no_gradient_from_qdq() -> None:
    x, scale = torch.ones(3, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    K.qdq(x, scale, torch.tensor(0), -128, 127).sum().backward()
    assert scale.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_qdq_keeps_the_dtype_and_computes_in_float32(dtype: torch.dtype) -> None:
    x = image().to(dtype)
    scale, zero = torch.tensor(0.05), torch.tensor(3, dtype=torch.uint8)
    result = K.qdq(x, scale, zero, 0, 255)
    assert result.dtype == dtype
    assert torch.equal(result, K.qdq(x.float(), scale, zero, 0, 255).to(dtype))


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        scale, zero = parameters("uint8", 3)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)
        self.conv = torch.nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = K.qdq(x, self.scale, self.zero, 0, 255, 1)
        x = K.dequantize(K.quantize(x, self.scale, self.zero, 0, 255, 1), self.scale, self.zero, 1)
        return self.conv(x)


class TrainingNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(K.qdq(x, self.scale, self.zero, 0, 255, 1))


def test_compiles_as_one_graph_with_its_gradient() -> None:
    net, x = TrainingNet(), image()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    results = []
    for function in (net, compiled):
        sample = x.clone().requires_grad_()
        function(sample).sum().backward()
        results.append(sample.grad)
    assert torch.equal(net(x), compiled(x))
    assert torch.equal(results[0], results[1])


def test_exports_as_single_nodes_with_a_dynamic_batch() -> None:
    net, x = Net().eval(), image()
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets[:3] == [K.qdq.default, K.quantize.default, K.dequantize.default]
    bigger = image((5, 3, 4, 5))
    assert torch.equal(program.module()(bigger), net(bigger))


def test_importing_again_registers_nothing_twice() -> None:
    importlib.reload(ops)
    old = sys.modules.pop("kompakt.numerics.ops")
    importlib.import_module("kompakt.numerics.ops")
    sys.modules["kompakt.numerics.ops"] = old
    result = K.qdq(torch.tensor([0.24]), torch.tensor(0.5), torch.tensor(0), -128, 127)
    assert result.tolist() == [0.0]


def test_wide_codes_are_subtracted_before_they_are_rounded() -> None:
    """An int32 bias: 2²⁴ + 1 is no float32, its distance from the zero point is."""
    q = torch.tensor([2**24 + 1], dtype=torch.int32)
    scale, zero = torch.tensor(0.5), torch.tensor(2**24, dtype=torch.int32)
    assert K.dequantize(q, scale, zero).tolist() == [0.5]


def test_blocked_dequantize_of_unsigned_sixteen_bit_codes() -> None:
    q = torch.tensor([[65535], [1], [2]], dtype=torch.int32).to(torch.uint16)
    zero = torch.tensor([[65534], [3]], dtype=torch.int32).to(torch.uint16)
    result = K.dequantize_blocked(q, torch.tensor([[2.0], [1.0]]), zero, 0, 2)
    assert result.tolist() == [[2.0], [-131066.0], [-1.0]]
