"""report.html and report.md stand alone, escape every name, and open without a complaint."""

import base64
import csv
import hashlib
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.markdown import to_markdown
from dpnorm.benchmark.plots import plots
from dpnorm.figures import LOOKS, look

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


def test_html_is_well_formed_with_unique_ids(wide_page):
    outline = Outline(wide_page)
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_html_asks_no_network_for_anything(wide_page):
    assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//|\bsrc\s*=", wide_page, re.I)
    for tag, attrs in Outline(wide_page).tags:
        for name, value in attrs.items():
            if name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
                assert value.startswith(("#", "data:")), (tag, name, value)


def test_the_policy_forbids_every_request_and_every_other_script(wide_page):
    (policy,) = [
        attrs["content"]
        for tag, attrs in Outline(wide_page).tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    (script,) = re.findall(r"<script>(.*?)</script>", wide_page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"


def test_html_has_each_plot_with_words_numbers_and_its_data(wide, wide_page):
    tags = Outline(wide_page).tags
    drawn = plots(wide)
    labels = [attrs["aria-label"] for tag, attrs in tags if tag == "svg"]
    assert labels == [f"{plot.title}. {plot.alt}" for plot in drawn.values()]
    assert {attrs["role"] for tag, attrs in tags if tag == "svg"} == {"img"}
    assert sum(tag == "figcaption" for tag, _ in tags) == len(drawn)
    links = {a["download"]: a["href"] for tag, a in tags if tag == "a" and "download" in a}
    assert set(links) == {f"{key}.csv" for key in drawn}
    for key, plot in drawn.items():
        kind, _, data = links[f"{key}.csv"].partition(",")
        assert kind == "data:text/csv;charset=utf-8"
        header, *rows = csv.reader(io.StringIO(unquote(data)))
        assert tuple(header) == plot.data.header
        assert len(rows) == len(plot.data.rows)


def test_html_leaves_out_what_has_no_data(result):
    plain = [row for row in result.rows if math.isinf(row.target_epsilon)]
    bare = [replace(row, memorized=None, roc={}) for row in plain]
    page = to_html(replace(result, rows=tuple(bare), timings=(), notes=()))
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert titles == [
        "Accuracy, privacy and leakage", "Verdicts", "Accuracy against epsilon",
        "Leakage against accuracy", "How to make it again",
    ]  # fmt: skip
    assert re.findall(r'<li><a href="#\w+">(.*?)</a></li>', page) == titles


def test_html_has_the_statement_of_each_private_arm(wide, wide_page):
    words = "".join(Outline(wide_page).words)
    for row in wide.rows:
        if row.status == "trained" and math.isfinite(row.target_epsilon):
            seed = f"{row.variant} at target ε = {row.target_epsilon:g}, seed {row.seed}"
            assert f"{seed}: {'void' if row.void else 'spent ε ='}" in words
            assert row.void or row.statement_text in words


def test_html_shows_findings_failures_machine_and_seeds(wide, wide_page):
    words = "".join(Outline(wide_page).words)
    for part in ("3 findings in batch", "stage2.norm", "model.py:41", "DPN101 × 3",
                 "trained at ε = ∞; void at ε = 8, 1", "MemoryError: 3 | GiB", wide.machine,
                 wide.description, "0, 1"):  # fmt: skip
        assert part in words


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


def test_a_hostile_name_stays_text_in_html(hostile_page):
    outline = Outline(hostile_page)
    assert sum(tag == "script" for tag, _ in outline.tags) == 1
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
    for table in re.findall(r"(?:^\|.*\n)+", before_code, re.MULTILINE):
        pipes = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
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
