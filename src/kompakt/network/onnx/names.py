"""Names out of a file as Python identifiers: PyTorch writes code with them, so nothing else may come through."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections import Counter

import onnx_ir as ir
from torch import nn


class Names:
    """Makes identifiers of the file's names, each once."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.parents: set[str] = set()
        self.tried: Counter[str] = Counter()

    def path(self, node: ir.Node) -> str:
        """A dotted module path for a node: its own name, or that of its first output."""
        named = next((str(o.name) for o in node.outputs if o.name), node.op_type)
        return self._once(dotted(node.name or named, node.op_type.lower()))

    def attribute(self, name: str) -> str:
        """An attribute name for a constant."""
        return self._once("constant_" + identifier(name, "tensor"))

    def _once(self, wanted: str) -> str:
        # A module may not have the name of a module that holds it, nor of another's attribute.
        name = wanted
        while name in self.taken or name in self.parents:
            self.tried[wanted] += 1
            name = f"{wanted}_{self.tried[wanted] + 1}"
        parts = name.split(".")
        above = [".".join(parts[:end]) for end in range(1, len(parts))]
        if any(parent in self.taken for parent in above):
            return self._once(name.replace(".", "_"))
        self.taken.add(name)
        self.parents.update(above)
        return name


def dotted(name: str, otherwise: str) -> str:
    """A path of identifiers from a name with slashes, dots or colons; ``otherwise`` when nothing is left."""
    parts = [identifier(part, "") for part in re.split(r"[/.:]+", name)]
    kept = [part for part in parts if part]
    kept = [
        f"{part}_" if hasattr(nn.Module, part) or part == "quantizers" else part for part in kept
    ]
    return ".".join(kept) or identifier(otherwise, "node")


def identifier(text: str, otherwise: str) -> str:
    """An identifier that is no keyword, from any text."""
    # Python reads identifiers in this form: another one would name something else in code than in a string.
    found = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", text)).strip("_")
    if found and found[0].isdigit():
        found = f"n{found}"
    if found and not found.isidentifier():
        found = re.sub(r"\W+", "_", found, flags=re.ASCII).strip("_") or "n"
    found = found or otherwise
    return f"{found}_" if keyword.iskeyword(found) else found
