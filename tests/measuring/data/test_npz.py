"""Arrays from files nobody vouches for."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kompakt.errors import DataError
from kompakt.measuring.data import open_data, prepare
from kompakt.measuring.data.npz import open_npz, read_npz
from kompakt.network.interface import TensorSpec
from kompakt.progress import listening

X = np.arange(240, dtype=np.float32).reshape(20, 12)
Y = np.arange(20)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_shuffled_together(
    tmp_path: Path, save: Callable[..., None], order: str
) -> None:
    save(tmp_path / "d.npz", image=np.asarray(X, order=order), labels=Y, groups=Y // 5)
    data = open_npz(tmp_path / "d.npz", ["image"], batch=6)
    batches = list(data)
    assert [batch.size for batch in batches] == [6, 6, 6, 2]
    images = torch.cat([batch.inputs["image"] for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    assert labels.tolist() != Y.tolist()
    assert torch.equal(images, torch.from_numpy(X)[labels])
    assert (np.concatenate([batch.groups for batch in batches]) == labels.numpy() // 5).all()
    assert [b.labels.tolist() for b in data] == [b.labels.tolist() for b in batches]


def test_uncompressed_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    assert isinstance(read_npz(tmp_path / "d.npz")["x"], np.memmap)


def test_file_order_on_request(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, labels=Y)
    data = open_data(f"{tmp_path}/d.npz?shuffle=no&batch=20", ["x"])
    assert not data.shuffled
    assert next(iter(data)).labels.tolist() == Y.tolist()


def test_the_fingerprint_follows_content_and_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, labels=Y)
    np.savez_compressed(tmp_path / "b.npz", x=X, labels=Y)
    np.savez(tmp_path / "c.npz", x=X + 1, labels=Y)
    found = [open_npz(tmp_path / f"{n}.npz", ["x"]).sha256() for n in "abc"]
    assert found[0] == found[1] != found[2]
    assert open_npz(tmp_path / "a.npz", ["x"], shuffle=1).sha256() != found[0]


def test_one_array_for_one_input_needs_no_matching_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    assert list(next(iter(open_npz(tmp_path / "d.npz", ["pixel_values"]))).inputs) == [
        "pixel_values"
    ]


def test_arrays_without_an_input_are_mentioned(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=X, extra=X)
    notes: list[str] = []
    with listening(lambda event: notes.append(event.message)):
        open_npz(tmp_path / "d.npz", ["x", "y"])
    assert "['extra']" in notes[0]


def bad_object(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


def bad_pickle(path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (path.parent / "executed",))

    archive(path, x=pickle.dumps(Bomb()))


def bad_object_header(path: Path) -> None:
    data = npy(np.zeros(2)).replace(b"'<f8'", b"'|O' ")
    archive(path, x=data)


def lying_shape(path: Path) -> None:
    archive(path, x=npy(X).replace(b"(20, 12)", b"(99, 99)"))


def enormous_shape(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }\n"
    archive(path, x=b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"1234")


def negative_shape(path: Path) -> None:
    archive(path, x=npy(X).replace(b"(20, 12)", b"(-20,12)"))


def code_in_header(path: Path) -> None:
    header = b"{'descr': __import__('os').system('touch executed'), 'shape': (1,)}\n"
    archive(path, x=b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


def long_header(path: Path) -> None:
    header = b"[" * 60000 + b"\n"
    archive(path, x=b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


def truncated(path: Path) -> None:
    np.savez(path, x=X)
    path.write_bytes(path.read_bytes()[:-200])


def damaged(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).random(500))
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)


def not_a_zip(path: Path) -> None:
    path.write_bytes(pickle.dumps([1, 2]))


def moved_member(path: Path) -> None:
    archive(path, x=npy(X))
    data = bytearray(path.read_bytes())
    data[0:4] = b"XXXX"
    path.write_bytes(data)


def other_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", npy(X))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("x.npy", npy(X))


def encrypted(path: Path) -> None:
    archive(path, x=npy(X))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def lzma_packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("x.npy", npy(X))


def words(path: Path) -> None:
    np.savez(path, x=np.array(["a", "b"]))


def structured(path: Path) -> None:
    np.savez(path, x=np.zeros(3, dtype=[("a", "f4")]))


HOSTILE = [
    bad_object, bad_pickle, bad_object_header, lying_shape, enormous_shape, negative_shape,
    code_in_header, long_header, truncated, damaged, not_a_zip, moved_member, other_member, twice,
    words, structured, encrypted, lzma_packed,
]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=[make.__name__ for make in HOSTILE])
def test_hostile_files_are_refused(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "d.npz")
    with pytest.raises(DataError) as caught:
        open_npz(tmp_path / "d.npz", ["x"])
    assert caught.value.code == "K202"
    assert "d.npz" in caught.value.what
    assert not (tmp_path / "executed").exists()


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy(X))
    data = bytearray(path.read_bytes())
    size = data.rindex(b"PK\x01\x02") + 24
    data[size : size + 4] = struct.pack("<I", 0xF0000000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="K214"):
        open_npz(path, ["x"])


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"x": X[:0]}, "K203"),
        ({"x": X, "labels": Y[:7]}, "K211"),
        ({"x": X, "labels": Y[:0]}, "K211"),
        ({"x": X, "labels": Y, "groups": Y[:3]}, "K211"),
        ({"x": np.float32(1)}, "K205"),
        ({"labels": Y}, "K209"),
        ({"a": X, "b": X}, "K209"),
    ],
)
def test_arrays_that_make_no_data_set_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], code: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError) as caught:
        open_npz(tmp_path / "d.npz", ["x"])
    assert caught.value.code == code


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    save=st.sampled_from([np.savez, np.savez_compressed]),
)
def test_any_flipped_byte_gives_arrays_or_our_error(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    save: Callable[..., None],
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "d.npz"
    save(path, x=X[:3], y=X[:3], labels=Y[:3])
    data = bytearray(path.read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        assert sum(batch.size for batch in open_npz(path, [])) > 0


IMAGE = (TensorSpec("x", ("batch", *X.shape[1:]), torch.from_numpy(X).dtype),)


def refused(path: Path, **settings: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        list(prepare(open_npz(path, ["x"], batch=2), IMAGE, role="calibration", **settings))
    return caught.value


def test_nan_is_told_with_its_file_and_its_sample_whatever_the_order(tmp_path: Path) -> None:
    bad = np.array(X)
    bad[len(X) - 2] = np.nan
    np.savez(tmp_path / "nan.npz", x=bad)
    error = refused(tmp_path / "nan.npz")
    assert error.code == "K207"
    assert error.where == f"calibration (nan.npz), sample {len(X) - 2}, counted from 0, input 'x'"
    assert "numpy.savez('nan.npz'" in error.help


def test_types_shapes_and_missing_labels_are_told_with_the_file_and_a_way_out(
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "f64.npz", x=X.astype(np.float64))
    error = refused(tmp_path / "f64.npz")
    assert (error.code, error.where) == ("K204", "calibration (f64.npz), batch 0, input 'x'")
    assert "x=x.astype('float32')" in error.help
    np.savez(tmp_path / "shape.npz", x=X[..., :1])
    error = refused(tmp_path / "shape.npz")
    assert (error.code, error.where) == ("K205", "calibration (shape.npz), batch 0, input 'x'")
    assert "x (batch, " in error.help
    np.savez(tmp_path / "alone.npz", x=X)
    error = refused(tmp_path / "alone.npz", needs_labels=True)
    assert (error.code, error.where) == ("K210", "calibration (alone.npz), batch 0")
    assert "labels=labels" in error.help
