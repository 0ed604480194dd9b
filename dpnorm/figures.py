"""How every plot looks: a figure without global state, fixed colours, stable SVG."""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dpnorm.errors import InputError
from dpnorm.files import replacing
from dpnorm.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#454b54"  # text and axes; the HTML report replaces it by the colour of the page's text
RULE = "#c9ced6"  # grid lines
LINES: tuple["str | tuple[int, tuple[int, ...]]", ...] = (
    "-",
    "--",
    "-.",
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (6, 2)),
)
_LETTERS, _HANDLE = 74, 6  # that fit below a figure, and that the sign before a label takes


class Look(NamedTuple):
    """How one variant is drawn: on light ground, on dark ground, and its marker."""

    light: str
    dark: str
    marker: str


# Told apart by hue, by lightness and by marker, so that no one of the three is needed alone.
LOOKS = {
    "batch": Look("#c8500a", "#ff8a3d", "X"),
    "none": Look("#6b7078", "#b4bac4", "o"),
    "group": Look("#0b5fa5", "#58a6f0", "s"),
    "layer": Look("#0a8f6a", "#35c99b", "^"),
    "instance": Look("#a8458a", "#e88fc8", "D"),
    "frozen": Look("#a87b00", "#eec643", "v"),
    "rms": Look("#2f93c8", "#86d0f5", "P"),
    "scale": Look("#5a3fa0", "#b09af0", "<"),
    "evonorm": Look("#7d4a36", "#cc9a84", ">"),
    "weight-standardized": Look("#16306e", "#93a9f5", "p"),
    "folded": Look("#6f7a10", "#c3cf4e", "h"),
    "public-batch": Look("#c2304a", "#ff8595", "d"),
    "private-batch": Look("#0c7d86", "#43ccd6", "*"),
}
_BY_CONTRAST = {  # neighbours in this order differ most
    name: LOOKS[name]
    for name in ("none", "batch", "group", "layer", "instance", "frozen", "scale", "rms",
                 "public-batch", "weight-standardized", "evonorm", "folded", "private-batch")
}  # fmt: skip
_SPARE = ("#7a3b69", "#d69ac6", "8"), ("#3d6b3d", "#98cf98", "H"), ("#8a5a00", "#dbb063", "p")


def look(variant: str) -> Look:
    """The fixed colours and marker of a variant; an unknown name always gets the same spare."""
    digest = hashlib.sha256(variant.encode()).digest()
    return LOOKS.get(variant) or Look(*_SPARE[digest[0] % len(_SPARE)])


def looks(names: Sequence[str]) -> list[Look]:
    """One look a name, no two alike: that of the variant, or else the next that is not taken.

    Raises:
        InputError: more names than there are looks.

    >>> [one.marker for one in looks(["mine", "group", "batch"])]
    ['o', 's', 'X']
    """
    if len(names) > len(LOOKS):
        raise InputError(
            f"{len(names)} lines were asked for in one plot; at most {len(LOOKS)} can be told "
            "apart: draw some of them in another"
        )
    free = [one for variant, one in _BY_CONTRAST.items() if variant not in names]
    return [LOOKS.get(name) or free.pop(0) for name in names]


def literal(text: str) -> str:
    """Keeps matplotlib from reading a name as mathematics, or as a label to leave out."""
    words = one_line(text).replace("$", r"\$")
    return f" {words}" if words.startswith("_") else words


@contextlib.contextmanager
def style(salt: str) -> Iterator[None]:
    """Sets matplotlib's defaults and dpnorm's own for the time of one figure."""
    import matplotlib.style

    own: dict[str, object] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.8,
        "lines.markersize": 6,
    }
    with matplotlib.style.context(["default", own]):
        yield


def new_figure(width: float = 5.2, height: float = 4.2) -> "tuple[Figure, Axes]":
    """A figure of so many inches with one axes, known to no other code. Call inside `style`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def legend_below(figure: "Figure", axes: "Axes") -> None:
    """Puts the legend of the axes under them, where it covers nothing, in up to 3 columns."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=_columns(labels))


def _columns(labels: Sequence[str]) -> int:
    """As many as fit beside each other: a column takes what its longest label does."""
    return max(1, min(3, len(labels), _LETTERS // (max(map(len, labels)) + _HANDLE)))


def to_svg(figure: "Figure", key: str) -> str:
    """Renders SVG text without date, prolog or metadata, its ids starting with `key`."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\sid=")', f"{key}-", text)
    text = re.sub(r'(?<=href="#)', f"{key}-", text)
    return re.sub(r"(?<=url\(#)", f"{key}-", text)


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Writes a figure on white, as SVG, PNG or PDF by the name's ending; the same bytes each time.

    Letters of an SVG are drawn as shapes, so that it looks alike everywhere.

    Raises:
        InputError: the name has another ending.
        StorageError: the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    undated: dict[str, dict[str, str | None]] = {
        "svg": {"Date": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None},
    }
    if kind not in undated:
        raise InputError(f"{str(path)!r}: a plot is written as {', '.join(undated)}; name it so")
    import matplotlib

    letters: dict[Any, Any] = {"svg.fonttype": "path"}
    with style(path.stem), matplotlib.rc_context(letters), replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, facecolor="white", metadata=undated[kind])
