import zipfile

import numpy as np
import pytest
import torch

from dpnorm.data import load
from dpnorm.errors import InputError

N = 100
LABELS = np.arange(N) % 4


def save(tmp_path, **arrays) -> str:
    path = tmp_path / "records.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def images(dtype=np.float32, shape=(5, 6)) -> np.ndarray:
    """Images whose first pixel says which record they are."""
    x = np.zeros((N, *shape), dtype=dtype)
    x.reshape(N, -1)[:, 0] = np.arange(N)
    return x


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((7,), (7,)), ((5, 6), (1, 5, 6)), ((3, 5, 6), (3, 5, 6))],
    ids=["flat", "gray", "channels"],
)
def test_records_keep_their_values_and_labels(tmp_path, shape, expected):
    data = load(save(tmp_path, x=images(shape=shape), y=LABELS))
    assert data.shape == expected
    assert data.num_classes == 4
    assert [len(part) for part in data.parts().values()] == [80, 16, 4]
    identities = []
    for part in data.parts().values():
        which = part.x.flatten(1)[:, 0].long()
        assert torch.equal(part.y, which % 4)
        assert np.bincount(part.y.numpy()).tolist() == [len(part) // 4] * 4
        identities += which.tolist()
    assert sorted(identities) == list(range(N))
    assert "as they were in the file" in data.scaling


def test_bytes_are_brought_to_plus_minus_one(tmp_path):
    data = load(save(tmp_path, x=images(np.uint8), y=LABELS))
    firsts = torch.cat([part.x[:, 0, 0, 0] for part in data.parts().values()])
    assert torch.allclose(firsts.sort().values, torch.arange(N) / 127.5 - 1, atol=1e-6)
    assert "from [0, 255]" in data.scaling
    assert data.bounds == (-1, 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint16, ">f4"])
def test_other_numbers_stay_as_they_are(tmp_path, dtype):
    data = load(save(tmp_path, x=images(dtype), y=LABELS.astype(np.uint8)))
    firsts = torch.cat([part.x[:, 0, 0, 0] for part in data.parts().values()])
    assert firsts.sort().values.tolist() == list(range(N))


def test_num_classes_allows_classes_that_no_record_has(tmp_path):
    data = load(save(tmp_path, x=images(), y=2 * LABELS, num_classes=9))
    assert data.num_classes == 9


def test_the_same_file_gives_the_same_split(tmp_path):
    name = save(tmp_path, x=images(), y=LABELS)
    assert load(name).fingerprint() == load(name).fingerprint()


def with_value(value: float, dtype: type = np.float32) -> np.ndarray:
    x = images(dtype)
    x[7, 2, 3] = value
    return x


def with_label(label: int) -> np.ndarray:
    y = LABELS.copy()
    y[3] = label
    return y


BAD_ARRAYS = {
    "no x": ({"y": LABELS}, "no array 'x'.*holds 'y'"),
    "no y": ({"x": images()}, "no array 'y'.*holds 'x'"),
    "neither": ({"a": LABELS}, "no array 'x' and no array 'y'.*holds 'a'"),
    "object x": ({"x": np.array([None] * N), "y": LABELS}, "x is an object array.*pickle"),
    "object y": ({"x": images(), "y": np.array(["a", 1] * 50, object)}, "y is an object array"),
    "nan": ({"x": with_value(np.nan), "y": LABELS}, "x has NaN.* in 1 of 100.*position 7"),
    "infinite": ({"x": with_value(-np.inf), "y": LABELS}, "x has NaN, infinite"),
    "too large": ({"x": with_value(1e300, np.float64), "y": LABELS}, "float32-exceeding"),
    "text x": ({"x": np.full((N, 3), "a"), "y": LABELS}, "x must hold numbers.*<U1"),
    "bool x": ({"x": np.zeros((N, 3), bool), "y": LABELS}, "x must hold numbers.*bool"),
    "complex x": ({"x": np.zeros((N, 3), complex), "y": LABELS}, "x must hold numbers"),
    "x 1-D": ({"x": np.zeros(N), "y": LABELS}, r"x must be \[N, D\].*1 dimensions: \[100\]"),
    "x 5-D": ({"x": np.zeros((N, 1, 1, 1, 1)), "y": LABELS}, "5 dimensions"),
    "x empty": ({"x": np.zeros((N, 0)), "y": LABELS}, r"records of x are empty.*\[100, 0\]"),
    "lengths": ({"x": images(), "y": LABELS[:-1]}, "x has 100 records, but y has 99 labels"),
    "y 2-D": ({"x": images(), "y": LABELS[:, None]}, r"list of integers.*\[100, 1\]"),
    "y float": ({"x": images(), "y": LABELS * 1.0}, "list of integers.*float64"),
    "y negative": ({"x": images(), "y": with_label(-1)}, "must start at 0, but y has -1"),
    "y gap": ({"x": images(), "y": with_label(9)}, "run to 9, but no record has the label 4"),
    "y no 0": ({"x": images(), "y": LABELS + 1}, "run to 4, but no record has the label 0"),
    "y huge": (
        {"x": images(), "y": with_label(0).astype(np.uint64) + np.uint64(2**63)},
        "no record has the label 0",
    ),
    "y too high": (
        {"x": images(), "y": LABELS, "num_classes": 3},
        "a label is 3, but num_classes is 3, so labels may run from 0 to 2",
    ),
    "num_classes list": (
        {"x": images(), "y": LABELS, "num_classes": [4, 4]},
        r"num_classes must be one integer, but it is int64 of shape \[2\]",
    ),
    "num_classes float": (
        {"x": images(), "y": LABELS, "num_classes": 4.0},
        "num_classes must be one integer, but it is float64",
    ),
    "one class": ({"x": images(), "y": 0 * LABELS}, "every label is 0; at least 2 classes"),
    "one class of several": (
        {"x": images(), "y": 0 * LABELS, "num_classes": 4},
        "every label is 0; at least 2 classes",
    ),
    "too few": ({"x": images()[:49], "y": LABELS[:49]}, "49 records are too few.*at least 50"),
    "none": ({"x": images()[:0], "y": LABELS[:0]}, "0 records are too few"),
    "too few for classes": ({"x": images(), "y": np.arange(N)}, "too few.*at least 200"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_refused_each_with_its_message(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message) as caught:
        load(save(tmp_path, **arrays))
    assert "records.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_object_array_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    name = save(tmp_path, x=np.array([Bomb()] * N), y=LABELS)
    with pytest.raises(InputError, match="object array"):
        load(name)


def test_no_path_no_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="needs the path of a file"):
        load("npz:")
    with pytest.raises(InputError, match="there is no such file"):
        load(f"npz:{tmp_path / 'absent.npz'}")
    with pytest.raises(InputError, match="this is a folder"):
        load(f"npz:{tmp_path}")


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, images())


def write_truncated(path):
    np.savez(path, x=images(), y=LABELS)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("x,y\n1,2\n"),
        write_npy,
        write_truncated,
    ],
    ids=["empty", "text", "npy", "truncated"],
)
def test_what_is_no_npz_file_is_refused(tmp_path, write):
    path = tmp_path / "records.npz"
    write(path)
    with pytest.raises(InputError, match="not an npz file, or only a part of one"):
        load(f"npz:{path}")


def test_a_damaged_array_is_refused(tmp_path):
    path = tmp_path / "records.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random((N, 50)), y=LABELS)
    content = bytearray(path.read_bytes())
    content[3000:3100] = bytes(100)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="the file cannot be read"):
        load(f"npz:{path}")


def test_a_zip_of_other_things_is_refused(tmp_path):
    path = tmp_path / "records.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", "no array")
        archive.writestr("y.npy", "no array")
    with pytest.raises(InputError, match="x is not an array in the npy format"):
        load(f"npz:{path}")
