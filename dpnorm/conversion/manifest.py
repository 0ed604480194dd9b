"""What a conversion exchanged, and where the numbers in it come from."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn

from dpnorm.errors import ConversionError
from dpnorm.tensors import digest_of

Origin = Literal["private", "public", "unknown"]
FORMAT = 1

_WARNING = (
    "the statistics come from private data: the converted parameters carry them (scale, shift, "
    "constants, folded weights), and no epsilon of a later training covers them"
)


@dataclass(frozen=True)
class Change:
    """One layer that was replaced: its path, the layer before and after as text, and how.

    Attributes:
        path: where it stands.
        before: the old layer; empty where the layer was added.
        after: the new layer.
        detail: in words how it was set.
        groups: how many groups of channels the new layer normalizes; None where it has none.
        eps: of the new layer; None where it has none.
        statistics: whether the old layer had running statistics of data.
    """

    path: str
    before: str
    after: str
    detail: str
    groups: int | None = None
    eps: float | None = None
    statistics: bool = False


@dataclass(frozen=True)
class Manifest:
    """The record of a conversion; as plain data it is what a saved file needs to be loaded."""

    to: str
    init: str
    statistics_origin: str
    changes: tuple[Change, ...]
    rewritten: tuple[str, ...]
    kept_inplace: tuple[str, ...]

    @property
    def warning(self) -> str | None:
        """What a reader must know of private statistics; None where there are none."""
        carried = any(change.statistics for change in self.changes)
        return _WARNING if self.statistics_origin == "private" and carried else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: per layer its path, old and new layer, groups, origin of its statistics."""
        return {
            "format": FORMAT,
            "to": self.to,
            "init": self.init,
            "statistics_origin": self.statistics_origin,
            "warning": self.warning,
            "layers": [
                {
                    **{k: v for k, v in asdict(change).items() if k != "statistics"},
                    "statistics": self.statistics_origin if change.statistics else "none",
                }
                for change in self.changes
            ],
            "rewritten": list(self.rewritten),
            "kept_inplace": list(self.kept_inplace),
        }

    def hash(self, model: nn.Module) -> str:
        """SHA-256 over this manifest and every entry of the model's state dict."""
        return digest_of(self.to_dict(), tensors_of(model))


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict.

    Raises:
        ConversionError: an entry is not a tensor, such as a module's extra state.
    """
    state = model.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise ConversionError(
            f"the state dict has entries that are no tensors: {', '.join(other[:3])}; only "
            "tensors are saved, since loading anything else would run code"
        )
    return state
