"""Records that are loaded one by one train what the same records in memory do."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from dpnorm.data import Records
from dpnorm.errors import InputError, StoppedError
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import accuracy, train
from tests.training.small import BUSY, PLAIN, flat, images, network, stop_after, with_settings

DATA = images(24)
TRAININGS = {
    "plain": None,
    "private": PrivacyConfig(accountant="rdp", noise_multiplier=1.0, seed=3),
}


class OneByOne(Dataset):
    """Records of a function of their position."""

    def __init__(self, record, count=24):
        self.record, self.count = record, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert 0 <= index < self.count
        return self.record(index)


def tensors(i):
    return DATA.x[i], DATA.y[i]


def arrays(i):
    return DATA.x[i].numpy(), int(DATA.y[i])


def small_labels(i):
    return DATA.x[i], np.int32(DATA.y[i])


FORMS = {
    "tensors": OneByOne(tensors),
    "arrays and numbers": OneByOne(arrays),
    "labels of 32 bits": OneByOne(small_labels),
    "torch's own": TensorDataset(DATA.x, DATA.y),
    "a list": [tensors(i) for i in range(24)],
    "a part": Subset(images(24), range(24)),
}


def run(data, kind, **settings):
    config = with_settings(BUSY, **settings)
    return train(network(dropout=0.3), data, config, TRAININGS[kind], test=data)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", TRAININGS)
def test_they_train_the_same_weights(kind, form):
    expected, found = run(DATA, kind), run(FORMS[form], kind)
    assert torch.equal(flat(found.model), flat(expected.model))
    assert found.history == expected.history
    assert found.accuracy == expected.accuracy == accuracy(expected.model, DATA)


@pytest.mark.parametrize("kind", TRAININGS)
def test_processes_that_load_them_change_nothing(kind):
    assert torch.equal(
        flat(run(FORMS["tensors"], kind, workers=2).model), flat(run(DATA, kind).model)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_no_record_is_a_step_too(workers):
    """At rate 0.02 a batch of 24 records is empty with probability 0.6: here some are."""
    privacy = PrivacyConfig(
        accountant="rdp", noise_multiplier=1.0, sampling_rate=0.02, steps=12, seed=1
    )
    config = with_settings(PLAIN, workers=workers, batch_size=1, views=2, augment="shift")
    asked = []

    def seen(i):
        asked.append(i)
        return tensors(i)

    found = train(network("private"), OneByOne(seen), config, privacy)
    expected = train(network("private"), DATA, config, privacy)
    assert torch.equal(flat(found.model), flat(expected.model))
    assert found.statement.steps == 12
    assert workers or 0 < len(asked) - 2 < 12  # two were examples; fewer than a record a step


@pytest.mark.parametrize("kind", TRAININGS)
def test_with_loading_processes_it_is_stopped_and_goes_on(kind, tmp_path):
    """The batches that were loaded ahead are loaded again."""
    path, config = tmp_path / "state", with_settings(BUSY, workers=2)
    data, privacy = FORMS["tensors"], TRAININGS[kind]
    with pytest.raises(StoppedError):
        train(network(), data, config, privacy, checkpoint=path, should_stop=stop_after(2))
    resumed = train(network(), data, config, privacy, checkpoint=path)
    assert torch.equal(flat(resumed.model), flat(train(network(), DATA, BUSY, privacy).model))


class Endless(IterableDataset):
    def __iter__(self):
        yield tensors(0)


class Sized(Endless):
    def __len__(self):
        return 24


def spoiled(value):
    """All records but one are sound."""
    return OneByOne(lambda i: tensors(i) if i != 20 else value)


X, Y = DATA.x[0], DATA.y[0]
WRONG = {
    "a stream": (Endless(), "a Endless: needed are"),
    "a stream with a length": (Sized(), "a Sized: needed are"),
    "a data loader": (DataLoader(DATA), "a DataLoader: needed are"),
    "nothing": (None, "a NoneType: needed are"),
    "two tensors": ((DATA.x, DATA.y), "of type Tensor: needed are pairs"),
    "no record": (OneByOne(tensors, 0), "there are no training records"),
    "dicts": (OneByOne(lambda i: {"x": X, "y": Y}), "of type dict: needed are pairs"),
    "triples": (OneByOne(lambda i: (X, Y, Y)), "of type list of 3: needed are pairs"),
    "objects": (OneByOne(lambda i: (object(), Y)), "cannot be put together"),
    "texts": (OneByOne(lambda i: (X, "cat")), "pairs of torch.float32, tuple"),
    "fractions": (OneByOne(lambda i: (X, 0.5)), "torch.float64: needed are .*whole-number"),
    "truths": (OneByOne(lambda i: (X, torch.tensor(True))), "torch.bool"),
    "many labels": (OneByOne(lambda i: (X, torch.eye(3).long()[Y])), r"has the shape \(3,\)"),
    "bytes": (OneByOne(lambda i: (X.byte(), Y)), "needed are inputs in torch.float32"),
    "double precision": (OneByOne(lambda i: (X.double(), Y)), "needed are inputs in torch.float32"),
    "a label too large": (spoiled((X, 3)), "a label of the training records is 3, but there are 3"),
    "a label below 0": (spoiled((X, -1)), "is -1, but there are 3 classes"),
    "another shape": (spoiled((X[:, :5], 0)), "of one shape in all records"),
    "a dict among pairs": (spoiled({"x": X}), "cannot be put together"),
    "a text among labels": (spoiled((X, "cat")), "pairs of torch.float32, tuple"),
    "in memory, a label too large": (Records(DATA.x, DATA.y + 1), "is 3, but there are 3 classes"),
    "in memory, a label below 0": (Records(DATA.x, DATA.y - 1), "is -1, but there are 3 classes"),
    "in memory, no record": (DATA.select([]), "there are no training records"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_data_set_is_one_clear_error(name):
    data, message = WRONG[name]
    with pytest.raises(InputError, match=message) as caught:
        train(network(), data, PLAIN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a label too large", "another shape"])
def test_so_it_is_where_another_process_finds_it(name):
    data, message = WRONG[name]
    with pytest.raises(InputError, match=message) as caught:
        train(network(), data, with_settings(PLAIN, workers=2))
    assert "\n" not in str(caught.value)
