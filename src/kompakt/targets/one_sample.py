"""Networks written for one sample at a time, as runtimes of phones want them."""

from __future__ import annotations

from torch import Tensor

from kompakt.network.network import Network


def one_sample(network: Network) -> tuple[tuple[Tensor, ...], str | None]:
    """Inputs of one sample, and the name of the batch dimension when all inputs and outputs have it first."""
    specs = (*network.input_specs, *network.output_specs)
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    batch = first.pop() if len(first) == 1 else None
    tensors = [example.detach().contiguous() for example in network.example_inputs()]
    if not isinstance(batch, str):
        return tuple(tensors), None
    return tuple(example[:1].contiguous() for example in tensors), batch


def size_notes(network: Network, batch: str | None) -> tuple[str, ...]:
    """What a user should know about the sizes of such a file."""
    sizes = {size for spec in network.input_specs for size in spec.shape if isinstance(size, str)}
    fixed = sorted(sizes - {batch})
    notes = []
    if batch is not None:
        notes.append(
            "the file computes one sample a call; loaded by kompakt, batches run one by one"
        )
    if fixed:
        notes.append(f"{', '.join(fixed)}: fixed to the size of the example inputs")
    return tuple(notes)
