"""What a conversion returns."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dpnorm.errors import InputError
from dpnorm.files import replacing, write_text


@dataclass(frozen=True)
class Change:
    """One layer that was replaced: its path, the layer before and after as text, and how."""

    path: str
    before: str
    after: str
    detail: str


@dataclass(frozen=True)
class Conversion:
    """A converted copy of a model and the list of its changes."""

    model: nn.Module
    to: str
    init: str
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """The conversion without its weights, as plain data."""
        return {"to": self.to, "init": self.init, "changes": [asdict(c) for c in self.changes]}

    def __str__(self) -> str:
        lines = [f"{len(self.changes)} layers converted to {self.to} ({self.init})"]
        for change in self.changes:
            lines += [
                f"@@ {change.path} @@  {change.detail}",
                f"- {change.before}",
                f"+ {change.after}",
            ]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Writes the weights to `path` (safetensors) and the changes beside it (`.json`).

        The JSON file holds the SHA-256 of the weights' file.

        Raises:
            InputError: `path` does not end in .safetensors, or its folder does not exist.
        """
        from safetensors.torch import save_model

        target = Path(path)
        if target.suffix != ".safetensors":
            raise InputError(f"cannot save to {str(path)!r}: the name must end in .safetensors")
        if not target.parent.is_dir():
            raise InputError(f"cannot save to {str(path)!r}: the folder does not exist")
        with replacing(target) as temporary:
            save_model(self.model, str(temporary))
            digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        manifest = self.to_dict() | {"weights_sha256": digest}
        write_text(target.with_suffix(".json"), json.dumps(manifest, indent=2) + "\n")
