"""Puts layers and loose tensors back into a module tree with the model's own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kompakt.network.program import Traced


@dataclass(frozen=True)
class Tree:
    """A module tree and how its state dict differs from the model's.

    Attributes:
        root: Holds every layer and tensor of a graph.
        renamed: Name in the model → names here, for tensors that could not keep their name.
        dropped: Names in the model of tensors that no operator reads.
    """

    root: nn.Module
    renamed: dict[str, tuple[str, ...]]
    dropped: tuple[str, ...]


def assemble(traced: Traced, layers: Mapping[str, nn.Module], model: nn.Module) -> Tree:
    """The module tree for ``traced.graph``.

    Args:
        traced: Flat graph with layer calls and ``get_attr`` nodes.
        layers: Name → layer.
        model: The module it came from; its tensors are shared, not copied.
    """
    root = nn.Module()
    used = {str(node.target) for node in traced.graph.nodes if node.op == "call_module"}
    own = [
        name for name, _ in nn.Module.named_modules(model, remove_duplicate=False) if name in layers
    ]
    made = sorted(layers.keys() - set(own), key=lambda name: (name.count("."), name))
    for name in (*own, *made):
        if name in used:
            _place(root, name, layers[name])
    for node in traced.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        _store(root, name, traced.tensors[name], persistent=name not in traced.transient)
    root.eval()
    renamed, dropped = _compare(root, model, traced)
    return Tree(root, renamed, dropped)


def tensors_by_name(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and every buffer that belongs in the state dict, under all of its names."""
    found: dict[str, Tensor] = dict(nn.Module.named_parameters(module, remove_duplicate=False))
    for path, part in nn.Module.named_modules(module, remove_duplicate=False):
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._non_persistent_buffers_set:
                found[f"{path}.{name}" if path else name] = buffer
    return found


def _compare(
    root: nn.Module, model: nn.Module, traced: Traced
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Give tied tensors all their names; report tensors with another name and those that are
    gone.
    """
    here = tensors_by_name(root)
    names: dict[int, list[str]] = {}
    for name, tensor in here.items():
        names.setdefault(id(tensor), []).append(name)
    originals = tensors_by_name(model)
    kept = {id(tensor) for name, tensor in originals.items() if name in here}
    renamed: dict[str, tuple[str, ...]] = {}
    dropped: list[str] = []
    for name, tensor in originals.items():
        if name in here:
            continue
        if id(tensor) in kept:
            _store(root, name, tensor, persistent=True)
        elif id(tensor) in names:
            renamed[name] = tuple(names[id(tensor)])
        elif name in traced.pieces:
            cut = [traced.tensors[piece] for piece in traced.pieces[name].values()]
            renamed[name] = tuple(other for piece in cut for other in names.get(id(piece), ()))
        else:
            dropped.append(name)
    return renamed, tuple(dropped)


def _store(root: nn.Module, name: str, tensor: Tensor, *, persistent: bool) -> None:
    path, _, attribute = name.rpartition(".")
    owner = _parent(root, path)
    if attribute in owner._parameters or attribute in owner._buffers:
        return
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(attribute, tensor)
    else:
        owner.register_buffer(attribute, tensor, persistent=persistent)


def _place(root: nn.Module, name: str, layer: nn.Module) -> None:
    path, _, attribute = name.rpartition(".")
    _parent(root, path)._modules[attribute] = layer


def _parent(root: nn.Module, path: str) -> nn.Module:
    module = root
    for part in path.split(".") if path else []:
        if module._modules.get(part) is None:
            module._modules[part] = nn.Module()
        module = module._modules[part]  # type: ignore[assignment]
    return module
