"""dpnorm pool as a user runs it, grows it, and is refused."""

import numpy as np
import pytest

from dpnorm.leakage import PoolFolder
from tests.cli.command import assert_one_line, run

RECIPE = """
data = "digits"
model = "lenet"
variant = "group"
[training]
epochs = 1
batch_size = 32
seed = 4
[pool]
size = 2
outliers = 15
outlier_kind = "mislabelled"
views = 3
watch_every = 1
watch_norms = 1
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "pool.toml"
    path.write_text(RECIPE)
    return path


def test_a_pool_is_trained_and_grows(recipe, tmp_path):
    folder = tmp_path / "pool"
    first = run("pool", recipe, "-o", folder, "--workers", 1)
    assert first.returncode == 0, first
    assert first.stdout.splitlines()[0] == "2 models, 1297 records, 15 outliers"
    assert "test accuracy" in first.stdout
    assert f"next: dpnorm attack {folder}" in first.stdout
    assert all(len(line) <= 80 for line in first.stderr.splitlines())
    pool = PoolFolder(folder).pool()
    assert pool.logits.shape == (2, 1297, 3, 10)
    assert PoolFolder(folder).course().norms.shape == (1, 1, 1297)
    assert f"{pool.accuracy.mean():.1%}" in first.stdout
    second = run("pool", recipe, "pool.size=3", "-o", folder, "--workers", 1)
    assert second.returncode == 0
    assert "3 models, 2 of them finished before" in second.stderr
    assert np.array_equal(PoolFolder(folder).pool().logits[:2], pool.logits)


def test_the_models_are_those_of_the_recipe(recipe, tmp_path):
    run("pool", recipe, "-o", tmp_path / "a", "--workers", 1, "pool.outliers=0", "pool.views=1")
    private = ("privacy.epsilon=8.0", "privacy.seed=1", "privacy.delta=1e-3")
    result = run(
        "pool",
        recipe,
        "-o",
        tmp_path / "b",
        "--workers",
        1,
        "pool.outliers=0",
        "pool.views=1",
        *private,
    )
    assert result.returncode == 0, result
    plain, dp = (PoolFolder(tmp_path / name) for name in "ab")
    assert np.array_equal(plain.pool().keep, dp.pool().keep)
    assert plain.members()[0].statement is None
    assert 7 < dp.members()[0].statement["epsilon"] <= 8
    assert dp.course().clip == dp.description()["terms"]["privacy"]["clip"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["pool.size=1"], ["pool: size is 1"]),
        (["pool.sise=4"], ["unknown key 'sise'", "did you mean 'size'"]),
        (["variant=grup"], ["grup"]),
        (["pool.outlier_kind=nois"], ["nois", "noise"]),
        (["pool.views=1000"], ["1000 views were asked for"]),
        (["training.batch_size=5000"], ["batch"]),
        (["standardize.moments=exact"], ["standardize.moments is 'exact'"]),
        (["pool.watch_every=0"], ["watch_every is 0 and watch_norms 1"]),
        (["variant=batch", "privacy.epsilon=3.0"], ["refused"]),
    ],
)
def test_what_cannot_be_is_one_line(recipe, tmp_path, overrides, words):
    result = run("pool", recipe, *overrides, "-o", tmp_path / "pool", "--workers", 1)
    assert_one_line(result, *words)
    assert not list((tmp_path / "pool").glob("members/*"))


def test_another_recipe_in_the_folder_is_refused(recipe, tmp_path):
    run("pool", recipe, "-o", tmp_path / "pool", "--workers", 1)
    result = run("pool", recipe, "training.lr=0.3", "-o", tmp_path / "pool")
    assert_one_line(result, "holds another pool: config.lr was", "and is 0.3 now")
    assert_one_line(run("pool", tmp_path / "none.toml"), "there is no file")
    assert_one_line(run("pool", recipe, "-o", recipe), "cannot make the folder")
