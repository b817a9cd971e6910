"""The ONNX file a network was imported from, kept for writing it back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir


@dataclass(frozen=True)
class OnnxSource:
    """A model file, without the weights it keeps beside itself.

    Attributes:
        content: The serialized model; weights in other files are references.
        folder: Where those files are.
        name: The file's name.
        held: What must live as long as the folder is needed: the private copy of a file that was checked.
    """

    content: bytes
    folder: Path
    name: str
    held: object = field(default=None, repr=False, compare=False)

    @classmethod
    def read(cls, path: Path, held: object = None) -> OnnxSource:
        """The file at ``path``."""
        return cls(path.read_bytes(), path.parent, path.name, held)

    def proto(self) -> onnx.ModelProto:
        """The model, freshly parsed."""
        return onnx.load_model_from_string(self.content)

    def model(self) -> ir.Model:
        """The model, freshly parsed, with weights mapped from where they are."""
        model = ir.from_proto(self.proto())
        ir.external_data.set_base_dir(model.graph, self.folder)
        return model

    @property
    def opset(self) -> int:
        """Version of the standard operators it uses."""
        return next(
            (o.version for o in self.proto().opset_import if o.domain in ("", "ai.onnx")), 1
        )

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.content).hexdigest()

    def __deepcopy__(self, memo: dict[int, object]) -> OnnxSource:
        return self
