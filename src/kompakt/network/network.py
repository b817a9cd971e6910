"""The Network: a model with its wiring made explicit.

It is an ordinary ``torch.fx.GraphModule``. Operators that own parameters are calls to real ``nn``
modules under the names they had in the user's model; everything else is a plain ATen call. Every
node that yields a tensor carries ``node.meta["site"]`` (a stable dotted name) and
``node.meta["val"]`` (a fake tensor with its shape and dtype).

The graph itself is flat: one placeholder for each input tensor, one list of output leaves. Two
lines of generated code around it take the caller's arguments apart and put the outputs together
again, so a Network is called like the model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NoReturn

from torch import Tensor, fx, nn
from torch.fx.graph import CodeGen

from kompakt.network import tree
from kompakt.network.checking import checked_tensors
from kompakt.network.interface import Interface, TensorSpec, call_arguments

__all__ = ["Interface", "Network", "StructuredCodeGen", "TensorSpec"]

_CONTENT = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")


class StructuredCodeGen(CodeGen):
    """Generates a ``forward`` that takes the user's own arguments and returns the model's own
    containers.

    Args:
        interface: How the network is called.
    """

    def __init__(self, interface: Interface) -> None:
        super().__init__()
        self.interface = interface

    def process_inputs(self, *args: Any) -> list[Tensor]:
        """Input tensors for ``torch.fx.Interpreter``, from structured or flat arguments."""
        return [leaf for leaf in tree.flatten(args)[0] if isinstance(leaf, Tensor)]

    def process_outputs(self, outputs: Any) -> Any:
        """What the model would return, for ``torch.fx.Interpreter``."""
        return tree.unflatten(list(outputs), self.interface.output_structure)

    def gen_fn_def(self, free_vars: list[str], maybe_return_annotation: str, **_: Any) -> str:
        """``def forward(self, *args, **kwargs)`` and the line that unpacks them into the
        placeholders.
        """
        names = "".join(f"{name.split(':')[0].split('#')[0].strip()}, " for name in free_vars)
        head = f"def {self._func_name}(self, *args, **kwargs){maybe_return_annotation}:"
        return f"{head}\n    {names}= self.flatten_inputs(*args, **kwargs)" if names else head

    def generate_output(self, output_args: Any, **options: Any) -> str:
        """The return statement."""
        text = (options.get("repr_fn") or repr)(output_args)
        return f"return self.unflatten_outputs({text})"


class Network(fx.GraphModule):
    """A captured model. Make one with :func:`kompakt.capture`; copy it with ``copy.deepcopy``.

    Args:
        root: Holds every module, parameter and buffer the graph names; adopted, not copied.
        graph: Flat graph: tensor placeholders in, one list of leaves out.
        interface: How the network is called.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, interface: Interface) -> None:
        graph.set_codegen(StructuredCodeGen(interface))
        super().__init__(root, graph, class_name="Network")
        # GraphModule copies only what nodes name, which loses tied names and the "not persistent"
        # mark of buffers.
        for part in _CONTENT:
            self.__dict__[part] = root.__dict__[part]
        self.training = root.training
        self.interface = interface

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and dtype of every input tensor, in placeholder order; dynamic dimensions are
        names.
        """
        return self.interface.input_specs

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and dtype of every output tensor, in the order of the flattened output."""
        return self.interface.output_specs

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how this network differs from the model."""
        return self.interface.notes

    @property
    def original_class(self) -> str:
        """Qualified name of the class of the model this network was captured from."""
        return self.interface.original_class

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One small tensor for each input, in placeholder order."""
        return self.interface.example

    def flatten_inputs(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """The input tensors in placeholder order, from arguments as the model takes them.

        Raises:
            DataError: K130–K133 when an argument, its structure, shape or dtype is not what was
                captured.
        """
        return checked_tensors(self.interface, args, kwargs)

    def unflatten_outputs(self, leaves: Sequence[Any]) -> Any:
        """What the model would return, from the flat list of its output leaves."""
        return tree.unflatten(list(leaves), self.interface.output_structure)

    def flatten_outputs(self, outputs: Any) -> list[Tensor]:
        """The output tensors in the order of :attr:`output_specs`, from what a call returned."""
        return [leaf for leaf in tree.flatten(outputs)[0] if isinstance(leaf, Tensor)]

    def call_flat(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run on one tensor for each input, in placeholder order; return the output tensors as a
        flat list.
        """
        bound = self.interface.bound(tensors)
        args, kwargs = call_arguments(self.interface.signature, bound)
        return self.flatten_outputs(self(*args, **kwargs))

    def flat(self) -> fx.GraphModule:
        """The same graph and modules as a plain GraphModule: tensors in, a tuple of output tensors
        out.

        Its ``forward`` has one parameter for each of :attr:`input_specs`, by name. Parameters are
        shared with this network. Meant for tools that want a flat signature, such as exporters.
        """
        graph = copy.deepcopy(self.graph)
        graph.set_codegen(CodeGen())
        output = graph.output_node()
        leaves = tree.flatten(output.args[0])[0]
        output.args = (tuple(leaf for leaf in leaves if holds_tensor(leaf)),)
        flat = fx.GraphModule(self, graph, class_name="FlatNetwork")
        flat.training = self.training
        return flat

    def __copy__(self) -> Network:
        """Another graph over the same layers and tensors."""
        root = nn.Module()
        for part in _CONTENT:
            root.__dict__[part] = copy.copy(self.__dict__[part])
        root.training = self.training
        return Network(root, copy.deepcopy(self.graph), self.interface)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Network cannot be pickled (kompakt never loads code from files): keep "
            "network.state_dict() and capture the model again"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        root = nn.Module()
        for part in _CONTENT:
            root.__dict__[part] = copy.deepcopy(self.__dict__[part], memo)
        root.training = self.training
        twin = Network(root, copy.deepcopy(self.graph), self.interface)
        twin.meta = copy.deepcopy(self.meta, memo)
        memo[id(self)] = twin
        return twin


def holds_tensor(node: Any) -> bool:
    """Whether ``node`` is a graph node that yields exactly one tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor)
