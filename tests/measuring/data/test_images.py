"""Folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kompakt.errors import DataError
from kompakt.measuring.data import open_data, prepare
from kompakt.measuring.data.images import ImageOptions, load_image
from kompakt.network.interface import TensorSpec
from kompakt.progress import listening


def picture(path: Path, size: tuple[int, int] = (8, 6), seed: int = 0, mode: str = "RGB") -> None:
    """Save a random image; ``size`` is width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, name in enumerate(("7", "10", "123")):
        for i in range(3):
            picture(tmp_path / name / f"{i}.png", seed=10 * label + i)
    return tmp_path


def test_numbers_are_class_indices_and_values_are_exact(photos: Path) -> None:
    data = open_data(f"{photos}/?batch=4&mean=0.5,0.25,0.5&std=0.5&shuffle=no", ["image"])
    batches = list(data)
    assert [batch.size for batch in batches] == [4, 4, 1]
    assert torch.cat([b.labels for b in batches]).tolist() == [10] * 3 + [123] * 3 + [7] * 3
    assert data.count() == 9
    pixels = np.asarray(Image.open(photos / "10" / "0.png"), dtype=np.float32)
    known = (pixels / np.float32(255) - np.float32([0.5, 0.25, 0.5])) / np.float32(0.5)
    assert np.array_equal(batches[0].inputs["image"][0].numpy(), known.transpose(2, 0, 1))


def test_names_are_classes_in_sorted_order(tmp_path: Path) -> None:
    for name in ("dog", "cat", "10"):
        picture(tmp_path / name / "a.jpg")
    data = open_data(f"{tmp_path}?shuffle=no", ["x"])
    assert next(iter(data)).labels.tolist() == [0, 1, 2]
    assert data.classes == ["10", "cat", "dog"]


def test_images_come_in_a_random_order_that_repeats(photos: Path) -> None:
    orders = [torch.cat([b.labels for b in open_data(str(photos))]).tolist() for _ in range(2)]
    other = torch.cat([b.labels for b in open_data(f"{photos}?shuffle=5")]).tolist()
    assert orders[0] == orders[1] != other
    assert sorted(orders[0]) == sorted(other)


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("not an image")
    notes: list[str] = []
    with listening(lambda event: notes.append(event.message)):
        (batch,) = open_data(str(tmp_path))
    assert batch.labels is None
    assert "1 entries are no images" in notes[0]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ("", (3, 6, 8)),
        ("layout=nhwc", (6, 8, 3)),
        ("channels=gray", (1, 6, 8)),
        ("size=4", (3, 4, 4)),
        ("size=12x10", (3, 12, 10)),
        ("resize=12", (3, 12, 16)),
        ("resize=12&size=10", (3, 10, 10)),
    ],
)
def test_shapes(tmp_path: Path, options: str, shape: tuple[int, ...]) -> None:
    picture(tmp_path / "a.png")
    (batch,) = open_data(f"{tmp_path}?{options}")
    assert tuple(batch.inputs["x"].shape[1:]) == shape
    spec = TensorSpec("x", ("batch", *shape), torch.float32)
    assert len(list(prepare(open_data(f"{tmp_path}?{options}"), [spec]))) == 1


def test_an_image_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (8, 8))
    plain = load_image(tmp_path / "a.png", ImageOptions())
    assert np.array_equal(plain, load_image(tmp_path / "a.png", ImageOptions(size=(8, 8))))
    blue_first = load_image(tmp_path / "a.png", ImageOptions(channels="bgr"))
    assert np.array_equal(plain[::-1], blue_first)


def test_gray_and_transparent_files_become_rgb(tmp_path: Path) -> None:
    picture(tmp_path / "g.png", mode="L")
    picture(tmp_path / "t.png", mode="RGBA")
    (batch,) = open_data(str(tmp_path))
    assert batch.inputs["x"].shape == (2, 3, 6, 8)


def test_sizes_that_differ_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (8, 6))
    picture(tmp_path / "b.png", (6, 8))
    with pytest.raises(DataError, match="K205") as caught:
        list(open_data(str(tmp_path)))
    assert "size=" in caught.value.help
    (batch,) = open_data(f"{tmp_path}?size=5")
    assert batch.size == 2


def test_a_broken_image_is_named(photos: Path) -> None:
    (photos / "10" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    with pytest.raises(DataError, match="K208") as caught:
        list(open_data(str(photos)))
    assert caught.value.where.endswith("10/1.png")


def test_an_image_cut_short_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (200, 200))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="K208"):
        list(open_data(str(tmp_path)))


def test_an_image_of_too_many_pixels_is_refused_unread(tmp_path: Path) -> None:
    Image.new("1", (9_000, 6_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="K208") as caught:
        list(open_data(str(tmp_path)))
    assert "pixels" in caught.value.why


def test_the_fingerprint_follows_files_and_options(photos: Path) -> None:
    first = open_data(str(photos)).sha256()
    assert open_data(str(photos)).sha256() == first
    assert open_data(f"{photos}?mean=0.5").sha256() != first
    picture(photos / "10" / "1.png", seed=99)
    assert open_data(str(photos)).sha256() != first


@pytest.mark.parametrize(
    "options",
    [
        "size=0",
        "size=99999",
        "std=0",
        "std=inf",
        "mean=nan",
        "mean=1,2",
        "channels=gray&mean=1,2,3",
    ],
)
def test_impossible_options_are_refused(photos: Path, options: str) -> None:
    with pytest.raises(DataError, match="K201"):
        open_data(f"{photos}?{options}")
