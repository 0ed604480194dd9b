"""How every plot of the report looks: a figure without global state, fixed colours, stable SVG."""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dpnorm.benchmark.tables import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#454b54"  # text and axes; the HTML report replaces it by the colour of the page's text
RULE = "#c9ced6"  # grid lines


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
_SPARE = ("#7a3b69", "#d69ac6", "8"), ("#3d6b3d", "#98cf98", "H"), ("#8a5a00", "#dbb063", "p")


def look(variant: str) -> Look:
    """The fixed colours and marker of a variant; an unknown name always gets the same spare."""
    digest = hashlib.sha256(variant.encode()).digest()
    return LOOKS.get(variant) or Look(*_SPARE[digest[0] % len(_SPARE)])


def literal(text: str) -> str:
    """Keeps matplotlib from reading a name as mathematics, or as a label to leave out."""
    words = one_line(text).replace("$", r"\$")
    return f" {words}" if words.startswith("_") else words


@contextlib.contextmanager
def style(salt: str) -> Iterator[None]:
    """Sets matplotlib's defaults and this report's own for the time of one figure."""
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


def new_figure() -> "tuple[Figure, Axes]":
    """A figure of 5.2 x 4.2 inches with one axes, known to no other code. Call inside `style`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    return figure, figure.add_subplot()


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
