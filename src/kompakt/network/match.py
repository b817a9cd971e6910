"""Selects layers by name, kind or type.

``layer1.*`` and ``*.conv?`` are globs over names (a module's name also selects everything inside
it), ``kind:linear`` selects by what a layer does, ``type:Conv2d`` by its class. A selector that
selects nothing is an error: otherwise what was asked for would silently not happen.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from kompakt.errors import SchemeError
from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.network import Network

_NOT_SELECTABLE = frozenset(("input", "output", "constant", "getitem", "shape"))


def match(names: Sequence[str], pattern: str) -> list[str]:
    """The names a glob selects, in their order.

    Args:
        names: Dotted names.
        pattern: A glob; ``*`` also crosses dots. A name selects everything below it as well.

    Raises:
        SchemeError: K320 when nothing matches; names the nearest ones.
    """
    found = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")]
    if not found:
        _refuse(f"the pattern '{pattern}'", pattern, names)
    return found


def select(network: Network, selector: str) -> list[str]:
    """Names of the layers and operators a selector picks, in execution order.

    Args:
        network: Where to look.
        selector: A glob over names, ``kind:…`` or ``type:…``.

    Returns:
        Layer names (as in ``node.target``) and, for operators without a layer, sites.

    Raises:
        SchemeError: K320 when nothing is selected; names the nearest candidates.
    """
    word, colon, wanted = selector.partition(":")
    entries = _entries(network)
    if not colon:
        return match(list(entries), selector)
    if word not in ("kind", "type"):
        raise SchemeError(
            "K321",
            f"the selector '{selector}'",
            why=f"'{word}:' is not a way to select",
            help="write a name with wildcards, kind:… or type:…",
        )
    groups = {name: (kind,) if word == "kind" else types for name, (kind, types) in entries.items()}
    found = [name for name, group in groups.items() if wanted in group]
    if not found:
        known = sorted({text for group in groups.values() for text in group})
        _refuse(f"the selector '{selector}'", wanted, known)
    return found


def _entries(network: Network) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name → (kind, class names) of everything that can be selected."""
    entries: dict[str, tuple[str, tuple[str, ...]]] = {}
    for node in network.graph.nodes:
        kind = kind_of(node)
        if kind in _NOT_SELECTABLE:
            continue
        layer = layer_of(node)
        name = str(node.target) if layer is not None else str(node.meta.get("site", node.name))
        entries.setdefault(name, (kind, _class_names(layer)))
    return entries


def _class_names(layer: nn.Module | None) -> tuple[str, ...]:
    if layer is None:
        return ()
    stop = (nn.Module, object)
    return tuple(t.__name__ for t in type(layer).__mro__ if t not in stop and t.__name__[0] != "_")


def _refuse(what: str, wanted: str, known: Sequence[str]) -> None:
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or list(known[:3])
    listed = ", ".join(near) if near else "nothing: the network has no layers"
    raise SchemeError("K320", what, why="it selects nothing", help=f"the nearest are: {listed}")
