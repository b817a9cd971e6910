"""Functions of a model file: none may call itself, and no small file may unfold into an endless one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kompakt.guard.limits import Limits
from kompakt.guard.refusals import GRAPH, TOO_LARGE, named, refusal

Key = tuple[str, str, str]


def check_functions(model: Any, file: str, limits: Limits) -> None:
    """Follow all calls.

    Runtimes put a function's nodes where it is called, again and again: a chain of calls can exhaust their stack,
    and a function that calls another twice, which calls another twice, doubles with each step.

    Raises:
        CaptureError: K144 for a function defined twice or one that calls itself; K141 for chains that are too
            long or unfold into too much.
    """
    functions: dict[Key, Any] = {}
    for function in model.functions:
        key = (_domain(function.domain), function.name, function.overload)
        if key in functions:
            raise refusal(GRAPH, file, "it is there twice", named("function", function.name))
        functions[key] = function
    if not functions:
        return
    calls = {key: list(_calls(f.node, functions)) for key, f in functions.items()}
    sizes: dict[Key, int] = {}
    depths: dict[Key, int] = {}
    for key in _in_order(calls, file):
        sizes[key] = sum(1 if c is None else sizes[c] for c in calls[key])
        depths[key] = 1 + max((depths[c] for c in calls[key] if c is not None), default=0)
        place = named("function", key[1])
        if depths[key] > limits.call_depth:
            why = f"it calls others {depths[key]} deep; {limits.call_depth} are allowed"
            raise refusal(TOO_LARGE, file, why, place)
        if sizes[key] > limits.expanded_nodes:
            raise refusal(TOO_LARGE, file, f"it unfolds into {sizes[key]} nodes", place)
    unfolded = sum(1 if c is None else sizes[c] for c in _calls(model.graph.node, functions))
    if unfolded > limits.expanded_nodes:
        why = f"its functions unfold into {unfolded} nodes; {limits.expanded_nodes} are allowed"
        raise refusal(TOO_LARGE, file, why)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _calls(nodes: Any, functions: dict[Key, Any]) -> Iterator[Key | None]:
    """For each node, those of its subgraphs included, the function that it calls or None."""
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            key = (_domain(node.domain), node.op_type, node.overload)
            yield key if key in functions else None
            for attribute in node.attribute:
                waiting.extend(g.node for g in (attribute.g, *attribute.graphs) if len(g.node))


def _in_order(calls: dict[Key, list[Key | None]], file: str) -> Iterator[Key]:
    """The functions, each behind those that it calls; without recursion, chains can be long."""
    done: set[Key] = set()
    for start in calls:
        stack, open_now = [(start, iter(calls[start]))], {start}
        if start in done:
            continue
        while stack:
            key, rest = stack[-1]
            called = next((c for c in rest if c is not None and c not in done), None)
            if called is None:
                stack.pop()
                open_now.discard(key)
                if key not in done:
                    done.add(key)
                    yield key
            elif called in open_now:
                raise refusal(GRAPH, file, "it calls itself", named("function", called[1]))
            else:
                open_now.add(called)
                stack.append((called, iter(calls[called])))
