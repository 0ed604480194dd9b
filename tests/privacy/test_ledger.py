"""The ledger: what it keeps, and what several runs on the same records spend together."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

import dpnorm
from dpnorm.errors import InputError
from dpnorm.privacy import Event, Ledger, Release
from dpnorm.privacy.accounting import epsilon_of, noise_for
from tests.privacy.trainings import Training, loader, network, sgd

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
DELTA = 1e-3
GRADIENT, STATISTICS = Release("gradients", 1.2, 0.5), Release("statistics", 4.8, None)


def booked(*steps):
    ledger = Ledger()
    for noise, rate, releases, run in steps:
        ledger.book(noise, rate, releases, run=run)
    return ledger


def test_equal_steps_in_a_row_are_one_event_and_others_are_not():
    ledger = booked(
        (1.0, 0.1, (GRADIENT,), "a"),
        (1.0, 0.1, (GRADIENT,), "a"),
        (1.0, 0.1, (GRADIENT, STATISTICS), "a"),
        (1.0, 0.2, (GRADIENT, STATISTICS), "a"),
        (2.0, 0.2, (GRADIENT, STATISTICS), "a"),
        (2.0, 0.2, (GRADIENT, STATISTICS), "b"),
        (2.0, 0.2, (GRADIENT, STATISTICS), "a"),
    )
    assert [event.steps for event in ledger.events] == [2, 1, 1, 1, 1, 1]
    assert ledger.runs() == ["a", "b"]
    assert [event.entry for event in ledger.of("b")] == [(2.0, 0.2, 1)]


def test_the_history_of_a_run_holds_its_steps_and_that_of_all_holds_all():
    ledger = booked(
        (1.0, 0.1, (GRADIENT,), "a"),
        (1.0, 0.1, (), "b"),
        (1.0, 0.1, (GRADIENT, STATISTICS), "a"),
        (2.0, 0.1, (), "b"),
    )
    ledger.book(2.0, 0.1, run="b", steps=4)
    assert ledger.history("a") == [(1.0, 0.1, 2)]
    assert ledger.history("b") == [(1.0, 0.1, 1), (2.0, 0.1, 5)]
    assert ledger.history() == [(1.0, 0.1, 3), (2.0, 0.1, 5)]
    assert ledger.history("c") == []


STEPS = st.tuples(
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.1, 1.0]),
    st.sampled_from([(), (GRADIENT,), (GRADIENT, STATISTICS)]),
    st.sampled_from(["a", "b"]),
)


@given(steps=st.lists(STEPS, max_size=30))
def test_merging_loses_no_step(steps):
    ledger = booked(*steps)
    for run in ("a", "b", None):
        wanted = [(noise, rate) for noise, rate, _, own in steps if run in (own, None)]
        found = [entry[:2] for entry in ledger.history(run) for _ in range(entry[2])]
        assert found == wanted
    assert sum(event.steps for event in ledger.events) == len(steps)
    for a, b in zip(ledger.events, ledger.events[1:], strict=False):
        assert (a.entry[:2], a.releases, a.run) != (b.entry[:2], b.releases, b.run)


FINITE = st.floats(0, 1e300)
EVENTS = st.builds(
    Event,
    FINITE,
    st.floats(0, 1, exclude_min=True),
    st.integers(1, 2**53),
    st.lists(
        st.builds(Release, st.text(), FINITE, st.none() | st.floats(1e-300, 1e300)), max_size=2
    ).map(tuple),
    st.text(),
)


@given(events=st.lists(EVENTS, max_size=5))
def test_a_ledger_comes_back_from_plain_data_and_from_json_as_it_was(events):
    ledger = Ledger(events)
    assert Ledger.from_dict(ledger.to_dict()) == ledger
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict(), allow_nan=False))) == ledger


def test_a_ledger_comes_back_from_a_file(tmp_path):
    ledger = booked((1.0, 0.1, (GRADIENT, STATISTICS), "Lauf Ä"), (0.0, 1.0, (), "b"))
    ledger.save(tmp_path / "ledger.json")
    assert Ledger.load(tmp_path / "ledger.json") == ledger
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.json"]


@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [
        *((noise, 0.1, 1) for noise in (-1.0, math.nan, math.inf)),
        *((1.0, rate, 1) for rate in (0.0, -0.1, 1.1, math.nan)),
        *((1.0, 0.1, steps) for steps in (0, -1, 1.5, True)),
    ],
)
def test_numbers_that_no_step_can_have_are_not_booked(noise, rate, steps):
    ledger = Ledger()
    with pytest.raises(InputError, match=r"steps have noise multiplier .* needed are"):
        ledger.book(noise, rate, steps=steps)
    assert ledger.events == []


def without(key):
    return {k: v for k, v in GOOD.items() if k != key}


GOOD = {
    "noise_multiplier": 1.0,
    "sampling_rate": 0.5,
    "steps": 3,
    "releases": [{"name": "gradients", "noise_multiplier": 1.0, "clip": 0.5}],
    "run": "run 1",
}


@pytest.mark.parametrize(
    "event",
    [
        *(without(key) for key in GOOD),
        *(GOOD | {"noise_multiplier": noise} for noise in (-1, math.nan, math.inf, "1", None)),
        *(GOOD | {"sampling_rate": rate} for rate in (0, 2, True, 10**400)),
        *(GOOD | {"steps": steps} for steps in (0, -1, 1.0, 2.5, True, "3")),
        *(GOOD | {"run": run} for run in (None, 3)),
        *(GOOD | {"releases": releases} for releases in (None, 3, [3], "ab", [{}])),
        *(
            GOOD | {"releases": [GOOD["releases"][0] | wrong]}
            for wrong in ({"name": 3}, {"noise_multiplier": -1}, {"clip": 0}, {"clip": "1"})
        ),
        3,
        [1.0, 0.5, 3],
    ],
    ids=str,
)
def test_an_event_that_never_was_is_no_ledger(event, tmp_path):
    data = {"format": "dpnorm ledger", "version": 1, "events": [GOOD, event]}
    refused(data, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "dpnorm ledger",
        {},
        {"format": "dpnorm ledger", "version": 1},
        {"format": "dpnorm ledger", "version": 1, "events": None},
        {"format": "dpnorm ledger", "version": 1, "events": {"a": GOOD}},
        {"format": "dpnorm ledger", "version": 2, "events": [GOOD]},
        {"format": "dpnorm ledger", "version": "1", "events": [GOOD]},
        {"format": "another", "version": 1, "events": [GOOD]},
    ],
    ids=str,
)
def test_other_data_are_no_ledger(data, tmp_path):
    refused(data, tmp_path)


def refused(data, folder):
    with pytest.raises(InputError, match="no ledger that can be read") as caught:
        Ledger.from_dict(data)
    assert "\n" not in str(caught.value)
    path = folder / "ledger.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"ledger\.json.*needed is a file that Ledger\.save wrote"):
        Ledger.load(path)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"\x80\x02}."])
def test_files_that_hold_no_json_are_told(raw, tmp_path):
    path = tmp_path / "ledger.json"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"ledger\.json.*is no JSON") as caught:
        Ledger.load(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_told(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match=r"cannot read .*needed is a file that Ledger\.save"):
            Ledger.load(path)


# Several runs on the same records


def engine(**options):
    return dpnorm.PrivacyEngine(accountant="rdp", **options)


def test_two_runs_add_up_to_what_their_steps_spend_together():
    first = Training(engine=engine(), noise_multiplier=1.5).run()
    alone = first.engine.get_epsilon(DELTA)
    second = Training(engine=engine(ledger=first.engine.ledger), data=loader(batch_size=6)).run(2)
    statement = second.engine.statement(DELTA)
    assert second.engine.run == "run 2"
    assert statement.earlier_runs == ("run 1",)
    assert statement.epsilon == second.engine.get_epsilon(DELTA)
    together = [(1.5, 1 / 3, 3), (1.0, 1 / 4, 8)]
    assert first.engine.ledger.history() == together
    assert statement.total_epsilon == epsilon_of(together, delta=DELTA, accountant="rdp")
    independent = RDPAccountant()
    independent.history = together
    assert statement.total_epsilon == pytest.approx(independent.get_epsilon(DELTA))
    assert statement.total_epsilon > max(statement.epsilon, alone)
    assert f"epsilon {statement.total_epsilon:.4g} (run 1)" in str(statement)
    assert first.engine.get_epsilon(DELTA) == alone


def test_a_ledger_from_a_file_counts_as_the_engine_s_own(tmp_path):
    first = Training(engine=engine(run="pretraining")).run()
    first.engine.ledger.save(tmp_path / "ledger.json")
    second = Training(engine=engine(ledger=Ledger.load(tmp_path / "ledger.json"))).run()
    statement = second.engine.statement(DELTA)
    assert statement.earlier_runs == ("pretraining",)
    assert statement.total_epsilon == epsilon_of([(1.0, 1 / 3, 6)], delta=DELTA, accountant="rdp")


def test_names_of_runs_are_unique_even_before_their_first_step():
    ledger = Ledger()
    engines = [engine(ledger=ledger) for _ in range(3)]
    assert [e.run for e in engines] == ["run 1", "run 2", "run 3"]
    named = engine(ledger=ledger, run="run 5")
    assert engine(ledger=ledger).run == "run 4"
    assert engine(ledger=ledger).run == "run 6"
    for name in ("run 2", named.run):
        with pytest.raises(InputError, match=f"has the name '{name}' already: take another name"):
            engine(ledger=ledger, run=name)
    for name in ("", 3):
        with pytest.raises(InputError, match="it is to be a text"):
            engine(ledger=ledger, run=name)
    other = engine()
    assert other.run == "run 1"


def test_runs_side_by_side_keep_their_own_accounts():
    ledger = Ledger()
    trainings = [Training(engine=engine(ledger=ledger), noise_multiplier=n) for n in (1.0, 2.0)]
    for batches in zip(*[training.data for training in trainings], strict=True):
        for training, (x, y) in zip(trainings, batches, strict=True):
            training.step(x, y)
    for training, noise in zip(trainings, (1.0, 2.0), strict=True):
        assert ledger.history(training.engine.run) == [(noise, 1 / 3, 3)]
        assert training.engine.accountant.history == [(noise, 1 / 3, 3)]


def test_a_ledger_is_a_ledger(tmp_path):
    for wrong in ("ledger.json", [], {}):
        with pytest.raises(InputError, match=r"ledger is a .*Ledger\.load\(path\)"):
            engine(ledger=wrong)


@pytest.mark.parametrize("poisson", [True, False])
def test_the_noise_for_a_target_pays_for_earlier_runs_too(poisson):
    first = Training(engine=engine(), noise_multiplier=2.0).run()
    spent = first.engine.get_epsilon(DELTA)
    target, model = spent + 4.0, network()
    second = engine(ledger=first.engine.ledger)
    made = second.make_private_with_epsilon(
        module=model,
        optimizer=sgd(model.parameters()),
        data_loader=loader(),
        target_epsilon=target,
        target_delta=DELTA,
        epochs=2,
        max_grad_norm=0.5,
        poisson_sampling=poisson,
        seed=0,
    )
    alone = noise_for(
        epsilon=target,
        sampling_rate=1 / 3 if poisson else 1.0,
        steps=6,
        delta=DELTA,
        accountant="rdp",
    )
    assert made[1].noise_multiplier > alone * (1 if poisson else 2)
    for _ in range(2):
        for x, y in made[2]:
            made[1].zero_grad()
            torch.nn.functional.cross_entropy(made[0](x), y).backward()
            made[1].step()
    total = epsilon_of(first.engine.ledger.history(), delta=DELTA, accountant="rdp")
    assert target - 0.02 < total <= target


def test_a_budget_that_is_spent_already_is_refused():
    first = Training(engine=engine(), noise_multiplier=1.0).run()
    spent, model = first.engine.get_epsilon(DELTA), network()
    second = engine(ledger=first.engine.ledger)
    with pytest.raises(InputError, match="spen") as caught:
        second.make_private_with_epsilon(
            module=model,
            optimizer=sgd(model.parameters()),
            data_loader=loader(),
            target_epsilon=spent / 2,
            target_delta=DELTA,
            epochs=1,
            max_grad_norm=0.5,
        )
    assert "\n" not in str(caught.value)
