"""Each number of a topic is printed, and stands in an inequality."""

import re
from importlib.resources import files

from dpnorm.explain.topics import explained


def assert_every_number(topic, measured, **checks):
    """One check a number; the text prints all numbers, and names none that was not measured."""
    assert checks.keys() == measured.numbers.keys()
    numbers = dict(measured.numbers)
    assert [name for name, check in checks.items() if not check(numbers)] == []
    text = (files("dpnorm.explain") / "texts" / f"{topic}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"{(\w+)}", text))
    assert named == numbers.keys() | measured.settings.keys()
    assert not re.search(r"[{}]", explained(topic, measured).render("markdown"))
