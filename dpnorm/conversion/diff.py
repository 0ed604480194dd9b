"""A conversion as text, in the form of a unified diff."""

import re
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpnorm.conversion.result import Conversion

WIDTH = 80
_USUAL = (  # what torch prints of every norm and what is its default
    "eps=1e-05", "momentum=0.1", "affine=True", "track_running_stats=True", "bias=True",
    "elementwise_affine=True",
)  # fmt: skip
_NOTHING = (
    "nothing to exchange: the model has no BatchNorm layer that couples records; whether functions "
    "or hand-written code do, dpnorm check tells"
)


def render_diff(conversion: "Conversion", name: str, *, width: int = WIDTH) -> str:
    """The layers before and after, one hunk a layer, with settings that are defaults left out.

    Args:
        conversion: what to show.
        name: what the model is called in the head.
        width: longer lines are wrapped; each part keeps the sign of its line.
    """
    lines = [f"--- {name}", f"+++ {name}, converted to {conversion.to} ({conversion.init})"]
    for change in conversion.changes:
        lines.append(f"@@ {change.path or '(the model itself)'} @@")
        lines += _wrapped(_short(change.before), "- ", width)
        lines += _wrapped(_short(change.after), "+ ", width)
        lines += _wrapped(change.detail, "  ", width)
    layers = sum(bool(change.before) for change in conversion.changes)
    added = len(conversion.changes) - layers
    summary = [f"{layers} layer{'' if layers == 1 else 's'} exchanged"]
    if added:
        summary[0] += f", {added} added"
    if not conversion.changes and conversion.to != "batch":
        summary = [_NOTHING]
    if conversion.rewritten:
        kinds = Counter(_kind(conversion, path) for path in conversion.rewritten)
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        summary.append(f"now out of place: {listed}")
    if conversion.kept_inplace:
        listed = ", ".join(conversion.kept_inplace)
        summary.append(f"left in place, since their overwritten input is read again: {listed}")
    if conversion.manifest.warning:
        summary.append(f"warning: {conversion.manifest.warning}")
    for text in summary:
        lines += _wrapped(text, "# ", width)
    return "\n".join(lines)


def _kind(conversion: "Conversion", path: str) -> str:
    try:
        return type(conversion.model.get_submodule(path)).__name__
    except AttributeError:
        return "module"


def _short(layer: str) -> str:
    for usual in _USUAL:
        layer = layer.replace(f", {usual}", "")
    return re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", layer))


def _wrapped(text: str, sign: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=sign,
        subsequent_indent=sign + "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
