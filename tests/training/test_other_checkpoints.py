"""What is no checkpoint of this training is one clear error, and stays as it was."""

import copy

import pytest
import torch

from dpnorm.data import Records
from dpnorm.errors import InputError, StoppedError
from dpnorm.privacy import Ledger, PrivacyConfig
from dpnorm.privacy.checkpoint import read_state, write_state
from dpnorm.training import train
from dpnorm.training.resume import journal_of
from tests.training.small import PLAIN, flat, images, network, stop_after, with_settings

CONFIG = with_settings(PLAIN, momentum=0.9, ema=0.5)
PRIVACY = PrivacyConfig(accountant="rdp", noise_multiplier=1.0, seed=2)
KINDS = {"plain": None, "private": PRIVACY}
DATA = images()


def run(path, *, norm="group", data=DATA, config=CONFIG, privacy=PRIVACY, **options):
    model = network(norm)
    before = flat(model)
    try:
        return train(model, data, config, privacy, checkpoint=path, **options)
    finally:
        assert torch.equal(flat(model), before)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def path(tmp_path, kind):
    """A training that was stopped after two of six steps."""
    path = tmp_path / "state"
    with pytest.raises(StoppedError):
        run(path, privacy=kind, should_stop=stop_after(2))
    return path


def refused(path, message, ledger=None, **options):
    raw, events = path.read_bytes(), [] if ledger is None else list(ledger.events)
    with pytest.raises(InputError, match=message) as caught:
        run(path, ledger=ledger, **options)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == raw
    assert ledger is None or ledger.events == events


OTHERS = {
    "norm": ({"norm": "batch"}, "does not fit the model.*running_mean"),
    "epochs": ({"config": with_settings(CONFIG, epochs=3)}, "training.epochs was 2 and is 3 now"),
    "lr": ({"config": with_settings(CONFIG, lr=0.1)}, "training.lr was 0.2 and is 0.1 now"),
    "optimizer": ({"config": with_settings(CONFIG, optimizer="adamw")}, "training.optimizer was"),
    "seed": ({"config": with_settings(CONFIG, seed=1)}, "training.seed was 0 and is 1 now"),
    "physical": ({"config": with_settings(CONFIG, physical_batch_size=1)}, "physical_batch_size"),
    "labels": ({"data": Records(DATA.x, DATA.y.roll(1))}, "data.fingerprint was"),
    "records": ({"data": images(25)}, "data.records was 24 and is 25 now"),
    "shape": ({"data": Records(DATA.x.expand(-1, 1, 6, 6) + 1, DATA.y)}, "data.fingerprint was"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_training_is_refused(name, path, kind):
    options, message = OTHERS[name]
    if name == "norm" and kind is not None:
        options = {"norm": "private"}  # batch norm is refused before the file is looked at
    refused(path, message, privacy=kind, **options)


@pytest.mark.parametrize(
    ("key", "value"), [("noise_multiplier", 2.0), ("clip", 0.5), ("delta", 1e-3), ("seed", None)]
)
@pytest.mark.parametrize("kind", [PRIVACY])
def test_another_privacy_is_refused(key, value, path, kind):
    changed = PRIVACY.model_copy(update={key: value})
    refused(path, f"privacy.{key} was .* and is {value} now", privacy=changed)


def test_a_private_training_does_not_become_a_plain_one_nor_the_other_way(path, kind):
    other = None if kind is not None else PRIVACY
    message = "was 1.0 and is None now" if other is None else "was None and is 1.0 now"
    refused(path, rf"privacy.noise_multiplier {message}", privacy=other)


DAMAGES = {
    "cut off": (lambda raw: raw[: len(raw) // 2], "cut off or damaged"),
    "empty": (lambda raw: b"", "is empty"),
    "text": (lambda raw: b"weights", "not a safetensors file"),
    "a bit": (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "SHA-256"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused(name, path, kind):
    change, message = DAMAGES[name]
    path.write_bytes(change(path.read_bytes()))
    refused(path, message, privacy=kind)


def test_a_pickle_is_not_loaded(path, kind):
    torch.save(network().state_dict(), path)
    refused(path, "no pickle is loaded", privacy=kind)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="is a folder: needed is a checkpoint"):
        run(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        run(tmp_path / "missing" / "state")
    assert not any(tmp_path.iterdir())


def test_another_state_of_this_package_is_refused(path, kind):
    write_state(path, {"model": network().state_dict()})
    refused(path, "lacks terms, token, ledger", privacy=kind)


TENSOR = torch.zeros(2)
GARBAGE = {  # part, or a place in it, and what stands there
    **{part: [(part, value) for value in ("x", None, TENSOR, ["x"], {"x": 1})] for part in (
        "terms", "ledger", "run", "step", "lost", "loss", "drawn", "history", "model",
        "optimizer", "average", "random",
    )},
    "token": [("token", 7), ("token", {})],
    "counts": [("step", -1), ("step", 10**9), ("step", True), ("lost", -1), ("lost", 5),
        ("drawn", -3), ("drawn", True)],
    "history rows": [("history", value) for value in (
        [7], [{}], [{"step": 1.0}], [{"epoch": "1", "step": 1.0, "loss": 1.0, "lr": 1.0}],
    )],
    "model weights": [("model.5.bias", value) for value in (
        TENSOR, "x", None, torch.zeros(3).int(),
    )],
    "average weights": [("average.5.bias", value) for value in (TENSOR, "x", torch.zeros(()))],
    "random states": [("random.model", value) for value in (
        TENSOR, "x", torch.zeros(1, 4).byte(),
    )],
    "optimizer groups": [("optimizer.param_groups", value) for value in (
        "x", [], [7], [{}], [{"lr": 0.1}], [{"lr": "x", "params": [0]}],
    )],
    "optimizer states": [("optimizer.state", value) for value in (
        "x", {0: 7}, {0: {}}, {0: {"momentum_buffer": TENSOR}}, {0: {"momentum_buffer": "x"}},
        {0: {"exp_avg": TENSOR}}, {99: {"momentum_buffer": TENSOR}}, {"x": {}},
    )],
    "chosen terms": [("terms.physical_batch_size", value) for value in ("x", -1, 0, 1.5, TENSOR)]
        + [("terms.grad_sample_mode", value) for value in (7, "x", ["hooks"])],
    "events": [("ledger.events", value) for value in ("x", [7], [{}], [])],
}  # fmt: skip


@pytest.mark.parametrize("name", GARBAGE)
def test_a_file_with_something_else_in_a_place_is_refused(name, path, kind):
    """Such a file has a sound digest: something other than this package wrote it."""
    sound = read_state(path)
    tried = 0
    for place, value in GARBAGE[name]:
        state = copy.deepcopy(sound)
        *outer, last = place.split(".", 1)
        part = state[outer[0]] if outer else state
        if (outer and not part) or _same(part.get(last), value):
            continue  # a plain training has no ledger
        part[last] = value
        write_state(path, state)
        refused(path, "is damaged|lacks|is of another training|does not fit", privacy=kind)
        tried += 1
    assert tried or (name == "events" and kind is None)


def _same(a, b):
    return type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b


@pytest.mark.parametrize("kind", [PRIVACY])
def test_a_checkpoint_whose_ledger_holds_too_few_steps_is_refused(path, kind):
    state = read_state(path)
    state["ledger"]["events"][0]["steps"] = 1
    write_state(path, state)
    refused(path, "its ledger is not what this training has")


def test_a_run_that_is_refused_leaves_no_file(tmp_path, kind):
    path = tmp_path / "state"
    with pytest.raises(InputError, match="batch_size is 99"):
        run(path, config=with_settings(CONFIG, batch_size=99), privacy=kind)
    assert not any(tmp_path.iterdir())
    assert not journal_of(path).exists()


def test_the_ledger_keeps_its_steps_where_a_training_does_not_go_on(tmp_path):
    """Two steps were released: an error in the settings must not make them unseen."""
    path, ledger = tmp_path / "state", Ledger()
    with pytest.raises(StoppedError):
        run(path, ledger=ledger, should_stop=stop_after(2))
    assert ledger.history() == [(1.0, 1 / 3, 2)]
    refused(path, "training.lr was", ledger=ledger, config=with_settings(CONFIG, lr=0.3))
    refused(path, "does not fit the model", ledger=ledger, norm="private")
    assert ledger.history() == [(1.0, 1 / 3, 2)]
