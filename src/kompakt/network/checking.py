"""Checks the arguments of a call to a Network against what was captured.

A captured graph has no Python left that would complain about a wrong input, and some wrong inputs
would run silently to a wrong answer. So every call is compared with the interface first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from kompakt.errors import DataError
from kompakt.network import tree
from kompakt.network.interface import Interface, TensorSpec, bind


def checked_tensors(
    interface: Interface, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Tensor]:
    """The input tensors of a call in placeholder order.

    Raises:
        DataError: K130 when the arguments do not fit the signature or structure, K131 when one that
            is not a tensor has another value than at capture, K132 for a wrong dtype, K133 for a
            wrong rank or size.
    """
    bound = _bound(interface, args, kwargs)
    leaves, structure = tree.flatten(bound)
    if structure != interface.input_structure:
        _refuse_structure(interface, bound)
    tensors = []
    for position, leaf in enumerate(leaves):
        if position in interface.constants:
            _check_constant(interface.leaf_names[position], interface.constants[position], leaf)
        elif isinstance(leaf, Tensor):
            tensors.append(leaf)
        else:
            raise DataError(
                "K130",
                f"input '{interface.leaf_names[position]}' is {type(leaf).__name__}",
                why="a tensor was captured there",
                help="pass a tensor",
            )
    if not (torch.compiler.is_compiling() or torch.compiler.is_exporting()):
        check_tensors(interface, tensors)
    return tensors


def check_tensors(interface: Interface, tensors: Sequence[Tensor]) -> None:
    """Check dtype, rank and sizes of the input tensors, given in placeholder order.

    Raises:
        DataError: K132 or K133, naming the input.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for spec, tensor in zip(interface.input_specs, tensors, strict=True):
        if tensor.dtype != spec.dtype:
            raise DataError(
                "K132",
                f"input '{spec.name}' has dtype {_short(tensor.dtype)}",
                why=f"the network was captured with {_short(spec.dtype)}",
                help=f"convert it: {spec.name}.to(torch.{_short(spec.dtype)})",
            )
        if tensor.ndim != len(spec.shape):
            _refuse_shape(spec, tensor, f"it must have {len(spec.shape)} dimensions")
        for axis, wanted in enumerate(spec.shape):
            _check_size(interface, spec, tensor, axis, wanted, sizes)


def _check_size(
    interface: Interface,
    spec: TensorSpec,
    tensor: Tensor,
    axis: int,
    wanted: int | str,
    sizes: dict[str, tuple[int, str]],
) -> None:
    size = tensor.shape[axis]
    if isinstance(wanted, int):
        if size != wanted:
            _refuse_shape(spec, tensor, f"dimension {axis} is fixed to {wanted}")
        return
    known, where = sizes.setdefault(wanted, (size, f"'{spec.name}' dimension {axis}"))
    if known != size:
        _refuse_shape(
            spec,
            tensor,
            f"dimension {axis} is '{wanted}', which is {known} in {where}",
        )
    low, high = interface.ranges.get(wanted, (0, None))
    if size < low or (high is not None and size > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        _refuse_shape(spec, tensor, f"dimension {axis} ('{wanted}') must be {limits}")


def _bound(interface: Interface, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name; defaults spelled out by the caller but not at capture are left
    out again.
    """
    try:
        bound = bind(interface.signature, args, kwargs)
    except TypeError as error:
        raise DataError(
            "K130",
            f"calling the network with {len(args)} positional arguments and {sorted(kwargs)}",
            why=str(error),
            help=f"call it as the model: forward{interface.signature}",
        ) from None
    captured = _captured_parameters(interface)
    parameters = interface.signature.parameters
    extra = [
        name
        for name in bound
        if name not in captured and not same_constant(parameters[name].default, bound[name])
    ]
    if extra:
        raise DataError(
            "K130",
            f"argument '{extra[0]}'",
            why="the network was captured without it, so nothing in the graph reads it",
            help="add it to example_inputs and capture again",
        )
    for name in captured:
        if name not in bound and parameters[name].default is not parameters[name].empty:
            bound[name] = parameters[name].default
    return {name: bound[name] for name in captured if name in bound}


def _captured_parameters(interface: Interface) -> list[str]:
    """Names of the parameters that were given at capture."""
    context = interface.input_structure.context
    return list(context) if context is not None else []


def _check_constant(name: str, captured: Any, given: Any) -> None:
    if same_constant(captured, given):
        return
    raise DataError(
        "K131",
        f"argument '{name}' = {given!r:.60}",
        why=f"it was captured as {captured!r:.60}, and the graph only holds that case",
        help="capture again with the value you want, one network for each",
    )


def same_constant(captured: Any, given: Any) -> bool:
    """Whether two arguments that are not tensors are equal (tensors never are)."""
    if captured is given:
        return True
    if isinstance(captured, Tensor) or isinstance(given, Tensor):
        return False
    return bool(type(captured) is type(given) and captured == given)


def _refuse_structure(interface: Interface, bound: Mapping[str, Any]) -> NoReturn:
    wanted = ", ".join(interface.leaf_names)
    given = ", ".join(tree.leaf_names(dict(bound), "input"))
    raise DataError(
        "K130",
        f"inputs ({given})",
        why=f"the network was captured with ({wanted})",
        help="pass the same nested containers with the same keys as in example_inputs",
    )


def _refuse_shape(spec: TensorSpec, tensor: Tensor, why: str) -> NoReturn:
    raise DataError(
        "K133",
        f"input '{spec.name}' has shape {list(tensor.shape)}",
        why=f"the network takes {spec}, and {why}",
        help="reshape the input, or make the dimension dynamic: "
        f"capture(…, dynamic={{'{spec.name}': {{axis: 'name'}}}})",
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
