"""After a SIGKILL a training comes to the same weights, or to an account that holds what was lost.

Of six steps, any may be the one in which the process dies.
"""

import functools
import multiprocessing
from collections import Counter

import pytest
import torch

from dpnorm.errors import InputError
from dpnorm.privacy import Ledger, PrivacyConfig, epsilon_spent, noise_for
from dpnorm.privacy.checkpoint import read_state
from dpnorm.training import train
from dpnorm.training.resume import journal_of
from tests.training.killed import kill_at
from tests.training.small import BUSY, PLAIN, flat, images, network, with_settings

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="kills a fork of this process"
)
SEEDED = PrivacyConfig(accountant="rdp", noise_multiplier=1.0, delta=1e-4, seed=5)
SECRET = PrivacyConfig(epsilon=4.0, delta=1e-4, accountant="rdp")
ONLY_THE_FIRST = 1e9  # seconds between two checkpoints


def busy(norm, privacy, path, every):
    config = with_settings(BUSY, optimizer="adamw", lr=0.01, momentum=0.0)
    model = network(norm, dropout=0.3)
    return train(model, images(), config, privacy, checkpoint=path, checkpoint_every=every)


@pytest.mark.parametrize(
    ("norm", "privacy"), [("batch", None), ("private", SEEDED)], ids=["plain", "private"]
)
@pytest.mark.parametrize("every", [0, ONLY_THE_FIRST], ids=["each step", "first only"])
def test_a_seeded_training_comes_to_the_same_weights(norm, privacy, every, tmp_path):
    path = tmp_path / "state"
    whole = busy(norm, privacy, None, every)
    for step, when in [(0, "before"), (0, "after"), (3, "before"), (1, "after")]:
        kill_at(step, when, lambda: busy(norm, privacy, path, every))
    assert read_state(path)["step"] == (4 if every == 0 else 0)
    resumed = busy(norm, privacy, path, every)
    assert torch.equal(flat(resumed.model), flat(whole.model))
    assert resumed.history == whole.history
    assert resumed.statement == whole.statement


def secret(path, every=ONLY_THE_FIRST, ledger=None, **options):
    data = images(12)
    options = {"checkpoint": path, "checkpoint_every": every, "ledger": ledger} | options
    return train(network("private"), data, with_settings(PLAIN, batch_size=4), SECRET, **options)


@functools.cache
def spent(steps):
    """The epsilon of so many of the six steps, with the noise that their budget takes."""
    shared = {"sampling_rate": 1 / 3, "delta": 1e-4, "accountant": "rdp"}
    noise = noise_for(epsilon=4.0, steps=6, **shared)
    return epsilon_spent(noise_multiplier=noise, steps=steps, **shared)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("every", [0, ONLY_THE_FIRST], ids=["each step", "first only"])
@pytest.mark.parametrize("begun", [2, 6])
def test_steps_that_were_begun_stay_in_the_account_and_are_not_taken_again(
    begun, every, when, tmp_path
):
    """Six steps are paid for: of those begun only the ones in the checkpoint are in the weights."""
    path = tmp_path / "state"
    assert spent(6) <= 4.0  # and the noise is known, to the process that is killed too
    kill_at(begun - 1, when, lambda: secret(path, every))
    kept = read_state(path)["step"]
    assert kept == (begun - 1 if every == 0 else 0)
    taken, epsilons, ledger = [], [], Ledger()
    stopped = lambda: bool(taken.append(sum(e.steps for e in ledger.events)))  # noqa: E731
    trained = secret(path, every, ledger, should_stop=stopped)
    epsilons = [row["epsilon"] for row in trained.history if row["step"] > kept]
    assert taken == list(range(begun + 1, 7))
    assert trained.statement.steps == 6
    assert trained.statement.epsilon == pytest.approx(spent(6))
    assert trained.statement.epsilon <= 4.0
    assert all(spent(begun) < epsilon <= 4.0 for epsilon in epsilons)
    last = trained.history[-1]["step"] if trained.history else 0
    assert last == 6 - (begun - kept)


def test_what_was_lost_in_two_kills_adds_up(tmp_path):
    path, ledger = tmp_path / "state", Ledger()
    kill_at(1, "after", lambda: secret(path))  # two are begun
    kill_at(1, "before", lambda: secret(path))  # and two more
    trained = secret(path, ledger=ledger)
    assert read_state(path)["lost"] == 4
    assert trained.history[-1]["step"] == 2
    assert [(e.steps, e.run) for e in ledger.events] == [(6, "training")]
    assert trained.statement.epsilon == pytest.approx(spent(6))


def test_killed_until_nothing_is_left_it_ends_within_its_budget(tmp_path):
    path = tmp_path / "state"
    for _ in range(3):
        kill_at(1, "after", lambda: secret(path))
    trained = secret(path)
    assert torch.equal(flat(trained.model), flat(network("private").eval()))
    assert (trained.statement.steps, len(trained.history)) == (6, 0)


def test_other_batches_and_other_noise_are_drawn_after_a_kill(tmp_path):
    """The noise is of 100 numbers and more: that it agrees by chance has no probability."""
    path = tmp_path / "state"
    weights = []
    for name in ("a", "b"):
        kill_at(2, "after", lambda: secret(path))
        copy = tmp_path / name
        copy.write_bytes(path.read_bytes())
        journal_of(copy).write_bytes(journal_of(path).read_bytes())
        weights.append(flat(secret(copy).model))
        path.unlink()
    assert not torch.equal(*weights)


def test_no_generator_of_an_unseeded_training_is_in_a_file(tmp_path):
    """A state of torch's generator is 5,056 bytes; a file of a seeded training holds three."""
    path = tmp_path / "state"
    kinds = {}
    for name, privacy in (("seeded", SEEDED), ("secret", SECRET)):
        kill_at(3, "after", lambda privacy=privacy: busy("group", privacy, path, 0))
        assert {p.name for p in tmp_path.iterdir()} == {"state"} | (
            {"state.steps"} if name == "secret" else set()
        )
        kinds[name] = Counter(bytes_in(read_state(path)))
        assert read_state(path)["random"].keys() == (
            {"model", "sampling", "noise"} if name == "seeded" else set()
        )
        path.unlink()
    assert kinds["seeded"][5056] == 3
    assert kinds["secret"][5056] == 0
    assert len(journal_of(path).read_bytes()) < 40


def bytes_in(value):
    """The sizes of the byte tensors in a state."""
    if isinstance(value, torch.Tensor):
        return [value.numel()] * (value.dtype == torch.uint8)
    items = value.values() if isinstance(value, dict) else value
    return [n for v in items for n in bytes_in(v)] if isinstance(value, (dict, list, tuple)) else []


JOURNALS = {
    "missing": (None, "cannot read"),
    "empty": (b"", "damaged"),
    "cut in its first line": (lambda raw: raw[: raw.index(b"\n")], "damaged"),
    "cut after its first line": (lambda raw: raw[: raw.index(b"\n") + 1], "damaged"),
    "other bytes": (lambda raw: raw + b"x", "damaged"),
    "more steps than there are": (lambda raw: raw + b"." * 9, "damaged"),
    "of another training": (lambda raw: b"0" * 16 + raw[16:], "of another training"),
}


@pytest.mark.parametrize("name", JOURNALS)
def test_without_its_journal_a_secret_training_does_not_go_on(name, tmp_path):
    path, ledger = tmp_path / "state", Ledger()
    kill_at(2, "after", lambda: secret(path, 0))
    journal = journal_of(path)
    raw, checkpoint = journal.read_bytes(), path.read_bytes()
    change, message = JOURNALS[name]
    if name == "cut after its first line":  # and the checkpoint is of a later step
        raw = raw[:16] + b" 1" + raw[18:]
    journal.unlink()
    if change is not None:
        journal.write_bytes(change(raw) if callable(change) else change)
    with pytest.raises(InputError, match=message):
        secret(path, ledger=ledger)
    assert path.read_bytes() == checkpoint
    assert not ledger.events
