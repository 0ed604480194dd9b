"""Each plot draws the numbers that the Python API gives, and leaves matplotlib as it was."""

import dataclasses
import functools
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from dpnorm.errors import InputError
from dpnorm.figures import LINES, LOOKS, looks, save_figure
from dpnorm.leakage import Bound, Course, MembershipScores, attack, draw_membership
from dpnorm.leakage.findings import examine
from dpnorm.leakage.plots import (
    bound_figure,
    gradient_norm_figure,
    histogram_figure,
    memorization_figure,
    roc_figure,
)
from dpnorm.leakage.plots.folder import draw_plots
from tests.leakage.attack_pools import gaussian_pool

CLIP = 1.5


def planted_pool(models=12, records=60):
    pool = gaussian_pool(models, records, shift=1.5)
    return dataclasses.replace(pool, outlier=np.arange(records) >= records - 15)


def course(epochs=5, models=8, records=40, outliers=10, clip=CLIP, seed=0) -> Course:
    generator = np.random.default_rng(seed)
    keep = draw_membership(records, models, seed)
    outlier = np.arange(records) >= records - outliers
    learned = generator.random((models, epochs, records)) < np.linspace(0.2, 0.9, epochs)[:, None]
    norms = np.exp(generator.normal(size=(2, epochs, records)) + 2 * outlier).astype(np.float32)
    norms[~np.broadcast_to(keep[:2, None], norms.shape)] = np.nan
    return Course(
        epochs=np.arange(1, epochs + 1),
        keep=keep,
        outlier=outlier,
        correct=learned & keep[:, None],
        loss=generator.random((models, epochs, records)).astype(np.float32),
        norms=norms,
        clip=clip,
    )


def bound(value: float, ceiling: float) -> Bound:
    return Bound(
        value, value, float("inf"), 0.95, method="m", canaries=100, guesses=50, correct=40,
        delta=1e-5, ceiling=ceiling, fixed="f", standing="rigorous", condition="c",
    )  # fmt: skip


def line(axes, label: str):
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@functools.cache
def attacked(name: str) -> MembershipScores:
    return attack(planted_pool(), name)


FIGURES = {
    "roc": lambda: roc_figure({"lira": attacked("lira")}, "a title"),
    "histogram": lambda: histogram_figure(attacked("lira"), "a title"),
    "memorization": lambda: memorization_figure({"group": course(epochs=2)}, "a title"),
    "norms": lambda: gradient_norm_figure(course(), "a title"),
    "bounds": lambda: bound_figure([("group", 1.0, bound(2.0, 3.0))], "a title"),
}


def test_the_roc_line_is_the_curve_of_the_scores_from_one_over_n_on():
    scores = {name: attacked(name) for name in ("loss", "lira")}
    figure = roc_figure(scores)
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    for name, one in scores.items():
        label = f"{name}, AUC {one.auc.value:.3f}"
        assert label in legend(figure)
        fpr, tpr = line(axes, label).get_data()
        curve, others = one.roc(), int((~one.keep).sum())
        above = curve.fpr > 1 / others
        assert fpr[0] == 1 / others
        assert tpr[0] == curve.tpr_at(1 / others) or np.isnan(tpr[0])
        assert np.array_equal(fpr[1:], curve.fpr[above])
        expected = np.where(curve.tpr > 0, curve.tpr, np.nan)
        assert np.array_equal(tpr[1:], expected[above], equal_nan=True)


def test_the_roc_plot_has_the_diagonal_and_begins_at_one_over_n():
    scores = attacked("lira")
    (axes,) = roc_figure({"lira": scores}).axes
    x, y = line(axes, "guessing").get_data()
    assert list(x) == list(y) == [1 / int((~scores.keep).sum()), 1]
    assert axes.get_xlim()[0] == x[0]


def test_an_attack_that_finds_nothing_at_one_over_n_has_no_point_there():
    keep = np.array([[True, False] * 10])
    falling = -np.arange(20.0)[None] + 100 * (~keep)
    scores = MembershipScores("worst", falling, keep, np.zeros(20, dtype=bool))
    (axes,) = roc_figure({"worst": scores}).axes
    fpr, tpr = line(axes, "worst, AUC 0.000").get_data()
    assert np.isnan(tpr[fpr < 1]).all()
    assert tpr[-1] == 1


def test_the_histograms_count_every_target_once_and_outliers_apart():
    scores = attacked("lira")
    figure = histogram_figure(scores)
    assert [axes.get_title("left") for axes in figure.axes] == ["ordinary records", "outliers"]
    for axes, mask in zip(figure.axes, (~scores.outlier, scores.outlier), strict=True):
        steps = {p.get_label(): p.get_data() for p in axes.patches if p.get_label()}
        for label, kept in (("members (in)", True), ("non-members (out)", False)):
            values, edges, _ = steps[label]
            wanted = scores.scores[:, mask][scores.keep[:, mask] == kept]
            assert values.sum() == wanted.size
            middle = np.histogram(wanted, edges[1:-1])[0]
            assert np.array_equal(values[1:-2], middle[:-1])


def test_a_single_score_for_all_and_a_pool_without_outliers_still_draw():
    keep = np.array([[True, False, True, False]])
    flat = MembershipScores("flat", np.zeros((1, 4)), keep, np.zeros(4, dtype=bool))
    (axes,) = histogram_figure(flat).axes
    assert sum(p.get_data().values.sum() for p in axes.patches) == 2 * 4
    assert axes.get_title("left") == ""


def test_memorization_is_that_of_the_course_with_its_interval():
    courses = {"batch": course(seed=1), "none": course(seed=2), "mine": course(seed=3)}
    figure = memorization_figure(courses)
    (axes,) = figure.axes
    assert legend(figure) == ["batch", "none", "mine"]
    for (name, one), band in zip(courses.items(), axes.collections, strict=True):
        x, y = line(axes, name).get_data()
        shares = one.memorized()
        assert list(x) == one.epochs.tolist()
        assert list(y) == [100 * share.value for share in shares]
        corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
        for epoch, share in zip(one.epochs, shares, strict=True):
            assert (epoch, 100 * share.low) in corners
            assert (epoch, 100 * share.high) in corners
    lines = [line(axes, name) for name in courses]
    styles = {(one.get_linestyle(), one.get_marker()) for one in lines}
    assert len(styles) == 3
    assert line(axes, "batch").get_color() == LOOKS["batch"].light


def test_gradient_norms_are_of_members_on_their_own_records_with_the_clip_line():
    one = course()
    figure = gradient_norm_figure(one)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert list(line(axes, f"clipping norm {CLIP:g}").get_ydata()) == [CLIP, CLIP]
    for label, mask in (("ordinary records", ~one.outlier), ("outliers", one.outlier)):
        medians = line(axes, f"{label} (median)").get_ydata()
        for epoch, median in enumerate(medians):
            seen = one.norms[:, epoch][one.keep[:2] & mask]
            assert median == pytest.approx(np.median(seen.astype(float)))
    assert len(axes.collections) == 2 * 2 * len(one.epochs)


def test_a_plain_training_has_no_clip_line_and_at_most_eight_epochs_are_drawn():
    one = course(epochs=40, clip=None)
    figure = gradient_norm_figure(one)
    (axes,) = figure.axes
    assert not any("clipping" in label for label in legend(figure))
    ticks = [int(tick.get_text()) for tick in axes.get_xticklabels()]
    assert len(ticks) == 8
    assert (ticks[0], ticks[-1]) == (1, 40)


def test_bounds_stand_at_their_claims_and_only_those_above_the_line_are_ringed():
    points = [
        ("group", 1.0, bound(0.4, 5.0)),
        ("batch", 1.0, bound(2.4, 5.0)),
        ("batch", 8.0, bound(4.0, 5.0)),
        ("none", 3.0, bound(3.0, 5.0)),
    ]
    figure = bound_figure(points)
    (axes,) = figure.axes
    x, y = line(axes, "y = x").get_data()
    assert list(x) == list(y)
    assert x[0] == 0
    assert x[-1] >= 8
    rings = [one.get_xydata().tolist() for one in axes.lines if one.get_gid() == "violation"]
    assert rings == [[[1.0, 2.4]]]
    drawn = [one.get_xydata().tolist() for one in axes.lines]
    for _, claimed, one in points:
        assert [[claimed, one.value]] in drawn
        assert [[claimed, one.value], [claimed, one.ceiling]] in drawn
    assert legend(figure).count("batch") == 1
    assert "refutes its claim" in legend(figure)
    assert "refutes its claim" not in legend(bound_figure(points[:1]))


def test_audits_of_one_claim_do_not_cover_each_other():
    points = [(name, 3.0, bound(1.0, 5.0)) for name in ("group", "batch", "none")]
    figure = bound_figure(points)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    markers = [one for one in axes.lines if one.get_xydata().tolist() == [[3.0, 1.0]]]
    places = [one.get_transform().transform((3.0, 1.0))[0] for one in markers]
    assert np.diff(sorted(places)).min() > 5


def test_a_ceiling_without_end_stays_in_the_plot():
    (axes,) = bound_figure([("group", 2.0, bound(1.0, float("inf")))]).axes
    tops = [one.get_ydata()[-1] for one in axes.lines if one.get_marker() == "^"]
    assert tops == [axes.get_ylim()[1]]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: roc_figure({}), "at least 1 attack"),
        (lambda: memorization_figure({}), "at least 1 course"),
        (lambda: memorization_figure({"a": course(outliers=0)}), "no outliers"),
        (
            lambda: gradient_norm_figure(dataclasses.replace(course(), norms=np.zeros((0, 5, 40)))),
            "not watched.*watch_norms",
        ),
        (lambda: bound_figure([]), "at least 1 bound"),
        (lambda: bound_figure([("a", float("inf"), bound(1, 2))]), "'a' is inf; a positive"),
        (lambda: looks([str(i) for i in range(14)]), "14 lines .* at most 13"),
    ],
)
def test_what_cannot_be_drawn_says_what_is_needed(draw, words):
    with pytest.raises(InputError, match=words):
        draw()


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_every_plot_is_a_valid_file_and_the_same_one_each_time(tmp_path, ending):
    for name, draw in FIGURES.items():
        file = tmp_path / f"{name}.{ending}"
        save_figure(draw(), file)
        first = file.read_bytes()
        save_figure(draw(), file)
        assert file.read_bytes() == first
        if ending == "svg":
            assert ElementTree.fromstring(first).tag.endswith("svg")
        elif ending == "png":
            image = matplotlib.image.imread(file)
            assert image.shape[0] > 400
            assert np.allclose(image[0, 0], 1)
        else:
            assert first.startswith(b"%PDF")
    assert len(list(tmp_path.iterdir())) == 5


def test_a_plot_of_another_kind_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="written as svg, png, pdf"):
        save_figure(FIGURES["roc"](), tmp_path / "roc.bmp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(FIGURES))
def test_no_word_of_a_plot_is_cut_off_or_covers_another_axis_label(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    words = [text for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label)]
    words += [axes.title for axes in figure.axes] + figure.legends[0].get_texts()
    boxes = [text.get_window_extent() for text in words if text.get_text()]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    labels = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert not any(figure.legends[0].get_window_extent().overlaps(label) for label in labels)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    for name, draw in FIGURES.items():
        save_figure(draw(), tmp_path / f"{name}.svg")
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_names_are_text_and_never_mathematics():
    scores = attacked("loss")
    figure = roc_figure({"_$x$\n": scores}, "$^$")
    figure.draw_without_rendering()
    assert legend(figure)[0].startswith(r" _\$x\$\n, AUC")


def test_lines_differ_without_colour():
    pairs = {(LINES[i % len(LINES)], look.marker) for i, look in enumerate(looks([*LOOKS]))}
    assert len(pairs) == len(LOOKS)
    unknown = looks([f"attack {i}" for i in range(5)])
    assert len({one.marker for one in unknown}) == len({one.light for one in unknown}) == 5


def test_a_folder_gets_all_plots_that_there_are_data_for(tmp_path):
    one = examine("one pool", planted_pool(), ["loss"])
    found = [one, dataclasses.replace(one, name="one/pool")]
    files = draw_plots(found[:1], tmp_path / "one", course=course())
    names = ["roc", "roc-outliers", "scores-loss", "memorization", "gradient-norms"]
    assert [file.name for file in files] == [f"{name}.svg" for name in names]
    several = draw_plots(found, tmp_path / "two")
    assert [file.name for file in several] == [
        *(f"one-pool-{name}.svg" for name in names[:3]),
        *(f"one-pool-{name}-2.svg" for name in names[:3]),
    ]
    assert {file.name for file in (tmp_path / "two").iterdir()} == {f.name for f in several}
