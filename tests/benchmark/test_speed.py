import functools
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import dpnorm
from dpnorm.benchmark.speed import ALL, Sizes, SpeedResult, Subject, pools, render, run_speed
from dpnorm.benchmark.speed import comparisons as found
from dpnorm.benchmark.speed.growth import wide_lenet
from dpnorm.benchmark.speed.steps import MODES, OPACUS_MODES, NotApplicableError, opacus_step
from dpnorm.errors import InputError, MissingExtraError
from dpnorm.leakage import train_pool

TINY = Sizes(
    networks=("lenet",),
    repeats=3,
    budget=0.01,  # three rounds, and one for warm-up
    pool_models=2,
    pool_epochs=1,
    batch_sizes=(2, 4),
    widths=(1, 2),
    width_batch=2,
    models=(2, 3),
    side=8,
)
SUBJECTS = {"lenet": Subject("lenet", (1, 8, 8), 4, pool_records=16, pool_batch=4)}
tiny = functools.partial(run_speed, subjects=SUBJECTS, sizes=TINY)


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def states():
    return []


@pytest.fixture(scope="module")
def whole(lines, states):
    """Everything, once."""
    states.append((torch.get_rng_state(), torch.get_num_threads()))
    with pytest.MonkeyPatch.context() as patch:  # pools in this process: starting others takes long
        patch.setattr(pools, "train_pool", functools.partial(train_pool, workers=1))
        patch.setattr(pools, "cores", lambda: 1)
        result = tiny(quick=True, progress=lines.append)
    states.append((torch.get_rng_state(), torch.get_num_threads()))
    return result


def test_every_comparison_and_curve_is_measured_or_says_why_not(whole):
    assert not whole.failed, render(whole)
    assert {row.comparison for row in whole.rows} == set(found.COMPARISONS)
    assert [curve.name for curve in whole.curves] == ["batch size", "width", "models"]
    for row in whole.rows:
        assert (row.status == "measured") == bool(row.numerator) == (row.reason == "")
        assert len(row.numerator) == len(row.denominator)
        if row.ratio is not None:
            assert 0 < row.ratio.low <= row.ratio.value <= row.ratio.high


def test_every_mode_stands_against_the_plain_step_and_against_opacus(whole):
    against = {(row.comparison, row.measured, row.against) for row in whole.rows}
    for mode in (*MODES, "auto"):
        assert ("step", f"private step, {mode}", "plain step") in against
    for theirs in OPACUS_MODES:
        for mode in ("lean", theirs):
            assert ("opacus", f"private step, {mode}", f"Opacus, {theirs}") in against
    assert ("opacus", "private step, auto", "Opacus, hooks") in against
    chosen = {row.note for row in whole.rows if row.measured == "private step, auto"}
    assert len(chosen) == 1
    assert chosen.pop().removeprefix("auto chose ") in MODES


def test_a_mode_that_cannot_express_a_layer_is_a_row_that_says_so(whole):
    (row,) = [row for row in whole.rows if row.measured == "private-batch, ew"]
    assert row.status == "not applicable"
    assert row.ratio is None
    assert "no hook for the layers with private statistics" in row.reason
    text = " ".join(render(whole).split())
    assert f"lenet: private-batch, ew / group, ew: not applicable: {row.reason}" in text


def test_what_stock_opacus_refuses_is_a_row_that_says_so():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 10))
    with pytest.raises(NotApplicableError, match="stock Opacus cannot train it in mode 'hooks'"):
        opacus_step(network, torch.randn(4, 1, 4, 4), torch.arange(4), "hooks")


def test_a_missing_package_is_said_in_every_row_of_its_network(monkeypatch):
    def missing(*args, **options):
        raise MissingExtraError("torchvision", "vision", "the model 'lenet'")

    monkeypatch.setattr(dpnorm.models, "build", missing)
    result = tiny(only=["check", "convert", "step"])
    assert len(result.rows) == 2 + 1 + len(MODES) + 1  # check, convert, and a step in each mode
    assert {row.status for row in result.rows} == {"not applicable"}
    assert all("pip install 'dpnorm[vision]'" in row.reason for row in result.rows)
    assert not result.failed


def test_what_breaks_is_recorded_and_does_not_stop_the_rest(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(found, "opacus_step", broken)
    monkeypatch.setattr("dpnorm.benchmark.speed.growth.plain_step", broken)
    result = tiny(only=["opacus", "convert", "width"])
    assert [row.status for row in result.rows] == ["measured", *["failed"] * 9]
    assert result.rows[-1].reason == "RuntimeError: out of memory"
    assert result.curves[0].reason == "RuntimeError: out of memory"
    assert result.failed
    assert "growth against width: RuntimeError: out of memory" in render(result)
    assert SpeedResult.from_json(render(result, "json")) == result


def test_a_pool_and_its_loop_train_as_many_models(monkeypatch):
    trained = []
    pool = pools.pool_of(SUBJECTS["lenet"], 3, 1)
    monkeypatch.setattr(pools, "train_pool", lambda *a, **o: trained.append(train_pool(*a, **o)))
    pool.at_once()
    assert trained[0].models == 3
    built = []
    counted = replace(pool, factory=lambda: built.append(0) or pool.factory())
    counted.one_by_one()
    assert len(built) == 3


def test_progress_tells_each_row_and_curve(whole, lines):
    assert len(lines) == len(whole.rows) + len(whole.curves)
    assert lines[2].startswith("lenet: convert to group / deepcopy: ")


def test_json_holds_every_sample_and_comes_back_whole(whole):
    data = json.loads(render(whole, "json"))
    assert data["rows"][0]["numerator"] == list(whole.rows[0].numerator)
    assert data["rows"][0]["estimate"]["confidence"] == 0.75  # of three pairs
    assert SpeedResult.from_json(render(whole, "json")) == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "dpnorm speed", "version": 2}'])
def test_other_json_is_refused(text):
    with pytest.raises(InputError, match="not what dpnorm bench speed"):
        SpeedResult.from_json(text)


def test_the_table_fits_80_columns_and_says_where_and_how(whole):
    table = render(whole)
    assert max(map(len, table.splitlines())) <= 80
    text = " ".join(table.split())
    for said in ("1 thread on cpu", whole.machine, "torch", "75.0% with 3", "sign test"):
        assert said in text


def test_markdown_has_a_row_for_each_row(whole):
    lines = render(whole, "markdown").splitlines()
    for row in whole.rows:
        assert any(line.startswith(f"| {row.measured} | {row.against} | ") for line in lines)


def test_a_part_is_measured_alone():
    result = tiny(only=["convert"], repeats=4)
    assert [row.measured for row in result.rows] == ["convert to group"]
    assert 3 <= len(result.rows[0].numerator) <= 4
    assert result.curves == ()


def test_random_state_and_threads_come_back(whole, states):
    (state, threads), (state_after, threads_after) = states
    assert torch.equal(state, state_after)
    assert threads == threads_after


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": ["lenett"]}, r"unknown network 'lenett'.*did you mean 'lenet'"),
        ({"only": ["opakus"]}, r"unknown comparison 'opakus'.*did you mean 'opacus'"),
        ({"repeats": 2}, "repeats is 2: at least 3"),
        ({"threads": 0}, "threads is 0: at least 1"),
        ({"repeats": True}, "repeats is True"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, message):
    with pytest.raises(InputError, match=message):
        run_speed(**options)


def test_an_unknown_format_is_refused(whole):
    with pytest.raises(InputError, match=r"unknown format 'markdwon'.*did you mean 'markdown'"):
        render(whole, "markdwon")


def test_width_one_is_the_network_of_that_name():
    own, named = wide_lenet(1), dpnorm.models.build("lenet")
    assert str(own) == str(named)
    assert str(wide_lenet(2)) != str(named)


def test_quick_measures_one_network_and_the_whole_six():
    from dpnorm.benchmark.speed import FULL, QUICK
    from dpnorm.benchmark.speed import SUBJECTS as SHIPPED

    assert QUICK.networks == ("lenet",)
    six = ("lenet", "vgg-small", "resnet8", "resnet20", "wrn16-4", "tv:resnet18")
    assert FULL.networks == tuple(SHIPPED) == six
    assert FULL.repeats >= 20
    assert replace(FULL, networks=QUICK.networks) != QUICK
    assert set(ALL) == {*found.COMPARISONS, "batch-size", "width", "models"}
