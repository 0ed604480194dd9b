"""dpnorm audit as a user runs it, on a recipe and on pools."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from dpnorm.leakage import audit_pool
from tests.cli.command import assert_one_line, run
from tests.leakage.attack_pools import gaussian_pool

RECIPE = """
data = "digits"
model = "lenet"
[training]
batch_size = 256
[privacy]
noise_multiplier = 1.0
steps = 3
delta = 1e-5
seed = 1
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def pool(tmp_path):
    made = gaussian_pool(models=8, records=400, shift=1.0)
    made.save(tmp_path / "pool.npz")
    return made, tmp_path / "pool.npz"


def test_a_recipe_is_trained_with_canaries(recipe):
    text = run("audit", recipe, "--canaries", 300)
    assert text.returncode == 0, text
    assert text.stdout.startswith("claimed: epsilon ")
    assert "white-box, gradient canaries" in text.stdout
    assert "300 canaries" in text.stdout
    assert all(len(line) <= 80 for line in text.stdout.splitlines())
    drawn = recipe.with_name("bounds.svg")
    again = run("audit", recipe, "--canaries", 300, "--format", "json", "--plot", drawn)
    found = json.loads(again.stdout)
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")
    assert found["exceeded"] is False
    assert found["white_box"]["epsilon"] <= found["claimed_epsilon"]
    assert f"{found['claimed_epsilon']:.3f}" in text.stdout


def test_a_claim_that_does_not_hold_ends_with_1(recipe, monkeypatch):
    from dpnorm.privacy.optimizer import PrivateOptimizer

    monkeypatch.setattr(PrivateOptimizer, "_own_std", lambda self, std: 0.0)
    result = run("audit", recipe, "privacy.noise_multiplier=8.0", "--canaries", 1000)
    assert result.returncode == 1, result
    assert "A BOUND IS ABOVE THE CLAIM" in result.stdout


def test_pools_are_audited_as_they_are(pool):
    made, path = pool
    text = run("audit", path)
    assert text.returncode == 0, text
    assert "the largest of 8 models" in text.stdout
    found = json.loads(run("audit", path, "--format", "json").stdout)["pool"]
    assert found == audit_pool(made, delta=1e-5).to_dict()
    single = run("audit", path, "--method", "multi-run")
    assert "from the first 4 models" in " ".join(single.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.toml", "privacy.clip=0"], ["clip"]),
        (["train.toml", "--canaries", "1000000"], ["1000000 canaries", "trainable parameters"]),
        (["train.toml", "--guesses", "2"], ["share is 2"]),
        (["train.toml", "--spread", "40"], ["spread is 40"]),
        (["train.toml", "--delta", "1e-6"], ["privacy.delta=1e-06"]),
        (["pool.npz", "--canaries", "100"], ["--canaries", "go with a recipe"]),
        (["train.toml", "--method", "multi-run"], ["multi-run takes a pool"]),
        (
            ["train.toml", "training.grad_sample_mode=ghost"],
            ["take 'hooks', 'lean' or 'functorch'"],
        ),
        (["pool.npz", "a=b"], ["settings go with a recipe"]),
        (["pool.npz", "--confidence", "2"], ["confidence"]),
        (["none.npz"], ["none.npz"]),
        (["pool.npz", "--plot", "x.svg"], ["goes with a recipe"]),
        (["none.toml"], ["there is no file"]),
    ],
)
def test_mistakes_are_one_line(recipe, pool, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert_one_line(run("audit", *arguments), *words)


def test_a_plain_recipe_has_nothing_to_audit(recipe):
    recipe.write_text(RECIPE.partition("[privacy]")[0])
    assert_one_line(run("audit", recipe), "has no [privacy]")
