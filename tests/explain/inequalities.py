"""Each number of a topic is printed, and stands in an inequality."""

import re
from importlib.resources import files

from dpnorm.explain import Measured
from dpnorm.explain.topics import explained
from dpnorm.figures import style


def assert_every_number(topic, measured, **checks):
    """One check a number; the text prints all numbers, and names none that was not measured."""
    assert checks.keys() == measured.numbers.keys()
    numbers = dict(measured.numbers)
    assert [name for name, check in checks.items() if not check(numbers)] == []
    text = (files("dpnorm.explain") / "texts" / f"{topic}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"{(\w+)}", text))
    assert named == numbers.keys() | measured.settings.keys()
    assert not re.search(r"[{}]", explained(topic, measured).render("markdown"))
    assert_pictures(measured)


def assert_pictures(measured: Measured) -> None:
    """There is a picture, each is told apart, says what it compares, and can be drawn."""
    keys = [picture.key for picture in measured.pictures]
    assert keys
    assert len(set(keys)) == len(keys)
    for picture in measured.pictures:
        assert re.fullmatch(r"[a-z][a-z-]*", picture.key)
        assert picture.alt.endswith(".")
        assert len(picture.alt.split()) > 8
        with style(picture.key):
            figure = picture.draw()
        (axes, *_) = figure.axes
        assert axes.get_xlabel() or len(axes.get_xticklabels()) > 1
        assert axes.get_ylabel() or len(axes.get_yticklabels()) > 1
