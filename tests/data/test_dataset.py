import dataclasses
import pickle

import numpy as np
import pytest
import torch

from dpnorm.data import Dataset, Records
from dpnorm.errors import InputError


def some_records(count: int = 6) -> Records:
    x = torch.arange(count * 4, dtype=torch.float32).reshape(count, 1, 2, 2)
    return Records(x, torch.arange(count) % 3)


def some_data() -> Dataset:
    whole = some_records(12)
    return Dataset(
        "toy",
        whole.select(slice(0, 8)),
        whole.select(slice(8, 10)),
        whole.select([10, 11]),
        num_classes=3,
        shape=(1, 2, 2),
        scaling="none",
    )


def test_records_are_a_map_style_dataset_for_the_pytorch_loader():
    records = some_records()
    x, y = next(iter(torch.utils.data.DataLoader(records, batch_size=4)))
    assert torch.equal(x, records.x[:4])
    assert torch.equal(y, records.y[:4])


@pytest.mark.parametrize(
    "chosen",
    [
        torch.tensor([4, 1]),
        np.array([4, 1]),
        [4, 1],
        torch.tensor([-2, -5]),
        torch.tensor([4, 1], dtype=torch.uint8),
    ],
    ids=["tensor", "numpy", "list", "negative", "uint8"],
)
def test_select_takes_positions_in_their_order(chosen):
    records = dataclasses.replace(some_records(), outlier=torch.arange(6) == 4)
    picked = records.select(chosen)
    assert torch.equal(picked.x, torch.stack([records.x[4], records.x[1]]))
    assert picked.y.tolist() == [1, 1]
    assert picked.outlier.tolist() == [True, False]


@pytest.mark.parametrize("mask", [torch.arange(6) % 2 == 0, np.arange(6) % 2 == 0])
def test_select_takes_a_mask(mask):
    assert some_records().select(mask).y.tolist() == [0, 2, 1]


def test_select_of_nothing_is_empty():
    assert len(some_records().select([])) == 0
    assert len(some_records().select(torch.zeros(6, dtype=torch.bool))) == 0


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (torch.ones(5, dtype=torch.bool), "5 entries for 6 records"),
        ([6], "outside the 6 records"),
        ([-7], "outside the 6 records"),
        ([0.5], "positions or a bool mask"),
        (3, "positions or a bool mask"),
    ],
)
def test_select_refuses_what_is_no_selection(chosen, message):
    with pytest.raises(InputError, match=message):
        some_records().select(chosen)


@pytest.mark.parametrize(
    ("x", "y", "outlier", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2).long(), None, "differ in length: x has 3, y 2"),
        (torch.zeros(3, 2).double(), torch.zeros(3).long(), None, "x must be torch.float32"),
        (torch.zeros(3, 2), torch.zeros(3), None, "y must be torch.int64"),
        (torch.zeros(3, 2), torch.zeros(3).long(), torch.zeros(3), "outlier must be torch.bool"),
        (torch.zeros(3), torch.zeros(3).long(), None, r"x of shape \[N, ...\]"),
    ],
)
def test_records_refuse_tensors_that_do_not_fit(x, y, outlier, message):
    with pytest.raises(InputError, match=message):
        Records(x, y, outlier)


def test_data_set_refuses_records_of_another_shape_or_class():
    data = some_data()
    with pytest.raises(InputError, match="train records of 'toy' have the shape"):
        dataclasses.replace(data, shape=(1, 4))
    with pytest.raises(InputError, match="run from 0 to 2, but there are 2 classes"):
        dataclasses.replace(data, num_classes=2)


def test_fingerprint_is_the_same_for_equal_arrays_and_survives_pickling():
    assert some_data().fingerprint() == some_data().fingerprint()
    assert pickle.loads(pickle.dumps(some_data())).fingerprint() == some_data().fingerprint()


def test_fingerprint_changes_with_every_part_of_the_content():
    data = some_data()
    x, y, flags = data.train.x.clone(), data.train.y.clone(), data.train.outlier.clone()
    x[0, 0, 0, 0] += 1
    y[0] = 2
    flags[0] = True
    train = data.train
    others = [
        dataclasses.replace(data, name="tay"),
        dataclasses.replace(data, num_classes=4),
        dataclasses.replace(data, train=dataclasses.replace(train, x=x)),
        dataclasses.replace(data, train=dataclasses.replace(train, y=y)),
        dataclasses.replace(data, train=dataclasses.replace(train, outlier=flags)),
        dataclasses.replace(data, test=data.public, public=data.test),
        dataclasses.replace(data, train=train.select(list(range(7, -1, -1)))),
    ]
    prints = {each.fingerprint() for each in [data, *others]}
    assert len(prints) == len(others) + 1
