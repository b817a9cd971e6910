"""Data: any iterable of batches, D strings of the command line, checks against the inputs."""

from kompakt.measuring.data.batch import Batch, InputSpec, split_batch
from kompakt.measuring.data.dataset import ArrayDataset, Dataset
from kompakt.measuring.data.generated import Generated, for_network
from kompakt.measuring.data.groups import with_groups
from kompakt.measuring.data.held import hold_in_memory
from kompakt.measuring.data.prepare import Prepared, prepare, require_reiterable
from kompakt.measuring.data.source import open_data

__all__ = [
    "ArrayDataset",
    "Batch",
    "Dataset",
    "Generated",
    "InputSpec",
    "Prepared",
    "for_network",
    "hold_in_memory",
    "open_data",
    "prepare",
    "require_reiterable",
    "split_batch",
    "with_groups",
]
