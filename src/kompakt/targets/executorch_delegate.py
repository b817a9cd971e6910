"""What an XNNPACK delegate inside a ``.pte`` file executes: its operators and their precision.

The delegate is a flatbuffer for which ExecuTorch ships no Python reader, but its schema. Where each field lies follows
from that schema, so that this reader fits the installed version.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_PRECISIONS = {
    "qint8": "int8",
    "quint8": "uint8",
    "qcint8": "int8",
    "fp32": "float",
    "fp16": "fp16",
}


@dataclass(frozen=True)
class Schema:
    """The parts of a flatbuffer schema that say where things are.

    Attributes:
        fields: For each table, the slot of each of its fields.
        unions: For each union, its members (name, table) from type code 1 on.
        datatypes: The names of the element types by number.
    """

    fields: dict[str, dict[str, int]]
    unions: dict[str, list[tuple[str, str]]]
    datatypes: dict[int, str]


@cache
def schema() -> Schema:
    """The installed version's schema of XNNPACK graphs."""
    package = files("executorch.backends.xnnpack.serialization")
    text = package.joinpath("schema.fbs").read_text(encoding="utf-8")
    return read_schema(re.sub(r"//[^\n]*", "", text))


def read_schema(text: str) -> Schema:
    """Find slots, unions and element types in a schema without comments."""
    unions: dict[str, list[tuple[str, str]]] = {}
    for name, body in re.findall(r"union\s+(\w+)\s*\{(.*?)\}", text, re.S):
        members = re.findall(r"(\w+)\s*(?::\s*(\w+))?\s*,", body)
        unions[name] = [(member, table or member) for member, table in members]
    fields: dict[str, dict[str, int]] = {}
    for name, body in re.findall(r"table\s+(\w+)\s*\{(.*?)\}", text, re.S):
        slot, fields[name] = 0, {}
        for field, kind in re.findall(r"(\w+)\s*:\s*\[?\s*(\w+)[^;]*;", body):
            slot += kind in unions  # the union's type code has the slot before it
            fields[name][field] = slot
            slot += 1
    datatypes = re.findall(r"xnn_datatype_(\w+)\s*=\s*(\d+)", text)
    return Schema(fields, unions, {int(number): name for name, number in datatypes})


def executed(payload: bytes) -> dict[str, int]:
    """Count the operators of one delegate by name and precision, for instance ``XNNConv2d:int8``.

    Args:
        payload: The delegate's bytes as they are in the file.

    Raises:
        ValueError: When these are not an XNNPACK graph.
    """
    graph, known = _graph(payload), schema()
    precision = dict(_values(graph, known))
    counts: Counter[str] = Counter()
    for node in graph.tables(known.fields["XNNGraph"]["xnodes"]):
        code, content = node.union(known.fields["XNode"]["xnode_union"])
        name, table = known.unions["XNodeUnion"][code - 1]
        slots = known.fields[table]
        result = content.number(slots.get("output_id", slots.get("output_value_id", 0)), "I")
        counts[f"{name}:{precision.get(result, 'float')}"] += 1
    return dict(sorted(counts.items()))


def _values(graph: _Table, known: Schema) -> Iterator[tuple[int, str]]:
    """The id and precision of every value."""
    tensor = known.fields["XNNTensorValue"]
    for value in graph.tables(known.fields["XNNGraph"]["xvalues"]):
        code, content = value.union(known.fields["XValue"]["xvalue_union"])
        if known.unions["XValueUnion"][code - 1][0] == "XNNQuantizedTensorValue":
            content = content.table(known.fields["XNNQuantizedTensorValue"]["tensor_value"])
        number = content.number(tensor["datatype"], "h")
        name = known.datatypes.get(number, "")
        yield content.number(tensor["id_out"], "I"), _PRECISIONS.get(name, name)


def _graph(payload: bytes) -> _Table:
    """The root table, behind the header that ExecuTorch puts before it."""
    start = 0
    if payload[4:8] == b"XH00":
        start = int(struct.unpack_from("<I", payload, 10)[0])
    if payload[start + 4 : start + 6] != b"XN":
        raise ValueError("not an XNNPACK graph")
    return _Table(payload, start + int(struct.unpack_from("<I", payload, start)[0]))


@dataclass(frozen=True)
class _Table:
    """A flatbuffer table at a position of a buffer."""

    data: bytes
    position: int

    def _at(self, slot: int) -> int | None:
        offset: int = struct.unpack_from("<i", self.data, self.position)[0]
        table = self.position - offset
        size: int = struct.unpack_from("<H", self.data, table)[0]
        if 4 + 2 * slot >= size:
            return None
        entry: int = struct.unpack_from("<H", self.data, table + 4 + 2 * slot)[0]
        return self.position + entry if entry else None

    def number(self, slot: int, kind: str) -> int:
        """A number field; 0 where it is left out."""
        place = self._at(slot)
        return 0 if place is None else int(struct.unpack_from(f"<{kind}", self.data, place)[0])

    def _follow(self, place: int) -> int:
        step: Any = struct.unpack_from("<I", self.data, place)[0]
        return place + int(step)

    def table(self, slot: int) -> _Table:
        """A table field."""
        place = self._at(slot)
        if place is None:
            raise ValueError("a table is missing")
        return _Table(self.data, self._follow(place))

    def union(self, slot: int) -> tuple[int, _Table]:
        """A union field: its type code and its table."""
        return self.number(slot - 1, "B"), self.table(slot)

    def tables(self, slot: int) -> Iterator[_Table]:
        """A field that is a vector of tables."""
        place = self._at(slot)
        if place is None:
            return
        start = self._follow(place)
        for item in range(struct.unpack_from("<I", self.data, start)[0]):
            yield _Table(self.data, self._follow(start + 4 + 4 * item))
