"""A pool is opened from whatever its user has at hand, and nothing else is taken for one."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch

from dpnorm.data import exact_moments, load
from dpnorm.errors import InputError
from dpnorm.leakage import Member, PoolFolder, attack, draw_membership, open_pools
from dpnorm.leakage.attack_all import attack_all
from dpnorm.leakage.opened import course_at
from dpnorm.training import predict
from dpnorm.training.recipe import TrainingRecipe
from dpnorm.training.released import prepared
from dpnorm.training.run import run_recipe
from tests.leakage.attack_pools import gaussian_pool

RECIPE = TrainingRecipe(
    data="digits", model="mlp", variant="batch", training={"epochs": 1, "batch_size": 128}
)


def small_network(**options):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return folder, run_recipe(RECIPE, folder)


def same(pool, other) -> bool:
    names = [field.name for field in dataclasses.fields(pool)]
    return all(np.array_equal(getattr(pool, n), getattr(other, n)) for n in names)


def test_a_saved_pool_opens_under_the_name_of_its_file(tmp_path):
    pool = gaussian_pool(models=4)
    pool.save(tmp_path / "half.npz")
    ((name, opened),) = open_pools(tmp_path / "half.npz")
    assert name == "half"
    assert same(opened, pool)


@pytest.mark.parametrize("size", [0, 100, -20])
def test_a_truncated_file_is_one_clear_error(tmp_path, size):
    file = tmp_path / "pool.npz"
    gaussian_pool().save(file)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputError, match="not a readable npz"):
        open_pools(file)


def test_a_file_with_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    pool = gaussian_pool()
    arrays = {name: getattr(pool, name) for name in ("keep", "logits", "labels", "outlier")}
    arrays["labels"] = np.array([Trap()] * pool.records, dtype=object)
    np.savez(tmp_path / "trap.npz", **arrays)
    with pytest.raises(InputError, match="without objects"):
        open_pools(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


def test_the_folder_of_a_pool_opens_as_its_pool_and_its_course(tmp_path):
    data = load("digits")
    folder = PoolFolder(tmp_path / "mine")
    keep = draw_membership(len(data.train), 2, 0)
    logits = np.random.default_rng(0).normal(size=(2, len(data.train), 1, 10)).astype(np.float32)
    terms = {"privacy": None}
    with folder.entered(terms, data, 2, 0):
        for m in range(2):
            test_logits = np.zeros((len(data.test), 10), dtype=np.float32)
            folder.save_member(m, Member(keep[m], logits[m], 0.5, None, 1.0, (), test_logits))
    ((name, pool),) = open_pools(folder.path)
    assert name == "mine"
    assert same(pool, folder.pool())
    assert np.array_equal(pool.logits, logits)
    assert course_at(folder.path) is None
    (folder.path / "members" / "00001.npz").unlink()
    with pytest.raises(InputError, match="1 of 2 models are not trained"):
        open_pools(folder.path)


def test_a_trained_model_is_a_pool_of_one_over_train_and_test_records(run):
    folder, trained = run
    ((name, pool),) = open_pools(folder)
    data = load("digits")
    assert name == "plain"
    assert pool.keep.tolist() == [[True] * len(data.train) + [False] * len(data.test)]
    x = torch.cat([data.train.x, data.test.x])
    assert np.allclose(pool.logits[0, :, 0], predict(trained.model, x).numpy(), atol=1e-5)
    assert pool.labels.tolist() == torch.cat([data.train.y, data.test.y]).tolist()
    assert pool.accuracy[0] == pytest.approx(trained.accuracy, abs=1e-9)


def test_opening_a_run_changes_neither_its_folder_nor_the_random_state(run):
    folder, _ = run
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    state = torch.get_rng_state()
    open_pools(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_run_with_standardized_inputs_is_seen_through_the_same_preparation(tmp_path):
    recipe = RECIPE.model_copy(
        update={"standardize": RECIPE.standardize.model_copy(update={"moments": "exact"})}
    )
    trained = run_recipe(recipe, tmp_path / "run")
    ((_, pool),) = open_pools(tmp_path / "run")
    data = exact_moments(load("digits"))
    seen = predict(trained.model, data.test.x).numpy()
    assert np.allclose(pool.logits[0, len(data.train) :, 0], seen, atol=1e-5)
    raw = predict(trained.model, load("digits").test.x).numpy()
    assert not np.allclose(raw, seen, atol=0.1)


def test_a_run_with_released_moments_is_seen_through_what_was_released(tmp_path):
    recipe = TrainingRecipe(
        **{**RECIPE.model_dump(), "variant": "none"}
        | {
            "privacy": {"epsilon": 3.0, "delta": 1e-4, "accountant": "rdp", "seed": 1},
            "standardize": {"moments": "private", "epsilon": 0.5},
        }
    )
    folder = tmp_path / "run"
    trained = run_recipe(recipe, folder)
    released = (folder / "moments.json").read_bytes()
    ((_, pool),) = open_pools(folder)
    data, _ = prepared(load("digits"), recipe, folder / "moments.json")
    seen = predict(trained.model, data.train.x).numpy()
    assert np.allclose(pool.logits[0, : len(data.train), 0], seen, atol=1e-4)
    assert (folder / "moments.json").read_bytes() == released
    (folder / "moments.json").unlink()
    with pytest.raises(InputError, match=r"moments\.json"):
        open_pools(folder)
    assert not (folder / "moments.json").exists()


def test_one_model_serves_the_loss_attack_and_says_what_the_others_need(run):
    ((_, pool),) = open_pools(run[0])
    attacked = attack_all(pool)
    assert list(attacked.scores) == ["loss"]
    assert attacked.scores["loss"].auc == attack(pool, "loss").auc
    assert set(attacked.not_run) == {"bavaria", "calibrated", "lira", "rmia"}
    for reason in attacked.not_run.values():
        assert "Shadow models come with a pool: train one with dpnorm pool" in reason
    with pytest.raises(InputError, match=r"LiRA .* pool of 1 model.*train one with dpnorm pool"):
        attack_all(pool, ["loss", "lira"])


@pytest.mark.parametrize("kept", [True, False])
def test_a_pool_without_both_sides_is_refused_before_any_attack(kept):
    pool = gaussian_pool()
    pool = dataclasses.replace(pool, keep=np.full_like(pool.keep, kept))
    with pytest.raises(InputError, match="tells members from non-members, and needs both"):
        attack_all(pool)


def test_a_run_that_is_not_finished_or_damaged_says_so(tmp_path, run):
    folder = shutil.copytree(run[0], tmp_path / "run")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="does not hold the weights of mlp"):
        open_pools(folder)
    weights.write_bytes(whole)
    (folder / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="not finished"):
        open_pools(folder)
    (folder / "checkpoint.safetensors").unlink()
    weights.unlink()
    with pytest.raises(InputError, match="not finished"):
        open_pools(folder)


def test_weights_of_another_architecture_are_refused(tmp_path, run):
    folder = shutil.copytree(run[0], tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "lenet"}))
    with pytest.raises(InputError, match="does not hold the weights of lenet"):
        open_pools(folder)


def test_code_of_the_user_is_imported_only_where_it_is_named(tmp_path, monkeypatch):
    module = tmp_path / "own_models.py"
    module.write_text(
        f"from tests.leakage.test_opened import small_network\n"
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = "own_models:small_network"
    run_recipe(RECIPE.model_copy(update={"model": own, "variant": "batch"}), tmp_path / "run")
    (tmp_path / "imported").unlink()
    monkeypatch.delitem(__import__("sys").modules, "own_models")
    with pytest.raises(InputError, match="imported only where you name it: pass factory='own_mod"):
        open_pools(tmp_path / "run")
    assert not (tmp_path / "imported").exists()
    with pytest.raises(InputError, match="named 'other:thing', but the run trained 'own_models"):
        open_pools(tmp_path / "run", factory="other:thing")
    ((_, pool),) = open_pools(tmp_path / "run", factory=own)
    assert pool.models == 1
    assert (tmp_path / "imported").exists()


def test_what_is_no_pool_is_named_with_what_is_needed(tmp_path):
    needed = "a pool saved as .npz, the folder of a pool, of dpnorm train or of dpnorm bench"
    (tmp_path / "pool.pkl").write_bytes(b"\x80\x04")
    (tmp_path / "empty").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    for name, words in (
        ("nowhere", "no such file or folder"),
        ("pool.pkl", "is a file that is no .npz"),
        ("empty", "holds nothing"),
        ("thesis", "holds thesis.tex"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            open_pools(tmp_path / name)
        assert f"{needed} is needed" in str(raised.value)
