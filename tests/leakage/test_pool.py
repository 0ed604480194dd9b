import dataclasses

import numpy as np
import pytest

from dpnorm.errors import InputError
from dpnorm.leakage import Member, Pool, draw_membership


def make_pool(models: int = 4, records: int = 6, views: int = 2, classes: int = 3) -> Pool:
    generator = np.random.default_rng(5)
    return Pool(
        keep=draw_membership(records, models, 1),
        logits=generator.normal(size=(models, records, views, classes)).astype(np.float32),
        labels=generator.integers(classes, size=records),
        outlier=np.arange(records) > records - 3,
        accuracy=generator.random(models),
    )


def same(one: Pool, other: Pool) -> bool:
    """Whether all arrays of two pools are the same, bit for bit."""
    for field in dataclasses.fields(Pool):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if before is None or after is None:
            if before is not after:
                return False
        elif before.dtype != after.dtype or before.tobytes() != after.tobytes():
            return False
    return True


def test_a_saved_pool_loads_as_it_was(tmp_path):
    pool = make_pool()
    pool.save(tmp_path / "pool.npz")
    loaded = Pool.load(tmp_path / "pool.npz")
    assert same(pool, loaded)
    assert loaded.test_logits is None
    assert [path.name for path in tmp_path.iterdir()] == ["pool.npz"]


def test_a_pool_with_test_records_loads_as_it_was(tmp_path):
    pool = make_pool()
    logits = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    full = dataclasses.replace(pool, test_logits=logits, test_labels=np.arange(7) % 3)
    full.save(tmp_path / "pool.npz")
    assert same(full, Pool.load(tmp_path / "pool.npz"))


def test_a_pool_is_made_of_its_four_arrays():
    pool = make_pool()
    bare = Pool(keep=pool.keep, logits=pool.logits, labels=pool.labels, outlier=pool.outlier)
    assert bare.accuracy.shape == (4,)
    assert np.isnan(bare.accuracy).all()


def test_a_failed_save_keeps_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "pool.npz"
    make_pool().save(path)
    before = path.read_bytes()

    def savez(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(OSError, match="disk full"):
        make_pool(models=5).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["pool.npz"]


def test_members_are_stacked_in_order():
    pool = make_pool()
    members = [
        Member(pool.keep[m], pool.logits[m], float(pool.accuracy[m]), None, 0.1, ())
        for m in range(pool.models)
    ]
    stacked = Pool.from_members(members, pool.labels, pool.outlier)
    assert np.array_equal(stacked.keep, pool.keep)
    assert np.array_equal(stacked.logits, pool.logits)
    assert np.array_equal(stacked.accuracy, pool.accuracy)
    with pytest.raises(InputError, match="at least 1 member"):
        Pool.from_members([], pool.labels, pool.outlier)
    odd = dataclasses.replace(members[0], logits=members[0].logits[:, :1])
    with pytest.raises(InputError, match="the same shapes"):
        Pool.from_members([odd, members[1]], pool.labels, pool.outlier)


def _nan(logits: np.ndarray) -> np.ndarray:
    broken = logits.copy()
    broken[2, 0, 0, 0] = np.nan
    return broken


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: {"keep": p.keep.astype(int)}, "keep has dtype int64; bool is needed"),
        (lambda p: {"keep": p.keep[0]}, r"keep has shape \(6,\)"),
        (lambda p: {"keep": p.keep[:0]}, "at least 1 of each"),
        (lambda p: {"keep": p.keep[:3]}, r"needs \[3, 6, views, classes\]"),
        (lambda p: {"logits": p.logits[:, :, 0]}, r"logits have shape \(4, 6, 3\)"),
        (lambda p: {"logits": p.logits[..., :1]}, "2 classes"),
        (lambda p: {"logits": _nan(p.logits)}, "logits of model 2 .* NaN"),
        (lambda p: {"labels": p.labels[:5]}, r"labels has shape \(5,\).*needs \(6,\)"),
        (lambda p: {"labels": p.labels - 1}, "labels run from -1 .* 0 to 2 is needed"),
        (lambda p: {"labels": p.labels + 3}, "the logits have 3 classes"),
        (lambda p: {"labels": p.labels.astype(float)}, "labels has dtype float64"),
        (lambda p: {"outlier": p.outlier[:1]}, "outlier has shape"),
        (lambda p: {"accuracy": p.accuracy - 2}, "accuracy is .*-"),
        (lambda p: {"test_labels": p.labels}, "go together"),
        (lambda p: {"test_labels": p.labels, "test_logits": p.logits}, "test_logits have shape"),
        (
            lambda p: {"test_labels": p.labels, "test_logits": p.logits[:, :, 0] + np.inf},
            "the test_logits of model 0 .* are NaN or infinite",
        ),
        (
            lambda p: {"test_labels": p.labels + 3, "test_logits": p.logits[:, :, 0]},
            "the test_labels run from",
        ),
        (lambda p: {"accuracy": p.accuracy + 97}, "shares from 0 to 1"),
    ],
)
def test_a_pool_that_does_not_fit_together_is_refused(change, says):
    pool = make_pool()
    with pytest.raises(InputError, match=says):
        dataclasses.replace(pool, **change(pool))


def test_a_missing_or_broken_file_gives_one_clear_error(tmp_path):
    path = tmp_path / "pool.npz"
    with pytest.raises(InputError, match="no such file"):
        Pool.load(path)
    make_pool().save(path)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="not a readable npz"):
            Pool.load(path)
    damaged = bytearray(whole)
    middle = whole.index(b"logits.npy") + 400
    damaged[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="not a readable npz"):
        Pool.load(path)


def test_files_that_are_not_pools_say_what_is_missing(tmp_path):
    pool = make_pool()
    np.savez(tmp_path / "part.npz", keep=pool.keep, logits=pool.logits)
    with pytest.raises(InputError, match="labels, outlier missing; it holds keep, logit"):
        Pool.load(tmp_path / "part.npz")
    np.save(tmp_path / "one.npy", pool.keep)
    with pytest.raises(InputError, match="one array"):
        Pool.load(tmp_path / "one.npy")
    arrays = {field.name: getattr(pool, field.name) for field in dataclasses.fields(Pool)}
    arrays["labels"] = np.array([object()] * 6)
    np.savez(tmp_path / "objects.npz", **arrays)
    with pytest.raises(InputError, match="without objects"):
        Pool.load(tmp_path / "objects.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="not a readable npz"):
        Pool.load(tmp_path / "folder.npz")
