"""Where in the model's module tree an operator was called from."""

from __future__ import annotations

import re

from torch import fx


def module_path(node: fx.Node, keep_call: bool = False) -> str:
    """Dotted name of the module whose ``forward`` contains this operator.

    Args:
        node: A node with ``nn_module_stack``.
        keep_call: Whether the second call of a module keeps its mark: ``"block@1"``.
    """
    key, path, _ = _innermost(node)
    path = re.sub(r"@\d+", "", path)
    call = re.search(r"@\d+$", key)
    return path + call.group() if keep_call and call else path


def module_type(node: fx.Node) -> str:
    """Qualified name of the class of the module whose ``forward`` contains this operator."""
    return _innermost(node)[2]


def _innermost(node: fx.Node) -> tuple[str, str, str]:
    """Key, dotted path and type name of the last entry of the module stack."""
    stack = node.meta.get("nn_module_stack") or {}
    for key, (path, kind) in reversed(list(stack.items())):
        if not key.startswith("_empty_nn_module"):
            name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            return key, path, name
    return "", "", ""
