"""INT8 for a transformer without any data: weights stored in INT8, activation ranges computed at run time.

    python examples/transformer.py [FOLDER]

The encoder has random weights: the example is about shapes, sites and files, not about accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import kompakt


class Encoder(nn.Module):
    """Token ids (N, length) to one vector each (N, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 64)
        layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=256, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Mean over the sequence of the encoded tokens."""
        encoded: Tensor = self.encoder(self.embedding(ids)).mean(1)
        return encoded


def main(folder: Path) -> None:
    """Compress the encoder and run the result on sequences of several lengths."""
    torch.manual_seed(0)
    model = Encoder().eval()
    ids = torch.randint(0, 500, (2, 12))
    result = kompakt.compress(
        model,
        example_inputs={"ids": ids},
        dynamic={"ids": {1: "length"}},
        scheme="w8a8-dynamic",
        measure_latency=False,
        measure_memory=False,
        out=folder / "encoder",
    )
    for site in result.record.sites:
        if site["role"] == "weight":
            print(f"  {site['name']:44} {site['format'] or 'float: ' + site['why_float']}")

    compact = kompakt.load(folder / "encoder")
    for length in (4, 12, 40):
        ids = torch.randint(0, 500, (3, length))
        (ours,) = compact({"ids": ids.numpy()}).values()
        theirs = model(ids).detach().numpy()
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        print(f"length {length:2}: relative error {error:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
