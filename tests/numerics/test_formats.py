from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from kompakt.errors import SchemeError
from kompakt.numerics.formats import FORMATS, get_format, integer_format


@pytest.mark.parametrize("bits", range(1, 17))
def test_integer_ranges(bits: int) -> None:
    signed, unsigned = get_format(f"int{bits}"), get_format(f"uint{bits}")
    assert (signed.qmin, signed.qmax) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert (unsigned.qmin, unsigned.qmax) == (0, 2**bits - 1)
    assert signed.levels == unsigned.levels == 2**bits
    for fmt in (signed, unsigned):
        limits = torch.iinfo(fmt.torch_dtype)
        assert limits.min <= fmt.qmin < fmt.qmax <= limits.max
        assert limits.bits == (8 if bits <= 8 else 16)
        assert (limits.min < 0) == fmt.signed


@pytest.mark.parametrize("bits", range(2, 17))
def test_narrow_formats_are_symmetric(bits: int) -> None:
    narrow = get_format(f"int{bits}_narrow")
    assert narrow.is_narrow
    assert narrow.qmin == -narrow.qmax == get_format(f"int{bits}").qmin + 1
    assert not get_format(f"int{bits}").is_narrow


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
        ("fp8_e4m3", torch.float8_e4m3fn),
        ("fp8_e5m2", torch.float8_e5m2),
    ],
)
def test_float_limits_are_those_of_the_dtype(name: str, dtype: torch.dtype) -> None:
    fmt = get_format(name)
    assert fmt.torch_dtype is dtype
    assert float(fmt.qmax) == torch.finfo(dtype).max
    assert fmt.qmin == -fmt.qmax
    assert fmt.bits == torch.finfo(dtype).bits


def test_every_registered_format_is_found_by_its_own_name() -> None:
    for name, fmt in FORMATS.items():
        assert get_format(name) is fmt
        assert str(fmt) == fmt.name == name


def test_formats_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_format("int8").bits = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("itn8", "int8"),
        ("INT8", "int8"),
        ("fp8", "fp8_e4m3"),
        ("bfloat16", "bf16"),
        ("uint4_narow", "int4_narrow"),
        ("", "int1"),
    ],
)
def test_unknown_names_suggest_close_ones(name: str, hint: str) -> None:
    with pytest.raises(SchemeError) as caught:
        get_format(name)
    assert caught.value.code == "K300"
    assert hint in caught.value.help


@pytest.mark.parametrize(
    "name", ["int17", "uint32", "uint4_narrow", "int1_narrow", "int0", "int08"]
)
def test_impossible_formats_are_refused(name: str) -> None:
    with pytest.raises(SchemeError) as caught:
        get_format(name)
    assert caught.value.code == "K300"


def test_integer_format_refuses_zero_bits() -> None:
    with pytest.raises(SchemeError, match="int0"):
        integer_format(0, signed=True)


def test_looking_up_a_format_does_not_import_torch() -> None:
    code = (
        "import sys; from kompakt.numerics import get_format, PerGroup; get_format('int4');"
        "PerGroup(1, 32); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_curated_names_all_exist() -> None:
    import kompakt.numerics as numerics

    for name in numerics.__all__:
        assert getattr(numerics, name) is not None
    assert set(dir(numerics)) == set(numerics.__all__)
    with pytest.raises(AttributeError):
        numerics.nothing  # noqa: B018


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"])
def test_limits_are_exact_integers(name: str) -> None:
    fmt = get_format(name)
    assert torch.tensor(float(fmt.qmax)).to(fmt.torch_dtype).float().item() == float(fmt.qmax)
    assert np.float64(fmt.qmax) == float(fmt.qmax)
