"""Random draws of the model hide each record from others only from whoever does not know them."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpnorm
from dpnorm.privacy import draws_at_random
from dpnorm.privacy.statement import AUGMENTATION, DRAWS
from tests.privacy.trainings import Training, content

CLIP = 0.5
RECORDS, WIDTH, CLASSES = 12, 6, 3
ROUNDING = 1e-5
MODES = ("hooks", "functorch", "ghost")


def dropping(probability=0.5):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(WIDTH, 20), nn.ReLU(), nn.Dropout(probability), nn.Linear(20, CLASSES))
    )


def pictures(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), *layers, nn.Flatten(), nn.Linear(27, 3))


def clipped_sum(model, x, y, *, mode, seed):
    """The sum of clipped gradients of one step of the engine, by a seed that is known."""
    model = copy.deepcopy(model)
    made = dpnorm.PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x)),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        criterion=nn.CrossEntropyLoss(),
        grad_sample_mode=mode,
    )
    wrapped, optimizer = made[:2]
    criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()
    torch.manual_seed(seed)
    criterion(wrapped(x), y).backward()
    optimizer.step()
    total = torch.cat([p.grad.flatten() for p in optimizer.params])
    return total.double() * optimizer.expected_batch_size


@pytest.mark.parametrize("mode", MODES)
def test_by_a_known_seed_one_record_more_moves_the_sum_by_far_more_than_the_clipping_norm(mode):
    """Every record behind it gets another mask. Those before it keep theirs, as unknown ones do."""
    generator = torch.Generator().manual_seed(1)
    x = 5 * torch.randn(RECORDS + 1, WIDTH, generator=generator)
    y = torch.arange(RECORDS + 1) % CLASSES
    model = dropping()
    found = {"front": [], "end": [], "front, without dropout": []}
    for seed in range(5):
        for place, others, network in (
            ("front", slice(1, None), model),
            ("end", slice(RECORDS), model),
            ("front, without dropout", slice(1, None), dropping(0.0)),
        ):
            more = clipped_sum(network, x, y, mode=mode, seed=seed)
            less = clipped_sum(network, x[others], y[others], mode=mode, seed=seed)
            found[place].append(float((more - less).norm()) / CLIP)
    assert min(found["front"]) > 1.5
    assert max(found["end"]) <= 1 + ROUNDING
    assert max(found["front, without dropout"]) <= 1 + ROUNDING


def statement_of(model, **options):
    return Training(model=model, **options).engine.statement(1e-3)


@pytest.mark.parametrize("mode", [*MODES, "ew"])
def test_the_statement_says_it_of_a_model_that_draws_and_not_of_one_that_does_not(mode):
    drawing = statement_of(pictures(nn.Dropout(0.1)), grad_sample_mode=mode)
    silent = statement_of(pictures(), grad_sample_mode=mode)
    assert DRAWS in drawing.not_covered
    assert AUGMENTATION not in drawing.not_covered
    assert DRAWS not in silent.not_covered
    assert AUGMENTATION in silent.not_covered
    for text in (str(drawing), drawing.to_json(), drawing.to_markdown()):
        assert "random draws of the model (dropout)" in text
    assert "of the model (dropout)" not in str(silent)


class Draws(nn.Module):
    """Scales all records by a number that some generator gives."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x * self.draw()


class Owns(Draws):
    """Draws from a generator of its own."""

    def __init__(self, generator, draw) -> None:
        super().__init__(lambda: draw(self.generator))
        self.generator = generator


RANDOM = {
    "dropout": nn.Dropout(0.1),
    "channels dropped": nn.Dropout2d(0.1),
    "noise": Draws(lambda: torch.randn(())),
    "a coin of Python": Draws(random.random),
    "a coin of NumPy": Draws(np.random.rand),
    "torch's generator": Owns(torch.Generator(), lambda g: torch.rand((), generator=g)),
    "NumPy's generator": Owns(np.random.default_rng(0), lambda g: g.random()),
    "Python's generator": Owns(random.Random(0), lambda g: g.random()),
}


@pytest.mark.parametrize("name", RANDOM)
def test_what_draws_is_found_and_nothing_is_moved_by_looking(name):
    model, x = pictures(RANDOM[name]), torch.randn(4, 1, 5, 5)
    before = random.getstate(), str(np.random.get_state()), content(torch.get_rng_state())
    assert draws_at_random(model, x)
    after = random.getstate(), str(np.random.get_state()), content(torch.get_rng_state())
    assert after == before


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.0), nn.Dropout(0.5).eval(), nn.RReLU().eval(), nn.GroupNorm(3, 3)]
)
def test_what_does_not_draw_in_its_mode_is_told_apart(layer):
    assert not draws_at_random(pictures(layer), torch.randn(4, 1, 5, 5))
