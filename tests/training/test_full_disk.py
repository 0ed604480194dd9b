"""A disk that is full ends a training with one clear error; what stood there is whole."""

import pytest
import torch

from dpnorm.errors import StoppedError, StorageError
from dpnorm.privacy import Ledger, PrivacyConfig
from dpnorm.training import train
from dpnorm.training.resume import journal_of
from tests.training.small import PLAIN, flat, images, network, stop_after

resource = pytest.importorskip("resource", reason="limits the size of files as Unix does")
TRAININGS = {
    "plain": None,
    "seeded": PrivacyConfig(accountant="rdp", noise_multiplier=1.0, seed=1),
    "secret": PrivacyConfig(accountant="rdp", noise_multiplier=1.0),
}


def run(path, name, **options):
    options = {"checkpoint": path, "checkpoint_every": 0} | options
    return train(network(), images(), PLAIN, TRAININGS[name], **options)


def with_files_of(size, call):
    """Calls where no file can be larger than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        return call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", TRAININGS)
def test_it_goes_on_at_the_last_checkpoint_once_there_is_room(name, tmp_path):
    path, ledger = tmp_path / "state", Ledger()
    with pytest.raises(StoppedError):
        run(path, name, should_stop=stop_after(2))
    raw = path.read_bytes()
    with pytest.raises(StorageError, match="cannot write") as caught:
        with_files_of(2000, lambda: run(path, name, ledger=ledger))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == raw
    assert {p.name for p in tmp_path.iterdir()} <= {"state", "state.steps"}
    trained = run(path, name)
    assert trained.history[-1]["step"] == 6
    if name != "secret":
        assert torch.equal(flat(trained.model), flat(run(None, name).model))


def test_a_step_that_the_journal_cannot_hold_is_not_taken(tmp_path):
    """A checkpoint of step 2 and a journal that takes one byte more: one step, then the end."""
    path, ledger = tmp_path / "state", Ledger()
    with pytest.raises(StoppedError):
        run(path, "secret", should_stop=stop_after(2))
    size = path.stat().st_size
    line = len(journal_of(path).read_bytes())
    path_of_steps, taken = journal_of(path), []

    def fill():  # after the step that follows the checkpoint with which it goes on
        taken.append(sum(event.steps for event in ledger.events))
        resource.setrlimit(resource.RLIMIT_FSIZE, (line + 1, resource.RLIM_INFINITY))
        return False

    with pytest.raises(StorageError, match=r"the next step would be in no account: make room"):
        with_files_of(
            size + 10**5,
            lambda: run(path, "secret", ledger=ledger, checkpoint_every=1e9, should_stop=fill),
        )
    assert taken == [3]
    assert sum(event.steps for event in ledger.events) == 3
    assert path_of_steps.read_bytes().endswith(b" 2\n.")
    trained = run(path, "secret", ledger=ledger)
    assert trained.statement.steps == 6
    assert trained.history[-1]["step"] == 5
