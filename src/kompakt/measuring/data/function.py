"""Data made by a function that the user names as ``package.module:function``."""

from __future__ import annotations

import hashlib
import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kompakt.errors import DataError, KompaktError
from kompakt.measuring.data.dataset import Dataset
from kompakt.measuring.imported import import_function, told, where


class FunctionDataset(Dataset):
    """Whatever iterable a function returns; the function is called again for each pass.

    Args:
        spec: ``package.module:function``. The function takes no argument, or one called ``split``.
        split: What the data is for: ``calibration``, ``validation``, ``test``, ``train``.

    Raises:
        DataError: K212 when it cannot be imported.
    """

    def __init__(self, spec: str, split: str) -> None:
        self.spec, self.split, self.name = spec, split, spec
        self._function = import_function(spec, "K212", DataError, "data function")
        self._kept: Iterable[Any] | None = None
        self._made: Iterable[Any] | None = None  # an iterator nobody has read from yet

    def _iterable(self) -> Iterable[Any]:
        """What the function returned: the same again if it can be read again, else a new one."""
        if self._kept is not None:
            return self._kept
        if self._made is not None:
            return self._made
        try:
            made = self._function(**({"split": self.split} if self._takes_split() else {}))
        except KompaktError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        if not hasattr(made, "__iter__") or isinstance(made, (str, bytes, Mapping, Tensor)):
            raise DataError(
                "K212", f"data function {self.spec!r}",
                why=f"it returned {type(made).__name__}, not an iterable of batches",
            )  # fmt: skip
        if iter(made) is made:
            self._made = made
        else:
            self._kept = made
        return made  # type: ignore[no-any-return]

    def _takes_split(self) -> bool:
        try:
            return "split" in inspect.signature(self._function).parameters
        except (TypeError, ValueError):
            return False

    def _failed(self, error: Exception) -> DataError:
        return DataError(
            "K212", f"data function {self.spec!r}", where=where(error), why=told(error)
        )

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._iterable())
        self._made = None
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except KompaktError:
                raise
            except Exception as error:
                raise self._failed(error) from error
            yield batch

    def __length_hint__(self) -> int:
        return operator.length_hint(self._iterable(), 0)

    def describe(self) -> str:
        """The data in one line."""
        return f"{self.spec} ({self.split})"

    def count(self) -> int | None:
        """Unknown: a function says nothing about its length."""
        return None

    def sha256(self) -> str:
        """Fingerprint of everything the function yields; reads it all."""
        digest = hashlib.sha256()
        for batch in self:
            _digest(digest, batch)
        return digest.hexdigest()


def _digest(digest: Any, value: Any) -> None:
    """Feed nested batches into a hash."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key in value:
            digest.update(str(key).encode())
            _digest(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for part in value:
            _digest(digest, part)
    else:
        digest.update(repr(value).encode())
