"""What a conversion returns."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from dpnorm.conversion.diff import render_diff
from dpnorm.conversion.fidelity import Fidelity, fidelity
from dpnorm.conversion.manifest import Change, Manifest
from dpnorm.detection.inputs import Inputs
from dpnorm.errors import ConversionError

__all__ = ["Change", "Conversion"]


@dataclass(frozen=True)
class Conversion:
    """A converted copy of a model and the list of its changes.

    Attributes:
        model: the converted copy.
        to: the variant.
        init: how scale and shift were set.
        changes: the layers that were replaced; none where the model has no BatchNorm layer, which
            says nothing about coupling in functions or hand-written code: `dpnorm.check` does.
        original: the model that was converted, for `fidelity`; not a copy.
        rewritten: paths of modules that now work out of place: activations and whole blocks.
        kept_inplace: paths of in-place activations that were left, since the model reads their
            overwritten input again.
        statistics_origin: "private", "public" or "unknown".
    """

    model: nn.Module
    to: str
    init: str
    changes: tuple[Change, ...]
    original: nn.Module | None = field(default=None, repr=False, compare=False)
    rewritten: tuple[str, ...] = ()
    kept_inplace: tuple[str, ...] = ()
    statistics_origin: str = "unknown"

    @cached_property
    def manifest(self) -> Manifest:
        """What was exchanged, and where its numbers come from."""
        return Manifest(
            self.to,
            self.init,
            self.statistics_origin,
            self.changes,
            self.rewritten,
            self.kept_inplace,
        )

    @property
    def hash(self) -> str:
        """SHA-256 over the manifest and every entry of the state dict: name, type, shape, bytes."""
        return self.manifest.hash(self.model)

    def fidelity(self, inputs: Inputs) -> Fidelity:
        """How close the converted model's outputs are to the original's, both in evaluation.

        Raises:
            InputError: inputs of a wrong form.
            ConversionError: the conversion was loaded from a file and has no original.
        """
        if self.original is None:
            raise ConversionError(
                "this conversion has no original to compare with, since it was loaded from a "
                "file: compare with dpnorm.conversion.fidelity(original, conversion.model, inputs)"
            )
        return fidelity(self.original, self.model, inputs)

    def to_dict(self) -> dict[str, Any]:
        """The conversion without its weights, as plain data."""
        manifest = self.manifest.to_dict()
        return {
            "to": self.to,
            "init": self.init,
            "changes": [asdict(change) for change in self.changes],
            "manifest": manifest,
        }

    def __str__(self) -> str:
        return render_diff(self, type(self.model).__name__)

    def save(self, path: str | Path) -> None:
        """Writes weights and manifest to `path`, and the changes beside it as `.json`.

        The weights' file (safetensors) holds the manifest too and is all that `load` needs; the
        JSON file is for people and holds the SHA-256 of the weights' file.

        Raises:
            InputError: `path` does not end in .safetensors, or its folder does not exist.
        """
        from dpnorm.conversion.archive import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> "Conversion":
        """Converts a fresh model as a saved conversion was, and gives it the saved weights.

        Args:
            path: a file that `save` wrote.
            model: the source architecture, before conversion; it is not changed.

        Raises:
            InputError: the file is missing or damaged, or does not fit the model.
        """
        from dpnorm.conversion.archive import load

        return load(path, model)
