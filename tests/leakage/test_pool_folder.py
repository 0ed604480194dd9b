"""Pools in folders: they grow in place, go on after a kill, and are one writer's at a time."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dpnorm import data as datasets
from dpnorm import models
from dpnorm.errors import InputError, StorageError
from dpnorm.files import locked
from dpnorm.leakage import draw_membership, memorization, train_pool
from dpnorm.leakage.folder import DESCRIPTION, PoolFolder
from dpnorm.leakage.gradient_norms import gradient_norms
from dpnorm.leakage.members import member_seed, pool_config, pool_privacy
from dpnorm.leakage.membership import grown_membership
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig, predict, train
from tests.leakage.test_pool import same

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.1)
ROOT = Path(__file__).parents[2]


def factory() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def small_data() -> datasets.Dataset:
    digits = datasets.load("digits")
    return dataclasses.replace(
        digits,
        train=digits.train.select(torch.arange(100)),
        test=digits.test.select(torch.arange(40)),
    )


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    return datasets.add_outliers(small_data(), "noise", 20, seed=1)


def grow(data, folder, size, **options):
    return train_pool(factory, data, CONFIG, size=size, seed=5, workers=1, folder=folder, **options)


def times(folder: Path) -> dict[str, int]:
    """Nothing where no model has begun: the folder of the members comes with the first."""
    return {f.name: f.stat().st_mtime_ns for f in folder.glob("members/*")}


def test_a_pool_grows_in_place_with_the_models_that_it_has(data, tmp_path):
    small = grow(data, tmp_path / "pool", 3)
    assert same(small, train_pool(factory, data, CONFIG, size=3, seed=5, workers=1))
    before = times(tmp_path / "pool")
    large = grow(data, tmp_path / "pool", 5)
    after = times(tmp_path / "pool")
    assert len(after) == 5
    assert {name: after[name] for name in before} == before  # not trained again
    assert np.array_equal(large.logits[:3], small.logits)
    assert np.array_equal(large.keep[:3], draw_membership(len(data.train), 3, 5))
    assert not np.array_equal(large.keep[3], large.keep[4])
    folder = PoolFolder(tmp_path / "pool")
    assert same(folder.pool(), large)
    assert same(folder.pool(models=3), small)
    assert same(grow(data, tmp_path / "pool", 5), large)
    assert times(tmp_path / "pool") == after
    assert large.test_labels.tolist() == data.test.y.tolist()
    assert large.accuracy == pytest.approx(
        (large.test_logits.argmax(2) == large.test_labels).mean(1)
    )


def test_models_that_are_added_are_fair_coins():
    keep = grown_membership(4000, [4, 6, 9], seed=3)
    assert np.array_equal(keep[:4], draw_membership(4000, 4, 3))
    assert np.array_equal(keep[:6], grown_membership(4000, [4, 6], seed=3))
    # 5 x 4000 coins: 4.4 standard errors, one false alarm in 100,000 seeds
    assert abs(keep[4:].mean() - 0.5) < 4.4 * 0.5 / np.sqrt(keep[4:].size)
    # those of the first four are not independent: no record is in all of them or in none
    correlations = (np.corrcoef(keep.astype(float)) - np.eye(9))[4:]
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)
    with pytest.raises(InputError, match="each must be larger"):
        grown_membership(10, [4, 4], seed=0)


def test_a_damaged_or_missing_member_is_trained_again(data, tmp_path):
    whole = grow(data, tmp_path / "pool", 3)
    members = tmp_path / "pool" / "members"
    cut = members / "00001.npz"
    cut.write_bytes(cut.read_bytes()[:-200])
    (members / "00002.npz").unlink()
    with pytest.raises(InputError, match=r"2 of 3 models are not trained or damaged .*number 1"):
        PoolFolder(tmp_path / "pool").pool()
    assert same(grow(data, tmp_path / "pool", 3), whole)
    flipped = bytearray(cut.read_bytes())
    flipped[len(flipped) // 2] ^= 1  # inside an array: the checksum tells
    cut.write_bytes(bytes(flipped))
    with pytest.raises(InputError, match="1 of 3 models"):
        PoolFolder(tmp_path / "pool").pool()
    assert same(grow(data, tmp_path / "pool", 3), whole)


def test_members_whose_labels_are_shifted_by_one_model_are_noticed(data, tmp_path):
    grow(data, tmp_path / "pool", 3)
    members = tmp_path / "pool" / "members"
    (members / "00000.npz").rename(members / "kept")
    (members / "00001.npz").rename(members / "00000.npz")
    (members / "kept").rename(members / "00001.npz")
    with pytest.raises(InputError, match="trained on other records than the membership"):
        PoolFolder(tmp_path / "pool").pool()
    with pytest.raises(InputError, match="trained on other records than the membership"):
        grow(data, tmp_path / "pool", 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"config": CONFIG.model_copy(update={"lr": 0.2})}, "config.lr was 0.1 and is 0"),
        (lambda d: {"seed": 6}, "seed was 5 and is 6"),
        (lambda d: {"size": 2}, "a pool of 3 models, 2 were asked for"),
        (lambda d: {"views": 2}, "views was 1 and is 2"),
        (lambda d: {"data": small_data()}, "data was 'digits.noise:20' and is 'digits'"),
        (lambda d: {"privacy": PrivacyConfig(epsilon=3, seed=1)}, "privacy was None"),
        (
            lambda d: {"factory": functools.partial(models.build, "mlp", image_size=8)},
            "initial weights of the model",
        ),
    ],
    ids=["config", "seed", "smaller", "views", "data", "privacy", "model"],
)
def test_another_pool_in_the_folder_is_refused_and_kept(data, tmp_path, change, message):
    folder = tmp_path / "pool"
    grow(data, folder, 3)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    asked = {"factory": factory, "data": data, "config": CONFIG, "size": 3, "seed": 5}
    with pytest.raises(InputError, match=message):
        train_pool(**(asked | change(data)), workers=1, folder=folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_folder_with_something_else_in_it_is_refused(data, tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(InputError, match=r"no pool, such as 'thesis\.tex'"):
        grow(data, tmp_path, 3)
    assert (tmp_path / "thesis.tex").read_text() == "do not lose me"
    with pytest.raises(InputError, match="holds no pool"):
        PoolFolder(tmp_path).pool()
    with pytest.raises(StorageError, match="cannot make the folder"):
        grow(data, tmp_path / "thesis.tex", 3)
    with pytest.raises(InputError, match="at least 1 record and 2 models"):
        grow(data, tmp_path / "new", 1)
    assert not (tmp_path / "new").exists()


def test_a_damaged_description_is_one_clear_error(data, tmp_path):
    grow(data, tmp_path / "pool", 2)
    file = tmp_path / "pool" / DESCRIPTION
    whole = file.read_text()
    for text in (whole[:40], "[]", "{}", whole.replace("dpnorm-pool/1", "dpnorm-pool/9")):
        file.write_text(text)
        with pytest.raises(InputError, match="is not what this dpnorm wrote"):
            PoolFolder(tmp_path / "pool").pool()
        with pytest.raises(InputError, match="is not what this dpnorm wrote"):
            grow(data, tmp_path / "pool", 2)


def test_a_folder_is_one_writers_at_a_time(data, tmp_path):
    pool = grow(data, tmp_path / "pool", 2)
    with locked(tmp_path / "pool"):
        with pytest.raises(InputError, match="another process trains in"):
            grow(data, tmp_path / "pool", 3)
        assert same(PoolFolder(tmp_path / "pool").pool(), pool)  # reading goes on


KILLED = """
import sys
from tests.leakage.test_pool_folder import grow, datasets, small_data
grow(datasets.add_outliers(small_data(), "noise", 20, seed=1), sys.argv[1], 6)
"""


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_pool_that_was_killed_goes_on(data, tmp_path, finished):
    folder = tmp_path / "pool"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        for _ in range(3000):
            there = len(list(folder.glob("members/0*.npz"))) if folder.exists() else -1
            if there >= finished or process.poll() is not None:
                break
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    before = times(folder)
    pool = grow(data, folder, 6)
    after = times(folder)
    assert {n: t for n, t in before.items() if n in after} == {
        n: after[n] for n in before if n in after
    }
    assert same(pool, train_pool(factory, data, CONFIG, size=6, seed=5, workers=1))


def test_a_full_disk_loses_no_member(data, tmp_path, monkeypatch):
    whole = train_pool(factory, data, CONFIG, size=3, seed=5, workers=1)
    real, calls = np.savez, []

    def full(file, **arrays):
        calls.append(arrays)
        if len(calls) == 3:  # the records, a member, and this one
            file.write(b"PK")
            raise OSError(28, "No space left on device")
        real(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(StorageError, match="No space left"):
        grow(data, tmp_path / "pool", 3)
    monkeypatch.undo()
    names = sorted(f.name for f in (tmp_path / "pool" / "members").iterdir())
    assert names == ["00000.npz"]
    assert same(grow(data, tmp_path / "pool", 3), whole)


def test_a_pool_that_cannot_be_trained_leaves_its_folder_for_another(data, tmp_path):
    huge = CONFIG.model_copy(update={"batch_size": 100})
    folder = tmp_path / "pool"
    with pytest.raises(InputError, match="take a smaller batch"):
        train_pool(factory, data, huge, size=2, seed=5, workers=1, folder=folder)
    assert not list(folder.iterdir())
    assert grow(data, folder, 2).models == 2


def test_outliers_are_planted_on_request(tmp_path):
    pool = grow(small_data(), tmp_path / "pool", 2, outliers=7, outlier_kind="mislabelled")
    assert int(pool.outlier.sum()) == 7
    assert pool.records == 100
    with pytest.raises(InputError, match="outlier"):
        grow(small_data(), None, 2, outliers=7, outlier_kind="nois")


def test_views_of_a_record_are_its_shifts_and_mirror_images():
    data = small_data()
    pool = train_pool(
        factory, data, CONFIG, size=2, seed=5, workers=1, views=4, view_kind="shift-flip"
    )
    assert pool.logits.shape == (2, 100, 4, 10)
    torch.manual_seed(0)
    single = train_pool(factory, data, CONFIG, size=2, seed=5, workers=1)
    assert np.array_equal(pool.logits[:, :, :1], single.logits)
    assert not np.array_equal(pool.logits[:, :, 0], pool.logits[:, :, 1])
    with pytest.raises(InputError, match="there are 1 to 18"):
        train_pool(factory, data, CONFIG, size=2, workers=1, views=19, view_kind="shift-flip")
    with pytest.raises(InputError, match="kind of view"):
        train_pool(factory, data, CONFIG, size=2, workers=1, views=2, view_kind="flip")


def test_a_watched_pool_knows_its_course(data, tmp_path):
    unwatched = grow(data, tmp_path / "unwatched", 3)
    pool = grow(data, tmp_path / "pool", 3, watch_every=1, watch_norms=2)
    assert same(pool, unwatched)  # looking changes nothing
    course = PoolFolder(tmp_path / "pool").course()
    assert course.epochs.tolist() == [1, 2]
    assert course.correct.shape == course.loss.shape == (3, 2, 120)
    assert course.norms.shape == (2, 2, 120)
    final = pool.logits[:, :, 0]
    assert np.array_equal(course.correct[:, -1], final.argmax(2) == pool.labels)
    by_hand = -np.take_along_axis(
        final - np.logaddexp.reduce(final, 2, keepdims=True), pool.labels[None, :, None], 2
    )[..., 0]
    np.testing.assert_allclose(course.loss[:, -1], by_hand, rtol=1e-4, atol=1e-5)
    assert course.memorized()[-1] == memorization(pool).outliers
    assert np.array_equal(np.isfinite(course.norms[:, 0]), pool.keep[:2])
    with pytest.raises(InputError, match="not watched along"):
        PoolFolder(tmp_path / "unwatched").course()
    with pytest.raises(InputError, match="epoch 7 was not watched"):
        course.memorization(7)
    with pytest.raises(InputError, match="need a folder"):
        grow(data, None, 3, watch_every=1)


@pytest.mark.parametrize("private", [False, True])
def test_watched_gradient_norms_are_those_of_the_model_of_that_epoch(data, tmp_path, private):
    privacy = PrivacyConfig(epsilon=8, seed=3, clip=0.5) if private else None
    pool = grow(data, tmp_path / "pool", 2, watch_every=2, watch_norms=1, privacy=privacy)
    course = PoolFolder(tmp_path / "pool").course()
    assert course.clip == (0.5 if private else None)
    seen = {}

    def watch(model, row):
        copy = factory()
        copy.load_state_dict(model.state_dict())
        seen[int(row["epoch"])] = copy

    members = PoolFolder(tmp_path / "pool").members()
    config = pool_config(CONFIG, privacy, len(data.train))
    seed = member_seed(5, 0)
    part = dataclasses.replace(
        data, train=data.train.select(torch.from_numpy(members[0].keep.copy()))
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trained = train(
            factory(),
            part,
            config.model_copy(update={"seed": seed}),
            None if privacy is None else pool_privacy(privacy, config, len(data.train), seed),
            watch=watch,
        )
    assert np.array_equal(predict(trained.model, data.train.x).numpy(), pool.logits[0, :, 0])
    epoch = int(course.epochs[0])
    expected = gradient_norms(seen[epoch], part.train.x, part.train.y, mode="eval")
    # an mlp couples no records: whatever the batches, the same norms
    np.testing.assert_allclose(course.norms[0, 0][members[0].keep], expected, rtol=1e-3, atol=1e-5)


class Blurred(nn.Module):
    """Draws a dropout mask in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(nn.functional.dropout(x.flatten(1), 0.5, training=True))


class Mixing(nn.Module):
    """Takes statistics of the batch in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64, track_running_stats=False)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(self.norm(x.flatten(1)))


@pytest.mark.parametrize("kind", [Blurred, Mixing])
def test_signals_that_are_not_of_one_record_are_refused(data, kind):
    with pytest.raises(InputError, match=r"move by .* when it is looked at alone"):
        train_pool(kind, data, CONFIG, size=2, seed=1, workers=1)


def test_pool_json_is_readable_and_says_what_the_pool_is_of(data, tmp_path):
    grow(data, tmp_path / "pool", 2)
    about = json.loads((tmp_path / "pool" / DESCRIPTION).read_text())
    assert about["sizes"] == [2]
    assert about["terms"]["config"]["lr"] == 0.1
    assert about["terms"]["data"] == data.name
