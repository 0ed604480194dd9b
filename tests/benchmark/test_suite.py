import contextlib
import json
import math

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnorm.benchmark import Suite, load_suite, shipped_suites
from dpnorm.benchmark.arms import _require_attacks
from dpnorm.errors import DpnormError, InputError
from tests.benchmark.suites import one_arm, tiny

TOML = """
name = "mine"
datasets = ["digits"]
models = ["lenet"]
variants = ["batch", "group"]
epsilons = [inf, 8]

[pool]
size = 4
outliers = 10

[training]
lr = 0.1
epochs = 3

[overrides.short]
training = { epochs = 1 }
pool.size = 2

[overrides.gentle]
where = { variants = ["batch"], epsilons = [inf] }
training = { lr = 0.01 }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    return path


def test_an_override_is_asked_for_by_name_and_keeps_what_it_does_not_name(file):
    plain, short = load_suite(file), load_suite(file, ["short"])
    assert (plain.training.epochs, plain.pool.size) == (3, 4)
    assert (short.training.epochs, short.pool.size) == (1, 2)
    assert (short.training.lr, short.pool.outliers) == (0.1, 10)
    assert set(short.overrides) == {"short", "gentle"}
    # the suite may be narrowed below what an override is for
    assert load_suite(file, ['variants=["group"]']).variants == ("group",)
    both = load_suite(file, ["short", "pool.size=5", "epsilons=[inf]", "name=other"])
    assert (both.pool.size, both.training.epochs, both.name) == (5, 1, "other")


def test_an_override_with_where_changes_its_arms_and_no_other(file):
    suite = load_suite(file)
    assert suite.for_arm("digits", "lenet", "batch", math.inf).training.lr == 0.01
    assert suite.for_arm("digits", "lenet", "batch", math.inf).training.epochs == 3
    assert suite.for_arm("digits", "lenet", "group", math.inf).training.lr == 0.1
    assert suite.for_arm("digits", "lenet", "batch", 8.0).training.lr == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon = [3]", r"unknown key 'epsilon'.*did you mean 'epsilons'"),
        ('variants = ["grup"]', r"unknown variant 'grup'.*did you mean 'group'"),
        ("epsilons = [0]", "epsilons.0 is 0: it should be greater than 0"),
        ("epsilons = []", "epsilons"),
        ('datasets = ["digits", "digits"]', "datasets names something twice"),
        ('allow = "all"', "allow"),
        ('name = "cells"', "'cells' names a folder of the runs"),
        ('name = "a/b"', "names a folder"),
        ("processes = 0", "processes is 0"),
        ("[pool]\nsize = 1", "pool: size is 1"),
        ('[pool]\noutlier_kind = "nois"', r"unknown kind of outliers 'nois'.*'noise'"),
        ('[leakage]\nattacks = ["lyra"]', r"unknown attack 'lyra'.*did you mean 'lira'"),
        ("[leakage]\nattack = 1", r"leakage: unknown key 'attack'.*did you mean 'attacks'"),
        ("[audits]\ncanaries = 1", "audits: canaries is 1"),
        ("[overrides.x]", "overrides.x"),
        (
            "[overrides.x]\ntraining = { lrr = 1 }",
            r"overrides.x: training: unknown key 'lrr'.*'lr'",
        ),
        ("[overrides.x]\ntraining.lr = 1\nwhere = {}", "where is empty"),
        ('[overrides.x]\ntraining.lr = 1\nwhere = { variants = ["rms"] }', "names 'rms'"),
        ('[overrides.x]\nname = "y"', "changes neither name"),
        ('[overrides.x]\nseeds = [1]\nwhere = { models = ["lenet"] }', "not of one arm"),
    ],
)
def test_a_wrong_suite_is_one_clear_error(tmp_path, text, message):
    lines = {
        "name": 'name = "mine"',
        "datasets": 'datasets = ["digits"]',
        "models": 'models = ["lenet"]',
        "variants": 'variants = ["group"]',
    }
    lines.pop(text.partition(" ")[0], None)
    file = tmp_path / "wrong.toml"
    file.write_text("\n".join([*lines.values(), text]))
    with pytest.raises(InputError, match=message) as error:
        load_suite(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("shrt", r"unknown override 'shrt'.*did you mean 'short'"),
        ("gentle", "applies by itself"),
        ("training.lrr=1", r"training: unknown key 'lrr'.*did you mean 'lr'"),
        ("=1", "should be KEY=VALUE"),
        ("name.x=1", "'name' is not a section"),
        ("pool=3", "pool"),
    ],
)
def test_a_wrong_override_is_one_clear_error(file, wanted, message):
    with pytest.raises(InputError, match=message):
        load_suite(file, [wanted])


def test_shipped_suites_are_found_by_name_and_valid():
    assert set(shipped_suites()) == {"quick", "standard", "full", "memorization", "cifar10"}
    for name in shipped_suites():
        assert load_suite(name).name == name
    with pytest.raises(InputError, match=r"unknown suite 'quik'.*did you mean 'quick'"):
        load_suite("quik")
    with pytest.raises(InputError, match=r"there is no file 'quik.toml'"):
        load_suite("quik.toml")


def test_the_schema_takes_what_is_valid_and_refuses_what_is_not():
    schema = Suite.model_json_schema()
    good = json.loads(json.dumps(tiny().to_dict()))
    good["epsilons"] = [8.0]  # JSON has no infinity; TOML's inf is read as a number
    good.pop("overrides")
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good | {"epsilon": [1]}, schema)


def test_a_suite_survives_its_own_plain_data():
    suite = tiny()
    assert Suite(**json.loads(json.dumps(suite.to_dict()))) == suite


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**6), st.floats(), st.text(max_size=8)
)
KEYS = st.one_of(st.sampled_from(sorted(Suite.model_fields)), st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(changes=st.dictionaries(KEYS, VALUES, max_size=4))
def test_no_suite_ends_in_a_traceback(changes):
    # a suite, or dpnorm's own error: nothing else may come
    valid = tiny().model_dump(exclude_unset=True)
    with contextlib.suppress(DpnormError):
        assert Suite(**(valid | changes)).to_dict()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(max_size=60))
def test_no_file_and_no_override_ends_in_a_traceback(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("fuzz") / "suite.toml"
    file.write_text(TOML + text, encoding="utf-8", errors="replace")
    for path, overrides in ((file, []), ("quick", [text])):
        with contextlib.suppress(DpnormError):
            assert load_suite(path, overrides).to_dict()


RECORDS = {"quick": 1437, "standard": 4000, "full": 4000, "memorization": 4000, "cifar10": 50_000}


@pytest.mark.parametrize("name", shipped_suites())
def test_the_pools_of_a_shipped_suite_serve_its_attacks(name):
    suite = load_suite(name)
    for seed in suite.seeds:
        _require_attacks(suite, RECORDS[name] + suite.pool.outliers, seed)


def test_an_attack_that_the_membership_cannot_serve_is_said_before_training():
    suite = one_arm(pool={"size": 16}, leakage={"attacks": ("rmia",)})
    _require_attacks(suite, 64, 0)  # few records: each is out of two models by chance
    with pytest.raises(InputError, match=r"leakage.attacks: online RMIA needs .*'bavaria'"):
        _require_attacks(suite, 4100, 0)
