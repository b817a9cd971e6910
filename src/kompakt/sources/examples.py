"""Example inputs for a model whose source does not tell them: the first batch of the data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from kompakt.errors import CaptureError
from kompakt.measuring.data import Batch, Generated, open_data
from kompakt.network.examples import read_example
from kompakt.network.interface import plain_signature
from kompakt.network.network import Network
from kompakt.sources.huggingface import sequence_dimensions
from kompakt.sources.open import Source

LABEL_NAMES = frozenset(("labels", "label"))


def with_example(source: Source, data: Mapping[str, str]) -> Source:
    """The source with example inputs, taken from the data where it does not bring its own.

    A Hugging Face model accepts many inputs and its data says which of them are used, so there the
    data comes first.

    Args:
        source: A model.
        data: Data strings by the split each is for; the first one counts.

    Raises:
        CaptureError: K018 when nothing tells what the inputs look like.
        DataError: When the data cannot be opened.
    """
    is_given = source.example_inputs is not None
    if is_given and source.kind != "Hugging Face directory":
        return source
    for split, spec in data.items():
        opened = open_data(spec, (), split)
        if isinstance(opened, Generated):
            continue  # it is made for a network that is captured with example inputs
        example = first_inputs(source.model, next(iter(opened)))
        dynamic = sequence_dimensions(example) if source.dynamic else {}
        return replace(source, example_inputs=example, dynamic=dynamic)
    if is_given:
        return source
    raise CaptureError("K018", f"example inputs for {source.name}", why="no data was given either")


def first_inputs(model: nn.Module, batch: Any) -> Any:
    """The inputs in one batch of anything a data source may yield.

    Args:
        model: Its ``forward`` says how many inputs there are, and their names.
        batch: A tensor, a tuple or a mapping; alone or with labels.

    Returns:
        A tensor, a tuple of positional or a dict of keyword inputs.
    """
    if isinstance(batch, Batch):
        return _named(model, batch.inputs)
    if isinstance(batch, Mapping):
        return _named(model, {k: v for k, v in batch.items() if k not in LABEL_NAMES})
    if not isinstance(batch, (tuple, list)):
        return batch
    if len(batch) == 2 and isinstance(batch[0], (tuple, list, Mapping)):
        return first_inputs(model, batch[0]) if isinstance(batch[0], Mapping) else tuple(batch[0])
    needed = _required(model)
    return _alone(batch[:-1] if len(batch) == needed + 1 else batch)


def input_names(model: nn.Module, example_inputs: Any) -> list[str]:
    """The names the captured model's inputs will have, in order."""
    if isinstance(model, Network):
        return [spec.name for spec in model.input_specs]
    signature = plain_signature(model.forward)
    example = read_example(signature, example_inputs, None, 0)
    leaves = zip(example.names, example.leaves, strict=True)
    return [name for name, leaf in leaves if isinstance(leaf, Tensor)]


def _named(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    accepted = inspect.signature(model.forward).parameters
    named = {name: inputs[name] for name in accepted if name in inputs}
    if named:
        return named
    return _alone(list(inputs.values()))


def _alone(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else tuple(parts)


def _required(model: nn.Module) -> int:
    parameters = inspect.signature(model.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)
