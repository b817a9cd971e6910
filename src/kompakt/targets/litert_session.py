"""A loaded TFLite file, called with arrays as the network takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kompakt.errors import TargetError
from kompakt.network.interface import TensorSpec
from kompakt.numerics.rounding import get_rounding
from kompakt.targets.target import Arrays

CODES = "#codes"
"""Behind the name of an output: its codes, where the output itself is given as floats."""

_DTYPES = {
    np.float32: torch.float32,
    np.float16: torch.float16,
    np.int64: torch.int64,
    np.int32: torch.int32,
    np.int16: torch.int16,
    np.int8: torch.int8,
    np.uint8: torch.uint8,
    np.bool_: torch.bool,
}


@dataclass
class Session:
    """A model loaded in LiteRT or TensorFlow Lite for Microcontrollers.

    Attributes:
        interpreter: LiteRT's interpreter, or something with its methods.
        orders: For tensors stored in another order than the network's: stored dimension k is dimension
            ``order[k]``.
        rounding: How floats become the codes of inputs; empty when codes are given and handed out as they are.
        codes: Outputs that are given as codes all the same.
    """

    interpreter: Any
    orders: Mapping[str, Sequence[int]] = field(default_factory=dict)
    rounding: str = ""
    codes: Sequence[str] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(d["name"] for d in self.interpreter.get_input_details())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(d["name"] for d in self.interpreter.get_output_details())

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and dtype of the inputs, in order."""
        return tuple(self._spec(d) for d in self.interpreter.get_input_details())

    def _spec(self, detail: Mapping[str, Any]) -> TensorSpec:
        name = detail["name"]
        signature = [int(n) for n in detail["shape_signature"]] or [int(n) for n in detail["shape"]]
        order = self.orders.get(name, range(len(signature)))
        shape: list[int | str] = [0] * len(signature)
        for place, dimension in enumerate(order):
            size = signature[place]
            free = "batch" if dimension == 0 else f"dimension_{dimension}"
            shape[dimension] = size if size >= 0 else free
        dtype = torch.float32 if self._coded(detail) else _DTYPES[detail["dtype"]]
        return TensorSpec(name, tuple(shape), dtype)

    def _coded(self, detail: Mapping[str, Any]) -> bool:
        return bool(self.rounding) and len(detail["quantization_parameters"]["scales"]) > 0

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the model once.

        Raises:
            TargetError: K403 when the inputs do not fit the model.
        """
        try:
            self._feed(inputs)
            self.interpreter.invoke()
        except Exception as error:
            raise TargetError(
                "K403",
                "running the model in LiteRT",
                why=(str(error) or type(error).__name__).splitlines()[0],
            ) from error
        found: Arrays = {}
        for detail in self.interpreter.get_output_details():
            name = detail["name"]
            found[name] = self._read(detail, as_codes=name in self.codes)
            if name + CODES in self.codes:
                found[name + CODES] = self._read(detail, as_codes=True)
        return found

    def _feed(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        given = []
        resized = False
        for detail in self.interpreter.get_input_details():
            array = np.asarray(inputs[detail["name"]])
            if detail["name"] in self.orders:
                array = array.transpose(self.orders[detail["name"]])
            if self._coded(detail) and array.dtype == np.float32:
                array = self._encoded(array, detail)
            if array.shape != tuple(detail["shape"]):
                self.interpreter.resize_tensor_input(detail["index"], array.shape, strict=True)
                resized = True
            given.append((detail["index"], np.ascontiguousarray(array)))
        if resized:
            self.interpreter.allocate_tensors()
        for index, array in given:
            self.interpreter.set_tensor(index, array)

    def _encoded(self, array: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
        scale, zero_point = (torch.tensor(float(number)) for number in _grid(detail))
        limits = np.iinfo(detail["dtype"])
        rounding = get_rounding(self.rounding)
        x = torch.from_numpy(np.ascontiguousarray(array))
        codes = rounding(x, scale, zero_point, limits.min, limits.max)
        return codes.clamp(limits.min, limits.max).numpy().astype(detail["dtype"])

    def _read(self, detail: Mapping[str, Any], *, as_codes: bool) -> NDArray[Any]:
        array: NDArray[Any] = self.interpreter.get_tensor(detail["index"])
        if self._coded(detail) and not as_codes:
            scale, zero_point = _grid(detail)
            array = (array.astype(np.int32) - zero_point).astype(np.float32) * scale
        if detail["name"] in self.orders:
            array = array.transpose(np.argsort(self.orders[detail["name"]]))
        return np.ascontiguousarray(array)


def _grid(detail: Mapping[str, Any]) -> tuple[np.float32, int]:
    found = detail["quantization_parameters"]
    return np.float32(found["scales"][0]), int(found["zero_points"][0])
