"""grad_sample_mode: "auto" takes a mode that the model can be trained in, and keeps to it."""

import pytest
import torch
from torch import nn

from dpnorm.errors import RefusedError, StoppedError
from dpnorm.privacy import PrivacyConfig
from dpnorm.privacy.checkpoint import read_state
from dpnorm.training import speed, train
from tests.training.small import PLAIN, flat, images, network, stop_after, with_settings

QUIET = PrivacyConfig(accountant="rdp", noise_multiplier=1e-9, sampling_rate=1.0, steps=3, seed=0)
AUTO = with_settings(PLAIN, batch_size=12, grad_sample_mode="auto")


class FoldedRows(nn.Module):
    """The rows of an image as a batch of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x.flatten(0, 2)).view(len(x), -1, 3).mean(1)


class Noisy(nn.Module):
    """Draws in a module with parameters of its own, which another run of it cannot repeat."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 36) / 6)

    def forward(self, x):
        return nn.functional.dropout(x.flatten(1) @ self.weight.T, 0.1, self.training)


MODELS = {
    "group": (network, {"hooks", "lean", "functorch", "ghost", "ew"}),
    "private batch": (lambda: network("private"), {"hooks", "lean", "functorch", "ghost"}),
    "folded rows": (FoldedRows, {"hooks", "lean", "functorch", "ghost"}),
    "own parameters": (Noisy, {"hooks", "lean", "functorch"}),
}


def run(model, config, **options):
    return train(model, images(12), config, QUIET, **options)


@pytest.fixture
def timed(monkeypatch):
    """The modes that were timed, with what each is said to take."""
    times, real = {}, speed._seconds

    def seconds(network, report, mode, x, y):
        took = real(network, report, mode, x, y)
        times[mode] = took
        return took

    monkeypatch.setattr(speed, "_seconds", seconds)
    return times


@pytest.mark.parametrize("name", MODELS)
def test_auto_times_every_mode_that_can_express_the_model(name, timed, tmp_path):
    build, possible = MODELS[name]
    trained = run(build(), AUTO, checkpoint=tmp_path / "state")
    assert set(timed) == possible
    chosen = read_state(tmp_path / "state")["terms"]["grad_sample_mode"]
    assert chosen == min(timed, key=timed.get)
    assert trained.statement.is_sound
    again = run(build(), with_settings(AUTO, grad_sample_mode=chosen))
    torch.testing.assert_close(flat(trained.model), flat(again.model))


@pytest.mark.parametrize("mode", speed.MODES)
def test_auto_takes_the_fastest_even_if_it_is_another_one_tomorrow(mode, monkeypatch, tmp_path):
    """A training goes on in the mode that it began with, whatever is faster then."""
    path = tmp_path / "state"
    monkeypatch.setattr(speed, "_seconds", lambda n, r, m, x, y: 1.0 if m == mode else 2.0)
    with pytest.raises(StoppedError):
        run(network(), AUTO, checkpoint=path, should_stop=stop_after(1))
    monkeypatch.setattr(speed, "_seconds", lambda n, r, m, x, y: 2.0 if m == mode else 1.0)
    resumed = run(network(), AUTO, checkpoint=path)
    assert read_state(path)["terms"]["grad_sample_mode"] == mode
    whole = run(network(), with_settings(AUTO, grad_sample_mode=mode))
    assert torch.equal(flat(resumed.model), flat(whole.model))


def test_a_model_that_no_mode_can_express_is_one_refusal():
    class Twice(FoldedRows):
        def forward(self, x):
            return super().forward(x) + self.linear.weight.sum()

    with pytest.raises(RefusedError, match="grad_sample_mode='hooks' says why"):
        run(Twice(), AUTO)


@pytest.mark.parametrize("name", ["private batch", "folded rows", "own parameters"])
def test_expanded_weights_are_refused_where_they_cannot_express_the_model(name):
    build, _ = MODELS[name]
    with pytest.raises(RefusedError, match=r"refused: .*hooks") as caught:
        run(build(), with_settings(AUTO, grad_sample_mode="ew"))
    assert "\n" not in str(caught.value)


def test_expanded_weights_are_refused_for_several_views():
    with pytest.raises(RefusedError, match="DPN503"):
        run(network(), with_settings(AUTO, grad_sample_mode="ew", views=2))


@pytest.mark.parametrize("mode", ["functorch", "ghost", "lean"])
@pytest.mark.parametrize("name", ["group", "private batch", "folded rows"])
def test_every_possible_mode_trains_the_same(name, mode):
    build, _ = MODELS[name]
    ours, hooks = (
        flat(run(build(), with_settings(AUTO, grad_sample_mode=m)).model) for m in (mode, "hooks")
    )
    torch.testing.assert_close(ours, hooks, rtol=1e-4, atol=1e-5)
    assert (ours - flat(build())).abs().max() > 1e-2


def test_ghost_clipping_is_refused_where_its_norms_are_of_other_draws_than_its_gradients():
    with pytest.raises(RefusedError, match=r"do not add up .*weight"):
        run(Noisy(), with_settings(AUTO, grad_sample_mode="ghost"))
