"""report.html and report.md stand alone, escape every name, and open without a complaint."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from dpnorm.benchmark.figure import LOOKS, look
from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.markdown import to_markdown
from dpnorm.benchmark.plots import plots

VOID = {"meta", "link", "br"}


class Outline(HTMLParser):
    """Collects tags, attributes and text, and checks that each tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_html_is_well_formed_with_unique_ids(page):
    outline = Outline(page)
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_html_asks_no_network_for_anything(page):
    assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//|\bsrc\s*=|<script", page, re.I)
    for tag, attrs in Outline(page).tags:
        for name, value in attrs.items():
            if name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
                assert value.startswith(("#", "data:")), (tag, name, value)


def test_html_has_each_plot_with_words_and_numbers(result, page):
    outline = Outline(page)
    labels = [attrs["aria-label"] for tag, attrs in outline.tags if tag == "svg"]
    assert labels == [plot.alt for plot in plots(result).values()]
    summaries = [tag for tag, _ in outline.tags if tag == "summary"]
    assert len(summaries) == len(labels) == 4


def test_html_says_how_to_make_the_run_again(result, page):
    words = "".join(Outline(page).words)
    for part in (result.command, *result.notes, *result.versions.values(), '"batch_size": 64'):
        assert part in words


def test_plots_follow_the_colours_of_the_page(result, page):
    assert "prefers-color-scheme: dark" in page
    svgs = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    for variant in {row.variant for row in result.rows}:
        colour = look(variant).light
        assert colour not in svgs
        assert f"var(--{colour[1:]})" in svgs
    assert svgs.count("currentColor") > 10


def test_a_hostile_name_stays_text_in_html(hostile):
    outline = Outline(to_html(hostile))
    assert "script" not in {tag for tag, _ in outline.tags}
    assert not [attrs for _, attrs in outline.tags if any(name.startswith("on") for name in attrs)]
    shown = r'<script>alert(1)</script>"' + r"'|`$x$\n\x1b[31m[red]&amp;"
    assert shown in "".join(outline.words)


def test_a_hostile_name_stays_text_in_plots(hostile):
    for plot in plots(hostile).values():
        assert "<script" not in plot.svg
        ElementTree.fromstring(plot.svg)


def test_a_hostile_name_stays_in_its_cell_in_markdown(hostile):
    text = to_markdown(hostile)
    before_code = text.split("## How to make it again")[0]
    assert not re.search(r"(?<!\\)[<`]", before_code)
    pipes = {len(re.findall(r"(?<!\\)\|", ln)) for ln in before_code.splitlines() if ln[:1] == "|"}
    assert len(pipes) == 1
    assert "\x1b" not in before_code


def test_each_variant_has_a_colour_of_its_own_that_is_seen_on_both_grounds():
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = [
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        ]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for ground, colours in (
        ("#ffffff", [one.light for one in LOOKS.values()]),
        ("#181c22", [one.dark for one in LOOKS.values()]),
    ):
        assert len(set(colours)) == len(colours)
        for colour in colours:
            bright, dim = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 3, colour
    assert len({one.marker for one in LOOKS.values()}) == len(LOOKS)


def test_the_report_opens_in_chromium_without_a_word_on_its_console(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs chromium: apt-get install -y chromium")
    file, shot = tmp_path / "report.html", tmp_path / "shot.png"
    file.write_text(page, encoding="utf-8")
    run = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,2600",
            "--enable-logging=stderr", "--v=0", f"--screenshot={shot}", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert shot.exists(), run.stderr
    assert "CONSOLE" not in run.stderr
