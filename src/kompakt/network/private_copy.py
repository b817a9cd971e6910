"""The copy of the user's model that a Network is made from, in eval mode and with plain weights."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

from kompakt.errors import CaptureError
from kompakt.network.failure import first_line, user_frame


def private_copy(model: nn.Module) -> tuple[nn.Module, dict[str, list[str]]]:
    """A deep copy of ``model`` in eval mode, and its parametrized tensors: name → names they came
    from.

    Parametrized weights (weight norm, spectral norm, …) are replaced by their current value: an
    ordinary parameter, which is what gets quantized, pruned and deployed.

    Raises:
        CaptureError: K107 when the model cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise CaptureError(
            "K107",
            f"copying {type(model).__name__}",
            where=user_frame(error),
            why=f"copy.deepcopy fails: {first_line(str(error))}",
        ) from error
    nn.Module.eval(twin)
    return twin, _settle_parametrizations(twin)


def _settle_parametrizations(model: nn.Module) -> dict[str, list[str]]:
    """Replace parametrized tensors by parameters; returns their names and the names they were
    computed from.
    """
    settled = {}
    for path, module in list(nn.Module.named_modules(model)):
        if parametrize.is_parametrized(module):
            for name, originals in _settle(module).items():
                full = f"{path}.{name}" if path else name
                settled[full] = [f"{path}.{o}" if path else o for o in originals]
    return settled


def _settle(module: nn.Module) -> dict[str, list[str]]:
    """Settle one module. Its class was made for it alone, but the copy shares that class with the
    user's module.

    ``remove_parametrizations`` would change the shared class, so the copy goes back to the plain
    class by itself.
    """
    names = list(module.parametrizations)  # type: ignore[arg-type]
    with torch.no_grad():
        values = {name: getattr(module, name).detach().clone() for name in names}
    originals = {
        name: [
            f"parametrizations.{name}.{key}"
            for key in module.parametrizations[name].state_dict()  # type: ignore[index, union-attr]
        ]
        for name in names
    }
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, tensor in values.items():
        module.register_parameter(name, nn.Parameter(tensor))
    return originals
