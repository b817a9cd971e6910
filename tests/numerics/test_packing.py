from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from kompakt.errors import NumericsError
from kompakt.numerics.formats import get_format
from kompakt.numerics.packing import pack, unpack

NAMES = ["int4", "uint4", "int2", "uint2", "int4_narrow", "int2_narrow"]
ONNX_TYPES = {"int4": "INT4", "uint4": "UINT4", "int2": "INT2", "uint2": "UINT2"}


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_round_trip_of_any_length(name: str, data: st.DataObject) -> None:
    fmt = get_format(name)
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=3)))
    count = int(np.prod(shape))
    codes = data.draw(st.lists(st.integers(fmt.qmin, fmt.qmax), min_size=count, max_size=count))
    tensor = torch.tensor(codes, dtype=fmt.torch_dtype).reshape(shape)
    packed = pack(tensor, fmt)
    assert packed.dtype == torch.uint8
    assert packed.shape == (-(-count * fmt.bits // 8),)
    back = unpack(packed, fmt, shape)
    assert back.dtype == fmt.torch_dtype
    assert torch.equal(back, tensor)


def test_the_first_code_is_in_the_low_bits() -> None:
    assert pack(torch.tensor([1, 2, 3]), get_format("uint4")).tolist() == [0x21, 0x03]
    assert pack(torch.tensor([-1, 7, -8]), get_format("int4")).tolist() == [0x7F, 0x08]
    assert pack(torch.tensor([0, 1, 2, 3, 1]), get_format("uint2")).tolist() == [0b11100100, 1]


@pytest.mark.parametrize("name", ONNX_TYPES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 33])
def test_the_order_is_onnxs(name: str, count: int) -> None:
    kind = getattr(TensorProto, ONNX_TYPES[name], None)
    if kind is None:
        pytest.skip(f"this onnx has no {ONNX_TYPES[name]}")
    fmt = get_format(name)
    rng = np.random.default_rng(count)
    codes = torch.from_numpy(rng.integers(fmt.qmin, fmt.qmax + 1, count))
    raw = pack(codes, fmt).numpy().tobytes()
    tensor = helper.make_tensor("codes", kind, [count], raw, raw=True)
    assert onnx.numpy_helper.to_array(tensor).astype(np.int32).tolist() == codes.tolist()


@pytest.mark.parametrize("bad", [-9, 8, 300])
def test_codes_outside_the_format_are_refused(bad: int) -> None:
    with pytest.raises(NumericsError, match="int4") as caught:
        pack(torch.tensor([0, bad]), get_format("int4"))
    assert caught.value.code == "K306"


@pytest.mark.parametrize("name", ["int8", "uint3", "fp8_e4m3", "int16"])
def test_other_formats_are_not_packed(name: str) -> None:
    with pytest.raises(NumericsError, match="K306"):
        pack(torch.zeros(2), get_format(name))


@pytest.mark.parametrize("packed", [torch.zeros(2, dtype=torch.uint8), torch.zeros(1, 3)])
def test_bytes_that_do_not_fit_the_shape_are_refused(packed: torch.Tensor) -> None:
    with pytest.raises(NumericsError, match=r"\(5,\)") as caught:
        unpack(packed, get_format("int4"), (5,))
    assert caught.value.code == "K306"
    assert "3 bytes" in caught.value.why
