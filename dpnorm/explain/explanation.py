"""What an answer consists of: an argument, an experiment, its numbers, and what was checked."""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpnorm.errors import unknown_name
from dpnorm.files import make_folder
from dpnorm.leakage.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Setting = float | int | str


@dataclass(frozen=True)
class Claim:
    """What the numbers must show for the argument to stand.

    Attributes:
        text: a sentence.
        holds: whether they show it.
    """

    text: str
    holds: bool


@dataclass(frozen=True)
class Picture:
    """A plot of an experiment.

    Attributes:
        key: its name, unique in its topic.
        alt: a sentence that says what is to be seen.
        draw: draws it. It is called inside `dpnorm.figures.style`.
    """

    key: str
    alt: str
    draw: Callable[[], "Figure"]


@dataclass(frozen=True)
class Measured:
    """What an experiment yielded.

    Attributes:
        numbers: what was measured, by name.
        settings: what it was measured with, by name.
        claims: what the numbers must show.
        pictures: of them.
    """

    numbers: Mapping[str, float | Estimate]
    settings: Mapping[str, Setting]
    claims: tuple[Claim, ...]
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """An answer with its experiment.

    Attributes:
        topic: its name.
        question: as people ask it.
        argument: why it is so, in Markdown.
        parts: the rest of the text in Markdown, by heading: what was done, the numbers, what they
            mean, and sources.
        measured: the numbers as such, and what they must show.
        versions: of the software that made it.
    """

    topic: str
    question: str
    argument: str
    parts: Mapping[str, str]
    measured: Measured
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether this run showed all that the answer says."""
        return all(claim.holds for claim in self.measured.claims)

    def render(self, form: str = "text", *, plots: Mapping[str, str] | None = None) -> str:
        """The whole answer as text for a terminal, Markdown or an HTML page.

        Args:
            form: "text", "markdown" or "html".
            plots: by the key of a picture, where it stands; as `save_plots` returns it. A picture
                without a place is left out; a text names the places at its end.

        Raises:
            InputError: another form.
        """
        from dpnorm.explain.rendering import FORMS

        if form not in FORMS:
            raise unknown_name("format", form, FORMS)
        return FORMS[form](self, plots or {})

    def save_plots(self, folder: str | Path) -> dict[str, str]:
        """Writes every picture, if there is one, as FOLDER/TOPIC-KEY.svg; their paths, by key.

        Raises:
            StorageError: one cannot be written.
        """
        from dpnorm.figures import save_figure, style

        folder, saved = Path(folder), {}
        if self.measured.pictures:
            make_folder(folder)
        for picture in self.measured.pictures:
            path = folder / f"{self.topic}-{picture.key}.svg"
            with style(path.stem):
                figure = picture.draw()
            save_figure(figure, path)
            saved[picture.key] = str(path)
        return saved

    def _ipython_display_(self) -> None:
        """In a notebook an answer is its text with its plots."""
        from IPython.display import Image, Markdown, display

        from dpnorm.figures import style

        display(Markdown(self.render("markdown")))
        for picture in self.measured.pictures:
            drawn = io.BytesIO()
            with style(picture.key):
                picture.draw().savefig(drawn, format="png", dpi=100, facecolor="white")
            display(Image(drawn.getvalue(), alt=picture.alt))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; an infinite number is the text "inf"."""
        return {
            "topic": self.topic,
            "question": self.question,
            "numbers": {name: _plain(value) for name, value in self.measured.numbers.items()},
            "settings": dict(self.measured.settings),
            "claims": [{"text": c.text, "holds": c.holds} for c in self.measured.claims],
            "versions": dict(self.versions),
        }


def shown(value: float | Estimate) -> str:
    """A measured number as a text holds it.

    >>> shown(64), shown(5.8132), shown(2.0), shown(float("inf")), shown(2.5e-7), shown(0.0)
    ('64', '5.81', '2.00', 'infinite', '2.50e-07', '0')
    >>> shown(Estimate(0.7689, 0.7607, 0.7771))
    '0.769 (0.761 to 0.777)'
    """
    if isinstance(value, Estimate):
        return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return "infinite"
    return f"{value:#.3g}" if value else "0"


def _plain(value: float | Estimate) -> Any:
    if isinstance(value, Estimate):
        return {name: _plain(each) for name, each in vars(value).items()}
    return str(value) if math.isinf(value) else value
