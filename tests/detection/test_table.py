"""The table for people: grouped, complete, at most 80 columns wide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpnorm.detection.rendering import WIDTH, view_of
from dpnorm.detection.rendering.table import table
from dpnorm.detection.report import Finding, Report, Verdict
from dpnorm.detection.rules import rule, rules

MOVED = "exchanging the other records moves a record's output by {:.3g} of its size"


def batch_norm(path: str, witness: float, location: str = "net.py:7") -> Finding:
    message = MOVED.format(witness)
    return Finding("DPN101", path, "BatchNorm2d", location, message, witness, rule("DPN101").remedy)


def made(*findings: Finding) -> Report:
    return Report(Verdict.REFUTED, findings, (), "no", "Net", "not judged", 0)


def test_layers_with_the_same_message_share_it_and_its_range_of_witnesses():
    text = made(*(batch_norm(f"layers.{i}.bn", 0.5 + i / 100) for i in range(49))).render()
    assert text == (
        "Net: refuted: 49 places where one record moves another (DPN101)\n"
        "\n"
        "DPN101  batch statistics in a BatchNorm-family layer\n"
        "        exchanging the other records moves a record's output by 0.5 to 0.98 of\n"
        "        its size\n"
        "          49 BatchNorm2d (net.py:7): layers.{0..48}.bn\n"
        "    ->  Convert the layer: dpnorm.convert(model, to='group').\n"
        "\n"
        "loss: not judged; opacus: no; seed 0"
    )


def test_a_witness_that_the_message_does_not_name_is_shown_beside_it():
    item = Finding("DPN201", "bn", "Net", "", "writes its buffer 'x'", 0.25, "freeze it")
    assert "writes its buffer 'x' (witness 0.25)" in made(item).render()


def test_witnesses_come_before_doubts_and_doubts_before_warnings():
    items = [
        Finding(code, "a", "Net", "", "seen", witness, "do it")
        for code, witness in [("DPN401", None), ("DPN901", None), ("DPN201", 1.0)]
    ]
    text = made(*items).render()
    assert text.index("DPN201") < text.index("DPN901") < text.index("DPN401")


def test_the_model_itself_is_shown_as_the_model():
    item = Finding("DPN104", "", "Net", "", "seen", 0.5, "do it")
    assert "Net: (model)" in made(item).render()


def test_markup_in_a_path_or_a_message_is_shown_as_it_is():
    item = Finding("DPN102", "a[bold]", "Net", "", "[red]seen[/red]", None, "do it")
    text = made(item).render()
    assert "a[bold]" in text
    assert "[red]seen[/red]" in text


words = st.text("abcdefgh.0123456789[]_ ", max_size=120)


@given(
    st.lists(
        st.builds(
            Finding,
            st.sampled_from(list(rules())),
            words,
            words,
            words,
            words,
            st.none() | st.floats(0, 10),
            words,
        ),
        max_size=5,
    )
)
def test_no_finding_is_wider_than_the_table(findings):
    text = made(*findings).render()
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    for item in findings:
        assert item.code in text


@pytest.mark.parametrize(
    ("select", "ignore", "shown"),
    [
        ((), (), ["DPN101", "DPN501"]),
        (("DPN1",), (), ["DPN101"]),
        ((), ("DPN5",), ["DPN101"]),
        (("DPN101", "DPN5"), ("DPN501",), ["DPN101"]),
        (("DPN3",), (), []),
    ],
)
def test_a_view_hides_findings_and_never_the_verdict(select, ignore, shown):
    report = made(batch_norm("bn", 0.5), Finding("DPN501", "c", "Conv2d", "", "seen", None, "do"))
    view = view_of(report, select=select, ignore=ignore)
    assert [item.code for item in view.findings] == shown
    text = table([view])
    assert "refuted: 1 place where one record moves another (DPN101)" in text
    assert ("not shown (--select, --ignore)" in text) == (len(shown) < 2)
