"""The real data the benchmarks run on, read from the folder ``KOMPAKT_ASSETS`` points to.

Calibrate on ``calibration``/``train``, choose on ``validation``, report on ``test``. Images stay
uint8 in memory and become float32 batch by batch.
"""

from __future__ import annotations

import csv
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.models import minilm_folder

CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR_MEAN = (0.485, 0.456, 0.406)
CIFAR_STD = (0.229, 0.224, 0.225)


def mobilenet_input(x_NHWC: NDArray[np.uint8]) -> Tensor:
    """RGB bytes (N, H, W, 3) to float32 (N, 3, H, W) in [−1, 1]."""
    return torch.from_numpy(x_NHWC).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def cifar_input(x_NHWC: NDArray[np.uint8]) -> Tensor:
    """RGB bytes (N, 32, 32, 3) to normalised float32 (N, 3, 32, 32)."""
    x = torch.from_numpy(x_NHWC).permute(0, 3, 1, 2).contiguous().float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CIFAR_MEAN, CIFAR_STD))
    return (x - mean) / std


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Stored samples with labels and the formula that makes them model inputs.

    Args:
        x: (N, …) stored values, for images uint8 NHWC.
        labels: int64 (N,).
        to_input: Turns a slice of ``x`` into the model's input tensor.
    """

    x: NDArray[np.generic]
    labels: NDArray[np.int64]
    to_input: Callable[[NDArray[np.generic]], Tensor]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def take(self, rows: slice | NDArray[np.int64]) -> Labelled:
        """The same data, these rows only."""
        return Labelled(x=self.x[rows], labels=self.labels[rows], to_input=self.to_input)

    def inputs(self) -> Tensor:
        """All inputs in one tensor."""
        return self.to_input(self.x)

    def batches(self, size: int) -> LabelledBatches:
        """A re-iterable of ``(inputs, labels)``, ``size`` samples each."""
        return LabelledBatches(data=self, size=size)


@dataclass(frozen=True, kw_only=True)
class LabelledBatches:
    """Re-iterable batches of a :class:`Labelled` set."""

    data: Labelled
    size: int

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.data) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(inputs, labels)``."""
        for start in range(0, len(self.data), self.size):
            rows = slice(start, start + self.size)
            labels = torch.from_numpy(self.data.labels[rows])
            yield self.data.to_input(self.data.x[rows]), labels


def _decode(source: Path | BytesIO) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(source) as image:
        return np.array(image.convert("RGB"))


def imagenet(assets: Path, split: str) -> Labelled:
    """The 200/300/500 photos of ``calibration``, ``validation`` or ``test``, class by class."""
    files = sorted((assets / "imagenet" / split).glob("*/*.jpg"))
    labels = np.array([int(file.parent.name) for file in files], np.int64)
    x = np.stack([_decode(file) for file in files])
    return Labelled(x=x, labels=labels, to_input=mobilenet_input)


def cifar_lossless(assets: Path, split: str) -> Labelled:
    """The 4 660 (``train``) or 846 (``test``) original CIFAR-10 images."""
    with np.load(assets / f"cifar10_lossless_{split}.npz") as file:
        return Labelled(x=file["x"], labels=file["labels"].astype(np.int64), to_input=cifar_input)


def cifar_jpeg(assets: Path, split: str, cache: Path) -> Labelled:
    """The 50 000 (``train``) or 10 000 (``test``) JPEG images; decoded once into ``cache``."""
    cached = cache / f"cifar10_jpeg_{split}.npz"
    if not cached.exists():
        _decode_zip(assets / f"cifar10_jpeg_{split}.zip", cached)
    with np.load(cached) as file:
        return Labelled(x=file["x"], labels=file["labels"], to_input=cifar_input)


def _decode_zip(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        x = np.stack([_decode(BytesIO(archive.read(name))) for name in names])
    labels = np.array([CIFAR_CLASSES.index(name.split("/")[0]) for name in names], np.int64)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.npz")
    np.savez(partial, x=x, labels=labels)
    partial.replace(target)


def kws(assets: Path, split: str) -> Labelled:
    """Keyword clips: the first 200 for ``calibration``, 800 for ``evaluation``, or ``all``."""
    rows = {"calibration": slice(200), "evaluation": slice(200, None), "all": slice(None)}[split]
    with np.load(assets / "kws_features.npz") as file:
        scale, zero_point = float(file["scale"]), float(file["zero_point"])
        x, labels = file["x"][rows], file["labels"][rows].astype(np.int64)

    def to_input(q_NHW: NDArray[np.generic]) -> Tensor:
        codes = torch.from_numpy(q_NHW.astype(np.float32)).unsqueeze(1)
        return (codes - zero_point) * scale

    return Labelled(x=x, labels=labels, to_input=to_input)


@dataclass(frozen=True, kw_only=True)
class SentencePairs:
    """STS-B, tokenised. Rows 2i and 2i + 1 are the two sentences of pair i.

    Args:
        input_ids: int64 (2·pairs, length).
        attention_mask: int64, the same shape.
        labels: float64 (2·pairs,): the pair's human score 0–5, given to both of its rows.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    labels: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of sentences, twice the number of pairs."""
        return len(self.labels)

    def batches(self, size: int) -> SentenceBatches:
        """A re-iterable of ``(inputs, labels)`` of ``size`` sentences (an even number)."""
        if size % 2:
            raise ValueError(f"batch size {size} would split a sentence pair")
        return SentenceBatches(data=self, size=size)


@dataclass(frozen=True, kw_only=True)
class SentenceBatches:
    """Re-iterable batches of :class:`SentencePairs`."""

    data: SentencePairs
    size: int

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.data) // self.size)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield ``(inputs by name, labels)``."""
        for start in range(0, len(self.data), self.size):
            rows = slice(start, start + self.size)
            inputs = {
                "input_ids": torch.from_numpy(self.data.input_ids[rows]),
                "attention_mask": torch.from_numpy(self.data.attention_mask[rows]),
            }
            yield inputs, torch.from_numpy(self.data.labels[rows])


def stsb(assets: Path, split: str, *, length: int = 64, pairs: int | None = None) -> SentencePairs:
    """STS-B ``train`` (5 749 pairs) or ``dev`` (1 500), padded and cut to ``length`` tokens.

    Args:
        assets: The folder of real models and data.
        split: ``"train"`` or ``"dev"``.
        length: Tokens per sentence.
        pairs: Only the first so many pairs; all when ``None``.
    """
    from tokenizers import Tokenizer

    with (assets / f"stsb-en-{split}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[:pairs]
    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encoded = tokenizer.encode_batch([sentence for row in rows for sentence in row[:2]])
    return SentencePairs(
        input_ids=np.array([e.ids for e in encoded], np.int64),
        attention_mask=np.array([e.attention_mask for e in encoded], np.int64),
        labels=np.repeat(np.array([float(row[2]) for row in rows]), 2),
    )


def sts_spearman(outputs: Mapping[str, NDArray[np.float32]], labels: NDArray[np.float64]) -> float:
    """Spearman correlation of the pairs' cosine similarity with the human scores.

    Args:
        outputs: One array of unit vectors (2·pairs, C), rows as in :class:`SentencePairs`.
        labels: (2·pairs,), each pair's score twice.
    """
    from scipy.stats import spearmanr

    embedding = next(iter(outputs.values())).astype(np.float64)
    cosine = (embedding[::2] * embedding[1::2]).sum(1)
    return float(spearmanr(cosine, labels[::2]).statistic)


class StoriesTokenizer:
    """The llama2.c tokenizer: byte-fallback BPE with greedy best-score merges.

    No piece has a space after its first byte, so merges never cross one: a text is cut before
    every space and each word merged once.
    """

    BOS = 1

    def __init__(self, file: Path) -> None:
        data, offset = file.read_bytes(), 4
        self.pieces: list[bytes] = []
        self.scores: list[float] = []
        while offset < len(data):
            score, size = struct.unpack_from("<fi", data, offset)
            offset += 8
            self.pieces.append(data[offset : offset + size])
            self.scores.append(score)
            offset += size
        self.ids = {piece: index for index, piece in reversed(list(enumerate(self.pieces)))}
        self.words: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, BOS first."""
        ids = [self.BOS]
        for word in re.findall(r" ?[^ ]*", " " + text):
            if word not in self.words:
                self.words[word] = self._encode_word(word)
            ids += self.words[word]
        return ids

    def _encode_word(self, word: str) -> list[int]:
        ids: list[int] = []
        for symbol in (character.encode() for character in word):
            ids += [self.ids[symbol]] if symbol in self.ids else [byte + 3 for byte in symbol]
        while True:
            joined = [self.ids.get(self.pieces[a] + self.pieces[b]) for a, b in pairwise(ids)]
            candidates = [(self.scores[j], -at, j) for at, j in enumerate(joined) if j is not None]
            if not candidates:
                return ids
            _, at, merged = max(candidates)
            ids[-at : -at + 2] = [merged]


def tinystories(assets: Path, *, context: int = 256) -> list[NDArray[np.int64]]:
    """The first ``context`` tokens of each of the 153 stories, BOS first.

    Paragraphs are separated by one newline, as in the text the model was trained on.
    """
    tokenizer = StoriesTokenizer(assets / "stories260k_tokenizer.bin")
    text = (assets / "tinystories.txt").read_text(encoding="utf-8")
    stories = [re.sub(r"\n+", "\n", s.strip()) for s in text.split("<|endoftext|>")]
    return [np.array(tokenizer.encode(s)[:context], np.int64) for s in stories if s]
