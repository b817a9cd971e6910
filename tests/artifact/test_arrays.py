"""Arrays in and out of .npz bytes: exact, always the same, and nothing in them can run."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from kompakt.artifact import arrays_from_bytes, arrays_to_bytes
from kompakt.errors import ArtifactError, OutputError

DTYPES = st.sampled_from(["<f2", "<f4", "<f8", "<i1", "<i8", "<u1", "<u4", "?", "<U3", "<c8"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: nps.arrays(np.dtype(dtype), nps.array_shapes(min_dims=0, min_side=0, max_dims=3))
)


@given(st.dictionaries(st.text(), ARRAYS, max_size=4))
def test_any_arrays_come_back(arrays: dict[str, np.ndarray]) -> None:
    raw = arrays_to_bytes(arrays)
    found = arrays_from_bytes(raw, file="x.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert arrays_to_bytes(found) == raw


HOSTILE = [
    "../../etc/passwd", "/abs", "", ".", "a\0b", "a\nb", "x" * 1_000_000, "y" * 1_000_000, "\ud800",
    "%long0", "%2e", "层.权重", "a/b", "con", "[bold]", "<script>",
]  # fmt: skip


def test_hostile_names_come_back_and_stay_in_the_zip() -> None:
    arrays = {name: np.array([index]) for index, name in enumerate(HOSTILE)}
    raw = arrays_to_bytes(arrays)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = archive.namelist()
    assert len(set(names)) == len(names)
    assert all("/" not in name and "\\" not in name and len(name) < 200 for name in names)
    assert {name: int(a[0]) for name, a in arrays_from_bytes(raw, file="x.npz").items()} == {
        name: index for index, name in enumerate(HOSTILE)
    }


def test_memory_layout_and_byte_order_do_not_change_the_bytes() -> None:
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    twins = [array.astype(">f4"), np.asfortranarray(array), array[::-1][::-1], array.T.copy().T]
    assert {arrays_to_bytes({"x": twin}) for twin in twins} == {arrays_to_bytes({"x": array})}


def test_numpy_reads_it_too() -> None:
    raw = arrays_to_bytes({"scale": np.array([0.5, 2.0])})
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        assert file["scale"].tolist() == [0.5, 2.0]


def test_objects_are_refused_when_written() -> None:
    with pytest.raises(OutputError) as caught:
        arrays_to_bytes({"x": np.array([{}], dtype=object)})
    assert caught.value.code == "K507"


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(shape: str, data: bytes = b"", *, descr: str = "'<u1'", order: str = "False") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def object_npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


REFUSED = {
    "empty": b"",
    "text": b"hello",
    "pickle 0": pickle.dumps([1], protocol=0),
    "pickle 5": pickle.dumps([1], protocol=5),
    "objects": object_npz(),
    "pickled member": zipped(x=pickle.dumps([1])),
    "header of 16 TiB": zipped(x=npy("(2199023255552,)", descr="'<f8'")),
    "negative shape": zipped(x=npy("(-1,)")),
    "two negatives": zipped(x=npy("(-1, -1)", b"a")),
    "fortran": zipped(x=npy("(1,)", b"a", order="True")),
    "code in header": zipped(x=npy("(1,)", b"a", order="exit()")),
    "object type": zipped(x=npy("(1,)", b"a" * 8, descr="'|O'")),
    "void": zipped(x=npy("(5,)", descr="'|V0'")),
    "bad long names": zipped(**{"%long": npy("(1,)", b"{")}),
    "list as long names": zipped(**{"%long": npy("(2,)", b"[]"), "%long0": npy("(1,)", b"a")}),
    "numbers as long names": zipped(**{"%long": npy("(12,)", b'{"%long0":1}')}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused(case: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        arrays_from_bytes(REFUSED[case], file="x.npz")
    assert caught.value.code == "K515"
    assert "x.npz" in caught.value.what


def test_a_zip_bomb_is_refused_before_it_unpacks() -> None:
    bomb = zipped(x=bytes(50_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(ArtifactError, match="too large"):
        arrays_from_bytes(bomb, file="x.npz", limit_bytes=10_000_000)


def test_damage_never_gives_another_error() -> None:
    raw = arrays_to_bytes({"a": np.arange(50), "b" * 300: np.ones(3)})
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(raw)
        damaged[rng.integers(len(raw))] = rng.integers(256)
        try:
            arrays_from_bytes(bytes(damaged[: rng.integers(1, len(raw) + 1)]), file="x.npz")
        except ArtifactError:
            refused += 1
    assert refused > 1000
