"""A walk over everything in a model file, before any runtime sees it: counts, names, wiring, tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import onnx

from kompakt.guard.beside import Beside
from kompakt.guard.functions import check_functions
from kompakt.guard.limits import Limits
from kompakt.guard.refusals import GRAPH, MALFORMED, TOO_LARGE, named, refusal
from kompakt.guard.tensors import check_tensor

_A = onnx.AttributeProto
_FIELD_OF = {
    _A.FLOAT: "f",
    _A.INT: "i",
    _A.STRING: "s",
    _A.TENSOR: "t",
    _A.GRAPH: "g",
    _A.FLOATS: "floats",
    _A.INTS: "ints",
    _A.STRINGS: "strings",
    _A.TENSORS: "tensors",
    _A.GRAPHS: "graphs",
    _A.SPARSE_TENSOR: "sparse_tensor",
    _A.SPARSE_TENSORS: "sparse_tensors",
    _A.TYPE_PROTO: "tp",
    _A.TYPE_PROTOS: "type_protos",
}
_SINGLE = frozenset(("f", "i", "s", "t", "g", "sparse_tensor", "tp"))
Scopes = tuple[set[str], ...]
"""The names that are known around a graph, from outside to inside."""
_SEPARATORS = re.compile(r"[/.:]+")


def walk(model: Any, file: str, limits: Limits) -> list[Beside]:
    """Check the structure of a parsed model.

    Args:
        model: A ``ModelProto``.
        file: Its name, for messages.
        limits: What is too large.

    Returns:
        Where the tensors are that lie in other files.

    Raises:
        CaptureError: K140–K144, with the tensor or node.
    """
    _check_head(model, file)
    walker = _Walker(file, limits)
    walker.count(model.graph.node)
    for function in model.functions:
        walker.count(function.node)
    check_functions(model, file, limits)
    walker.graph(model.graph, (), 0)
    for function in model.functions:
        walker.function(function)
    for training in model.training_info:
        for graph in (training.initialization, training.algorithm):
            walker.graph(graph, (), 0, wired=False)
    return walker.beside


def _check_head(model: Any, file: str) -> None:
    if not model.HasField("graph"):
        raise refusal(MALFORMED, file, "it holds no graph")
    domains = [entry.domain for entry in model.opset_import]
    if not domains and model.ir_version >= 3:
        raise refusal(MALFORMED, file, "it names no version of the operators")
    if len(set(domains)) != len(domains):
        raise refusal(GRAPH, file, "it names two versions of the same operators")
    if not 1 <= model.ir_version <= 1000:
        raise refusal(MALFORMED, file, f"its format version {model.ir_version} does not exist")


class _Walker:
    """Walks graphs and functions and counts."""

    def __init__(self, file: str, limits: Limits) -> None:
        self.file, self.limits = file, limits
        self.nodes = self.tensors = 0
        self.beside: list[Beside] = []

    def count(self, nodes: Any) -> None:
        """Count nodes before any of them is looked at."""
        self.nodes += len(nodes)
        if self.nodes > self.limits.nodes:
            raise self._large(f"it has {self.nodes} nodes or more", self.limits.nodes)

    def graph(self, graph: Any, outer: Scopes, depth: int, wired: bool = True) -> None:
        """Check one graph and what is inside its nodes."""
        if depth > self.limits.depth:
            raise self._large("its subgraphs lie inside each other too deeply", self.limits.depth)
        if len(graph.sparse_initializer):
            name = graph.sparse_initializer[0].values.name
            why = "sparse tensors are not supported: a few bytes of them can stand for gigabytes"
            raise refusal(GRAPH, self.file, why, named("tensor", name))
        self._check_counts(graph)
        known = self._declared(graph)
        for tensor in graph.initializer:
            self._tensor(tensor)
        for node in graph.node:
            self._node(node, known, outer, depth, wired)
        for value in graph.value_info:
            self._value(value)
        names = self._once((v.name for v in graph.output), "output")
        missing = next((n for n in names if n not in known and not _inside(n, outer)), None)
        if wired and missing is not None:
            raise self._wrong("nothing in the graph makes it", named("output", missing))

    def function(self, function: Any) -> None:
        """Check the body of a local function."""
        self._name(function.name)
        known = set(self._once(function.input, "input of a function"))
        for node in function.node:
            self._node(node, known, (), 1, True)
        missing = next((n for n in function.output if n not in known), None)
        if missing is not None:
            raise self._wrong("nothing in the function makes it", named("output", missing))

    # Values

    def _declared(self, graph: Any) -> set[str]:
        for value in (*graph.input, *graph.output):
            self._value(value)
        known = set(self._once((v.name for v in graph.input), "input"))
        return known | set(self._once((t.name for t in graph.initializer), "initializer"))

    def _once(self, names: Iterable[str], kind: str) -> list[str]:
        found: dict[str, None] = {}
        for name in names:
            self._name(name)
            if name in found or not name:
                why = "two of them have this name" if name else "it has no name"
                raise self._wrong(why, named(kind, name))
            found[name] = None
        return list(found)

    def _value(self, value: Any) -> None:
        self._name(value.name)
        kind = value.type.WhichOneof("value")
        if kind not in ("tensor_type", "sparse_tensor_type"):
            return
        shape = getattr(value.type, kind).shape
        if len(shape.dim) > self.limits.rank:
            raise self._large(f"it has {len(shape.dim)} dimensions", self.limits.rank, value.name)
        for size in shape.dim:
            self._name(size.dim_param)
            if size.dim_value < -1 or size.dim_value > 1 << 48:
                why = f"a dimension cannot have the size {size.dim_value}"
                raise self._wrong(why, named("value", value.name))

    def _tensor(self, tensor: Any, where: str = "") -> None:
        self._name(tensor.name)
        found = check_tensor(tensor, self.file, self.limits, where)
        if found is not None:
            self.beside.append(found)

    # Nodes

    def _node(self, node: Any, known: set[str], outer: Scopes, depth: int, wired: bool) -> None:
        place = named("node", node.name or next(iter(node.output), ""))
        for name in (node.name, node.op_type, node.domain, *node.input, *node.output):
            self._name(name)
        if wired:
            for name in node.input:
                if name and name not in known and not _inside(name, outer):
                    raise self._wrong(f"it reads {name[:80]!r} before anything makes it", place)
        seen: set[str] = set()
        for attribute in node.attribute:
            if attribute.name in seen:
                raise self._wrong(f"it has the attribute {attribute.name[:80]!r} twice", place)
            seen.add(attribute.name)
            self._attribute(attribute, place, known, outer, depth, wired)
        for name in node.output:
            if name and (name in known or _inside(name, outer)):
                raise self._wrong(f"it makes {name[:80]!r}, which is there already", place)
            if name:
                known.add(name)

    def _attribute(
        self,
        attribute: Any,
        place: str,
        known: set[str],
        outer: Scopes,
        depth: int,
        wired: bool,
    ) -> None:
        self._name(attribute.name)
        place = f"{place}, {named('attribute', attribute.name)}"
        filled = [f.name for f, _ in attribute.ListFields() if f.name in _FIELD_OF.values()]
        allowed = _FIELD_OF.get(attribute.type)
        if attribute.ref_attr_name and not filled:
            return
        if allowed is None or any(name != allowed for name in filled):
            raise self._wrong("its type and its content differ", place)
        if allowed.startswith("sparse"):
            raise self._wrong("sparse tensors are not supported", place)
        if allowed in _SINGLE and not filled and allowed in ("t", "g"):
            raise self._wrong("it is empty", place)
        if allowed in ("floats", "ints", "strings"):
            length = len(getattr(attribute, allowed))
            if length > self.limits.listed:
                raise self._large(f"it lists {length} entries", self.limits.listed, place)
        for tensor in (*([attribute.t] if allowed == "t" else []), *attribute.tensors):
            self._tensor(tensor, place)
        for graph in (*([attribute.g] if allowed == "g" else []), *attribute.graphs):
            self.count(graph.node)
            self.graph(graph, (*outer, known), depth + 1, wired)

    # The rest

    def _check_counts(self, graph: Any) -> None:
        self.tensors += len(graph.initializer)
        for what, count in (
            ("tensors", self.tensors),
            ("inputs", len(graph.input)),
            ("outputs", len(graph.output)),
            ("descriptions of values", len(graph.value_info)),
            ("annotations", len(graph.quantization_annotation)),
        ):
            if count > self.limits.tensors:
                raise self._large(f"it has {count} {what}", self.limits.tensors)

    def _name(self, name: str) -> None:
        if len(name) > self.limits.name_length:
            raise self._large(
                f"it has {len(name)} characters", self.limits.name_length, named("name", name)
            )
        if len(name) > self.limits.name_parts and (
            len(_SEPARATORS.findall(name)) > self.limits.name_parts
        ):
            raise self._large("it has too many parts", self.limits.name_parts, named("name", name))

    def _large(self, why: str, limit: int, where: str = "") -> Exception:
        return refusal(TOO_LARGE, self.file, f"{why}; {limit} are allowed", where)

    def _wrong(self, why: str, where: str) -> Exception:
        return refusal(GRAPH, self.file, why, where)


def _inside(name: str, scopes: Scopes) -> bool:
    return any(name in scope for scope in scopes)
