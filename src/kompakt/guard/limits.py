"""How large a model file from a stranger may be."""

from __future__ import annotations

from dataclasses import dataclass

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused above which number. Real models stay far below all of them.

    Attributes:
        file_bytes: The file itself; protobuf ends at 2 GiB.
        beside_bytes: All weights in files beside it.
        nodes: Nodes of all graphs, subgraphs and functions.
        expanded_nodes: Nodes after every function call is replaced by the function's nodes.
        tensors: Stored tensors, or descriptions of values, each.
        listed: Numbers or texts in one attribute.
        name_length: Characters of one name.
        name_parts: Parts of one name between dots, slashes and colons.
        depth: Subgraphs inside each other.
        call_depth: Functions that call each other.
        rank: Dimensions of one tensor.
        input_bytes: One input, with 2 for each size that may change; a 4K picture in float32 has 99.5 MB.
        constant_bytes: All values together that follow from constants alone.
        invented_bytes: One value of an operator that makes much of little, such as Expand.
        value_bytes: Any one value of known size.
        memory_bytes: Memory for loading, above what the process starts with.
        memory_per_byte: Further memory for each byte of the file and its weights.
        run_memory_bytes: Memory for running once on small inputs.
        seconds: Processor time for checking, loading and running once.
        seconds_per_gb: Further time for each GiB.
    """

    file_bytes: int = 2 * GB
    beside_bytes: int = 64 * GB
    nodes: int = 100_000
    expanded_nodes: int = 200_000
    tensors: int = 200_000
    listed: int = 10_000_000
    name_length: int = 2048
    name_parts: int = 64
    depth: int = 16
    call_depth: int = 32
    rank: int = 32
    input_bytes: int = 100 * MB
    constant_bytes: int = 128 * MB
    invented_bytes: int = 256 * MB
    value_bytes: int = GB
    memory_bytes: int = 320 * MB
    memory_per_byte: int = 10
    run_memory_bytes: int = 2 * GB
    seconds: float = 10.0
    seconds_per_gb: float = 120.0

    def memory_for(self, size: int) -> int:
        """Bytes that may be taken to load files of so many bytes."""
        return self.memory_bytes + self.memory_per_byte * size

    def seconds_for(self, size: int) -> float:
        """Processor time for files of so many bytes."""
        return self.seconds + self.seconds_per_gb * size / GB
