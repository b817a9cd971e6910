"""The golden pack: a few real inputs with the outputs and codes they must give on any machine.

For every quantizer it holds a 16-byte digest of the codes of each sample, so a difference is found
however small, and for as many quantizers as fit into 1 MiB the codes of the first sample, so the
difference can be counted. :mod:`kompakt.artifact.replay` compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.artifact.arrays import arrays_from_bytes, arrays_to_bytes
from kompakt.artifact.contents import GOLDEN
from kompakt.errors import ArtifactError

Array = NDArray[np.generic]

GOLDEN_SAMPLES = 32
#: Inputs and outputs are kept below this, before compression, when one sample is not larger.
GOLDEN_BYTES = 8 << 20
CODE_BYTES = 1 << 20
_DIGEST_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class GoldenBatch:
    """One batch: arrays by input and output name, as the runtime takes and gives them."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class GoldenPack:
    """Inputs with everything that is expected of them.

    Attributes:
        batches: The batches in the order they were run.
        digests: By quantizer site, in network order: uint8 (rows, 16), one row a sample.
        codes: By site: the integer codes of the first sample, flat; only sites that fit.
    """

    batches: tuple[GoldenBatch, ...]
    digests: dict[str, NDArray[np.uint8]]
    codes: dict[str, Array]

    def to_bytes(self) -> bytes:
        """The ``.npz`` file of the pack."""
        arrays: dict[str, Array] = {}
        for number, batch in enumerate(self.batches):
            for role, group in (("input", batch.inputs), ("output", batch.outputs)):
                for name, array in group.items():
                    arrays.update(_with_palette(f"{role}/{number}/{name}", array))
        arrays.update({f"digest/{site}": rows for site, rows in self.digests.items()})
        arrays.update({f"codes/{site}": codes for site, codes in self.codes.items()})
        layout = json.dumps({"schema": 1, "batches": len(self.batches)}).encode()
        return arrays_to_bytes({"layout": np.frombuffer(layout, np.uint8), **arrays})

    @classmethod
    def from_bytes(cls, raw: bytes) -> GoldenPack:
        """Read the ``.npz`` file of a pack.

        Raises:
            ArtifactError: K515: it is no golden pack.
        """
        arrays = arrays_from_bytes(raw, file=GOLDEN)
        try:
            return _unpacked(arrays)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            why = f"an entry is missing or does not fit: {str(error)[:100]}"
            raise ArtifactError("K515", f"{GOLDEN} is no golden pack", why=why) from error


def _unpacked(arrays: dict[str, Array]) -> GoldenPack:
    layout: dict[str, Any] = json.loads(arrays["layout"].tobytes())
    if layout["schema"] != 1:
        raise ValueError(f"schema {layout['schema']}")
    groups: dict[str, dict[str, Array]] = {}
    for key in arrays:
        head, _, rest = key.partition("/")
        if head in ("input", "output"):
            number, _, name = rest.partition("/")
            groups.setdefault(f"{head}/{number}", {})[name] = _without_palette(key, arrays)
        elif head in ("digest", "codes"):
            groups.setdefault(head, {})[rest] = arrays[key]
    batches = tuple(
        GoldenBatch(
            inputs=groups.get(f"input/{number}", {}), outputs=groups.get(f"output/{number}", {})
        )
        for number in range(layout["batches"])
    )
    digests = {site: rows.astype(np.uint8) for site, rows in groups.get("digest", {}).items()}
    return GoldenPack(batches=batches, digests=digests, codes=groups.get("codes", {}))


def _bits(array: Array) -> NDArray[np.unsignedinteger[Any]] | None:
    """The array's elements as unsigned integers of the same width; ``None`` for other widths."""
    widths = {2: np.uint16, 4: np.uint32, 8: np.uint64}
    kind = widths.get(array.dtype.itemsize)
    return None if kind is None else np.ascontiguousarray(array).reshape(-1).view(kind)


def _with_palette(key: str, array: Array) -> dict[str, Array]:
    """Store an array of few distinct values (a normalised image has 256 a channel) as codes."""
    bits = _bits(array)
    if bits is not None and bits.size:
        values, index = np.unique(bits, return_inverse=True)
        narrow = np.uint8 if len(values) <= 256 else np.uint16
        if len(values) <= 65_536 and np.dtype(narrow).itemsize < array.dtype.itemsize:
            palette = values.view(array.dtype)
            return {key: index.reshape(array.shape).astype(narrow), f"palette/{key}": palette}
    return {key: array}


def _without_palette(key: str, arrays: Mapping[str, Array]) -> Array:
    palette = arrays.get(f"palette/{key}")
    # bits, not values: -0.0 and NaN must come back as they were
    return arrays[key] if palette is None else palette[arrays[key]]


def golden_samples(first_batch: Mapping[str, Array], samples: int) -> int:
    """How many samples a golden pack of this model should hold: 32, or fewer when they are large.

    Args:
        first_batch: The inputs and outputs of one batch.
        samples: How many samples that batch holds.
    """
    size = 0
    for array in first_batch.values():
        bits = _bits(array[:1] if array.ndim else array)
        distinct = 65_537 if bits is None else len(np.unique(bits))
        width = 1 if distinct <= 256 else 2 if distinct <= 65_536 else array.dtype.itemsize
        size += array.size * min(width, array.dtype.itemsize)
    return max(1, min(GOLDEN_SAMPLES, GOLDEN_BYTES * samples // max(size, 1)))


class GoldenBuilder:
    """Collects batches into a :class:`GoldenPack`; keeps digests, not the codes of every sample."""

    def __init__(self) -> None:
        self._batches: list[GoldenBatch] = []
        self._digests: dict[str, list[NDArray[np.uint8]]] = {}
        self._codes: dict[str, Array] = {}

    def add(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        codes: Mapping[str, Array],
        *,
        samples: int,
    ) -> None:
        """Add one batch.

        Args:
            inputs: Arrays by input name.
            outputs: Arrays by output name.
            codes: Integer codes by quantizer site, in network order.
            samples: How many samples the batch holds. Codes whose first axis is not a multiple of
                it are digested as a whole.
        """
        if not self._batches:
            self._codes = _smallest_codes(codes, samples)
        batch = GoldenBatch(
            inputs={name: np.array(array) for name, array in inputs.items()},
            outputs={name: np.array(array) for name, array in outputs.items()},
        )
        self._batches.append(batch)
        for site, array in codes.items():
            rows = [_digest(row) for row in _rows(array, samples)]
            self._digests.setdefault(site, []).append(np.stack(rows))

    def pack(self) -> GoldenPack:
        """Everything added so far."""
        digests = {site: np.concatenate(rows) for site, rows in self._digests.items()}
        return GoldenPack(batches=tuple(self._batches), digests=digests, codes=dict(self._codes))


def _rows(array: Array, samples: int) -> Array:
    divisible = array.ndim > 0 and array.shape[0] > 0 and array.shape[0] % samples == 0
    return np.ascontiguousarray(array).reshape(samples if divisible else 1, -1)


def _digest(row: Array) -> NDArray[np.uint8]:
    if row.dtype.kind not in "iu":
        raise TypeError(f"codes are integers, not {row.dtype}")
    # always 16 bits wide, so that the same codes in a wider type have the same digest
    text = np.ascontiguousarray(row.astype("<i2")).data
    return np.frombuffer(hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest(), np.uint8)


def _smallest_codes(codes: Mapping[str, Array], samples: int) -> dict[str, Array]:
    """The first sample's codes of the smallest sites, as many as fit into ``CODE_BYTES``."""
    first = {site: _rows(array, samples)[0] for site, array in codes.items()}
    chosen, used = set(), 0
    for site in sorted(first, key=lambda site: first[site].nbytes):
        used += first[site].nbytes
        if used > CODE_BYTES:
            break
        chosen.add(site)
    return {site: np.array(row) for site, row in first.items() if site in chosen}
