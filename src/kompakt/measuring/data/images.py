"""A folder of images with one subfolder for each class, decoded batch by batch."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kompakt.errors import DataError
from kompakt.measuring.data.batch import Batch
from kompakt.measuring.data.dataset import DEFAULT_BATCH, SHUFFLE_SEED, Dataset
from kompakt.progress import note

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MOST_PIXELS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images become tensors: values are channel/255, then (x − mean)/std.

    Attributes:
        size: Height and width after scaling and central cropping; ``None`` takes images as they
            are.
        resize: Length of the shorter side before cropping; by default just enough for ``size``.
        mean: One number, or one for each channel.
        std: One number, or one for each channel.
        layout: ``nchw`` or ``nhwc``.
        channels: ``rgb``, ``bgr`` or ``gray``.
    """

    size: tuple[int, int] | None = None
    resize: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr", "gray"] = "rgb"

    def __post_init__(self) -> None:
        count = 1 if self.channels == "gray" else 3
        sizes = (*(self.size or ()), *((self.resize,) if self.resize else ()))
        problem = ""
        if any(side < 1 or side > 16384 for side in sizes):
            problem = f"sizes {sizes} are not within 1 … 16384"
        elif any(len(values) not in (1, count) for values in (self.mean, self.std)):
            problem = f"mean and std take one number, or {count}"
        elif not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            problem = "mean and std have to be finite"
        elif min(self.std) <= 0:
            problem = "std has to be positive"
        if problem:
            raise DataError("K201", "image options", why=problem)


class ImageFolder(Dataset):
    """Images as float32 batches; labels are class indices.

    The class index is the number the subfolder is called, if all are numbers, else its position in
    sorted order. A folder with images and no subfolders has no labels.

    Args:
        folder: The folder.
        input_name: Name of the model's input.
        options: How images become tensors.
        batch: Images in a batch.
        shuffle: Seed of the order, or ``None`` for sorted order.

    Raises:
        DataError: K203 when there are no images.
    """

    def __init__(
        self,
        folder: Path,
        input_name: str,
        options: ImageOptions,
        *,
        batch: int = DEFAULT_BATCH,
        shuffle: int | None = SHUFFLE_SEED,
    ) -> None:
        self.folder, self.input_name, self.options = folder, input_name, options
        self.name = f"{folder.name}/"
        self._batch, self.shuffled = batch, shuffle is not None
        self.classes = sorted(
            entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry)
        )
        self._files = _labelled_files(folder, self.classes)
        if not self._files:
            raise DataError("K203", f"image folder {folder.name!r}", where=str(folder),
                            why=f"it holds no files ending in {', '.join(SUFFIXES)}")  # fmt: skip
        if shuffle is not None:
            order = np.random.default_rng(shuffle).permutation(len(self._files))
            self._files = [self._files[index] for index in order]

    def __len__(self) -> int:
        return -(-len(self._files) // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._files), self._batch):
            some = self._files[start : start + self._batch]
            images = [load_image(path, self.options) for path, _ in some]
            odd = next((i for i, image in enumerate(images) if image.shape != images[0].shape), 0)
            if odd:
                raise DataError(
                    "K205",
                    f"images of shapes {images[0].shape} and {images[odd].shape} in one batch",
                    where=f"{some[0][0]} and {some[odd][0]}",
                    why="a batch holds images of one size",
                    help="add ?size=224 (or another size) to the folder",
                )
            labels = [label for _, label in some if label is not None]
            yield Batch(
                {self.input_name: torch.from_numpy(np.stack(images))},
                torch.tensor(labels) if labels else None,
                len(some),
            )

    def describe(self) -> str:
        """The data in one line."""
        labelled = f"{len(self.classes)} classes" if self.classes else "no labels"
        return f"{self.folder.name}/: {len(self._files)} images; {labelled}"

    def count(self) -> int:
        """Number of images."""
        return len(self._files)

    def sha256(self) -> str:
        """Fingerprint of names, files, order and options."""
        digest = hashlib.sha256(repr(self.options).encode())
        for path, label in self._files:
            digest.update(f"{path.relative_to(self.folder)}\0{label}\0".encode(errors="replace"))
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def load_image(path: Path, options: ImageOptions) -> NDArray[np.float32]:
    """Decode one file.

    Returns:
        float32 of shape (C, H, W), or (H, W, C) for the layout ``nhwc``.

    Raises:
        DataError: K208 when it cannot be decoded or has more than 50 million pixels.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _unreadable(path, f"it has {image.width}×{image.height} pixels")
            mode = "L" if options.channels == "gray" else "RGB"
            pixels = np.asarray(_fitted(image.convert(mode), options), dtype=np.float32)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if options.channels == "bgr":
        pixels = pixels[..., ::-1]
    mean, std = (np.asarray(values, dtype=np.float32) for values in (options.mean, options.std))
    values = (pixels / np.float32(255) - mean) / std
    return np.ascontiguousarray(values if options.layout == "nhwc" else values.transpose(2, 0, 1))


def _fitted(image: Image.Image, options: ImageOptions) -> Image.Image:
    """Scale the shorter side and cut out the centre."""
    if options.size is None and options.resize is None:
        return image
    height, width = options.size or (0, 0)
    if options.resize is None:
        scale = max(height / image.height, width / image.width)
    else:
        scale = options.resize / min(image.height, image.width)
    if scale != 1:
        scaled = (max(round(image.width * scale), width), max(round(image.height * scale), height))
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    if options.size is None:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _unreadable(path: Path, why: str) -> DataError:
    return DataError("K208", f"image {path.name!r}", where=str(path), why=why[:300])


def _hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


def _labelled_files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int | None]]:
    numbered = all(re.fullmatch(r"[0-9]{1,9}", name) for name in classes)
    files: list[tuple[Path, int | None]] = []
    others = 0
    for position, name in enumerate(classes or [""]):
        label: Any = None if not classes else int(name) if numbered else position
        for path in sorted((folder / name).iterdir()):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                files.append((path, label))
            elif not _hidden(path):
                others += 1
    if others:
        note(f"{folder.name}/: {others} entries are no images and are not read")
    return files
