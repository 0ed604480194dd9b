"""What an answer prints, in every form."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from dpnorm.errors import InputError, StorageError
from dpnorm.explain import Claim, Measured, answer, topics
from dpnorm.explain.topics import explained


@pytest.fixture(scope="module")
def found():
    return answer("coupling")


def test_topics_are_questions_with_an_answer_each():
    assert list(topics()) == [
        "coupling", "before-noise", "running-stats", "dataset-normalization",
        "memorization",
        "private-statistics",
        "silent-acceptance",
        "groups",
    ]  # fmt: skip
    assert all(question.endswith("?") for question in topics().values())
    with pytest.raises(InputError, match=r"unknown topic 'copling'.*'coupling'"):
        answer("copling")


def test_an_answer_is_the_same_each_time_and_leaves_random_numbers_alone(found):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    again = answer("coupling")
    assert torch.equal(torch.rand(2), expected)
    assert again.render() == found.render()
    assert again.to_dict() == found.to_dict()


def test_a_terminal_of_80_columns_holds_the_text(found):
    text = found.render("text")
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"[{}]|\\x1b", text)  # no name of a number is left without its value
    headings = ["The experiment", "The numbers", "What they mean", "Checked by this run", "Sources"]
    places = [text.index(f"\n{heading}\n---") for heading in headings]
    assert places == sorted(places)
    assert text.startswith(f"{found.question}\n===")


def test_markdown_and_html_hold_every_number(found):
    markdown, page = found.render("markdown"), found.render("html")
    for name, value in found.measured.numbers.items():
        word = "0" if value == 0 else f"{value:#.3g}"
        assert word in markdown, name
        assert word in page, name
    assert "<script" not in page
    assert page.count("<table>") == 1
    body = re.search(r"<body>.*</body>", page, re.DOTALL)[0]
    ElementTree.fromstring(body)  # every tag is closed
    with pytest.raises(InputError, match="unknown format 'pdf'"):
        found.render("pdf")


def test_plots_are_written_and_named(found, tmp_path):
    saved = found.save_plots(tmp_path / "new" / "plots")
    assert list(saved) == [picture.key for picture in found.measured.pictures]
    for path in saved.values():
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for form in ("text", "markdown", "html"):
        assert all(path in found.render(form, plots=saved) for path in saved.values())
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        found.save_plots(tmp_path / "file" / "plots")


def test_a_run_that_does_not_show_what_the_text_says_says_so(found):
    numbers, settings = found.measured.numbers, found.measured.settings
    other = explained("coupling", Measured(numbers, settings, (Claim("it moves", False),)))
    assert not other.holds
    assert "NO: it moves" in other.render("text")
    for form in ("text", "markdown", "html"):
        assert "This run does not show what the text says." in other.render(form)
    assert other.to_dict()["claims"] == [{"text": "it moves", "holds": False}]
