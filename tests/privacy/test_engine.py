"""The engine against Opacus's own, and what it refuses."""

import copy

import opacus
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpnorm
from dpnorm.errors import InputError, RefusedError
from dpnorm.privacy.ghost import linear_norms
from tests.privacy.cases import Block, Windows, head

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
MODES = ("hooks", "functorch", "ghost", "ew")


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )


def loader(*shape, records=24, batch=8):
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(records, *shape), torch.arange(records) % 3)
    return DataLoader(data, batch_size=batch)


def private(engine, model, data, *, mode="hooks", noise=0.0, **options):
    made = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        data_loader=data,
        noise_multiplier=noise,
        max_grad_norm=0.5,
        criterion=nn.CrossEntropyLoss(),
        grad_sample_mode=mode,
        poisson_sampling=False,
        **options,
    )
    return made[0], made[1], made[2] if mode == "ghost" else nn.CrossEntropyLoss()


def stepped(engine, model, data, *, mode):
    wrapped, optimizer, criterion = private(engine, model, data, mode=mode)
    x, y = next(iter(data))
    optimizer.zero_grad()
    criterion(wrapped(x), y).backward()
    optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def by_hand(model, x, y, *, clip):
    """One clipped step, record by record."""
    model = copy.deepcopy(model)
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for i in range(len(x)):
        g = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), parameters)
        norm = sum(part.square().sum() for part in g).sqrt()
        for sum_, part in zip(total, g, strict=True):
            sum_ += part * (clip / (norm + 1e-6)).clamp(max=1.0)
    return [p.detach() - s / len(x) for p, s in zip(parameters, total, strict=True)]


@pytest.mark.parametrize("mode", MODES)
def test_a_step_is_the_one_that_opacus_takes(mode):
    data = loader(4, 5, 5)
    ours = stepped(dpnorm.PrivacyEngine(), plain(), data, mode=mode)
    theirs = stepped(opacus.PrivacyEngine(), plain(), data, mode=mode)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch", "ghost"])
@pytest.mark.parametrize(
    ("build", "shape"), [(lambda: head(Block()), (4, 5, 5)), (Windows, (4, 6))]
)
def test_what_opacus_cannot_train_takes_the_step_of_its_records(build, shape, mode):
    torch.manual_seed(0)
    model, data = build(), loader(*shape)
    x, y = next(iter(data))
    expected = by_hand(model, x, y, clip=0.5)
    found = stepped(dpnorm.PrivacyEngine(), model, data, mode=mode)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_expanded_weights_are_refused_where_rows_are_folded():
    with pytest.raises(RefusedError, match=r"mode 'ew'.*grad_sample_mode='hooks'"):
        private(dpnorm.PrivacyEngine(), Windows(), loader(4, 6), mode="ew")


def test_batch_norm_is_refused_and_allowed_only_in_so_many_words():
    model = head(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    engine = dpnorm.PrivacyEngine()
    with pytest.raises(RefusedError, match=r"refuted.*DPN101"):
        private(engine, model, loader(4, 5, 5))
    private(engine, model, loader(4, 5, 5), allow="refuted")
    assert not engine.statement(1e-5).is_sound


def test_a_layer_that_was_proven_in_evaluation_may_not_be_trained():
    model = head(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4).eval())
    wrapped, _, _ = private(dpnorm.PrivacyEngine(), model, loader(4, 5, 5))
    x = torch.randn(3, 4, 5, 5)
    wrapped(x)
    wrapped.train()
    with pytest.raises(RefusedError, match=r"1 was in evaluation mode.*frozen"):
        wrapped(x)


@pytest.mark.parametrize("mode", ["hooks", "lean", "ghost"])
def test_what_is_trained_may_not_change_afterwards(mode):
    model = plain()
    model[0].weight.requires_grad_(False)
    wrapped, _, _ = private(dpnorm.PrivacyEngine(), model, loader(4, 5, 5), mode=mode)
    model[0].weight.requires_grad_(True)
    with pytest.raises(RefusedError, match=r"0.weight has changed"):
        wrapped(torch.randn(3, 4, 5, 5))


def test_a_parameter_outside_its_module_is_refused_since_ghost_norms_would_miss_it():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 3)

        def forward(self, x):
            return self.lin(x) + 10 * F.linear(x, self.lin.weight)

    for mode in ("hooks", "ghost"):
        with pytest.raises(RefusedError, match=r"do not add up.*lin.weight"):
            private(dpnorm.PrivacyEngine(), Twice(), loader(4), mode=mode)


class Centred(torch.autograd.Function):
    """A product whose gradient of the weight is no sum over records."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight, (gradient - gradient.mean(0)).T @ x


class CentredLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x):
        return Centred.apply(x, self.weight)


@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch", "ghost"])
def test_a_gradient_that_is_no_sum_over_records_is_refused(mode):
    model = nn.Sequential(nn.Linear(5, 5), CentredLayer(), nn.Linear(5, 3))
    with pytest.raises(RefusedError, match=r"do not add up.* for 1.weight"):
        private(dpnorm.PrivacyEngine(), model, loader(5), mode=mode)


def test_dropout_that_is_drawn_anew_is_refused_under_ghost_clipping():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.drop = nn.Parameter(torch.ones(4)), nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(x * self.scale)

    model = nn.Sequential(nn.Linear(4, 4), Scaled(), nn.Linear(4, 3))
    private(dpnorm.PrivacyEngine(), copy.deepcopy(model), loader(4))
    with pytest.raises(RefusedError, match="do not add up"):
        private(dpnorm.PrivacyEngine(), model, loader(4), mode="ghost")


def test_poisson_batches_are_accounted_as_they_are_drawn_and_fixed_ones_without_amplification():
    spent = {}
    for poisson in (True, False):
        engine = dpnorm.PrivacyEngine(accountant="rdp")
        model = plain()
        wrapped, optimizer, data = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=loader(4, 5, 5),
            noise_multiplier=2.0,
            max_grad_norm=1.0,
            poisson_sampling=poisson,
        )
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(wrapped(x), y).backward()
            optimizer.step()
        statement = engine.statement(1e-5)
        assert statement.steps == 3
        assert "loss not judged" in statement.isolation
        assert statement.sampling_rate == pytest.approx(1 / 3 if poisson else 1.0)
        spent[poisson] = statement.epsilon
    from dpnorm.privacy import epsilon_spent

    # in fixed batches a record more moves others: twice the sensitivity, half the noise
    for poisson, rate, noise in ((True, 1 / 3, 2.0), (False, 1.0, 1.0)):
        expected = epsilon_spent(
            noise_multiplier=noise, sampling_rate=rate, steps=3, delta=1e-5, accountant="rdp"
        )
        assert spent[poisson] == pytest.approx(expected)


def test_the_noise_for_a_target_epsilon_reaches_it():
    engine = dpnorm.PrivacyEngine()
    model = plain()
    wrapped, optimizer, data = engine.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=loader(4, 5, 5),
        criterion=nn.CrossEntropyLoss(),
        target_epsilon=3.0,
        target_delta=1e-3,
        epochs=2,
        max_grad_norm=1.0,
    )
    for _ in range(2):
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(wrapped(x), y).backward()
            optimizer.step()
    statement = engine.statement()
    assert 2.9 < statement.epsilon <= 3.0
    assert statement.is_sound
    assert "judged as a mean" in statement.isolation


def test_a_loss_that_couples_is_refused_where_the_criterion_is_given():
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 5.0]))
    model = plain()
    with pytest.raises(RefusedError, match="DPN30"):
        dpnorm.PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=loader(4, 5, 5),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            criterion=weighted,
        )


def test_wrong_use_is_one_clear_error():
    with pytest.raises(InputError, match="gdp"):
        dpnorm.PrivacyEngine(accountant="gdp")
    engine = dpnorm.PrivacyEngine()
    with pytest.raises(InputError, match="make_private first"):
        engine.statement(1e-5)
    with pytest.raises(InputError, match="evaluation mode"):
        private(engine, plain().eval(), loader(4, 5, 5))
    with pytest.raises(InputError, match="grad_sample_mode"):
        private(engine, plain(), loader(4, 5, 5), mode="ghosts")


@pytest.mark.parametrize(
    ("criterion", "shape"),
    [
        (nn.MSELoss(), (1,)),
        (nn.MSELoss(), (3,)),
        (nn.BCEWithLogitsLoss(), (1,)),
        (nn.SmoothL1Loss(), (2, 2)),
    ],
)
def test_ghost_clipping_bounds_what_one_record_moves_whatever_the_shape_of_the_loss(
    criterion, shape
):
    torch.manual_seed(0)
    x, y = torch.randn(5, 3), torch.rand(5, *shape)
    x[4] *= 10
    if not isinstance(criterion, nn.BCEWithLogitsLoss):
        y[4] = 1e4
    width = int(torch.tensor(shape).prod())
    start = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, width), nn.Unflatten(1, shape))
    sums = []
    for records in (4, 5):
        model = copy.deepcopy(start)
        wrapped, optimizer, loss, _ = dpnorm.PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=5),
            noise_multiplier=0.0,
            max_grad_norm=1.0,
            criterion=criterion,
            grad_sample_mode="ghost",
            poisson_sampling=False,
        )
        optimizer.expected_batch_size = 1
        loss(wrapped(x[:records]), y[:records]).backward()
        optimizer.step()
        sums.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert (sums[0] - sums[1]).norm() <= 1 + 1e-4
    assert criterion.reduction == "mean"


@pytest.mark.parametrize("criterion", [F.cross_entropy, lambda o, t: F.cross_entropy(o, t)])
def test_ghost_clipping_refuses_a_criterion_that_has_no_loss_a_record(criterion):
    model = plain()
    with pytest.raises(InputError, match="loss of each record"):
        dpnorm.PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            data_loader=loader(4, 5, 5),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            criterion=criterion,
            grad_sample_mode="ghost",
        )


def test_a_step_is_booked_whatever_else_hooks_in():
    engine, data, seen = dpnorm.PrivacyEngine(), loader(4, 5, 5), []
    wrapped, optimizer, criterion = private(engine, plain(), data, noise=1.0)
    optimizer.attach_step_hook(seen.append)
    x, y = next(iter(data))
    criterion(wrapped(x), y).backward()
    optimizer.step()
    assert len(seen) == 1
    assert engine.statement(1e-5).steps == 1
    with pytest.raises(InputError, match="take a new engine"):
        private(engine, plain(), data)


def test_adaptive_clipping_is_refused_since_it_divides_by_the_number_of_records():
    with pytest.raises(InputError, match="clipping"):
        private(dpnorm.PrivacyEngine(), plain(), loader(4, 5, 5), clipping="adaptive")


def steps_on(batches, engine, *, mode="hooks", accumulate=1):
    model = plain()
    made = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=loader(4, 5, 5),
        noise_multiplier=2.0,
        max_grad_norm=1.0,
        criterion=nn.CrossEntropyLoss(),
        grad_sample_mode=mode,
    )
    wrapped, optimizer, data = made[0], made[1], made[-1]
    if accumulate > 1:
        wrapped.allow_grad_accumulation()
    for count, (x, y) in enumerate(batches(data), 1):
        F.cross_entropy(wrapped(x), y).backward()
        if count % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return engine


def test_batches_that_the_loader_did_not_draw_are_accounted_as_fixed_ones():
    given = [next(iter(loader(4, 5, 5)))] * 3
    engine = steps_on(lambda data: given, dpnorm.PrivacyEngine(accountant="rdp"))
    assert engine.ledger.history() == [(1.0, 1.0, 3)]
    assert "3 steps on batches that the loader did not draw" in engine.statement(1e-3).sampling
    again = steps_on(lambda data: [next(iter(data))] * 3, dpnorm.PrivacyEngine(accountant="rdp"))
    assert again.ledger.history() == [(2.0, 1 / 3, 1), (1.0, 1.0, 2)]


def test_the_sum_of_several_batches_is_accounted_as_each_with_its_share_of_the_noise():
    engine = steps_on(
        lambda data: [*data, next(iter(data))], dpnorm.PrivacyEngine(accountant="rdp"), accumulate=2
    )
    assert engine.ledger.history() == [(2.0 / 2**0.5, 1 / 3, 4)]


def test_under_ghost_clipping_a_loss_of_another_criterion_is_no_step():
    with pytest.raises(InputError, match="call the criterion that make_private returned"):
        steps_on(iter, dpnorm.PrivacyEngine(), mode="ghost")


def ghost(model, data, **options):
    return private(dpnorm.PrivacyEngine(), model, data, mode="ghost", **options)


def test_under_ghost_clipping_what_is_added_to_a_loss_moves_no_more_than_the_clipping_norm():
    """A regularizer in the criterion reaches the parameters beside the output: it is left out."""
    model = plain()

    class Regularized(nn.CrossEntropyLoss):
        def forward(self, output, target):
            weight = sum(p.square().sum() for p in model.parameters())
            return super().forward(output, target) + 1e4 * weight + 1e4 * output.mean()

    data = loader(4, 5, 5, records=8)
    x, y = next(iter(data))
    engine = dpnorm.PrivacyEngine()
    made = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        data_loader=data,
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        criterion=Regularized(),
        grad_sample_mode="ghost",
        poisson_sampling=False,
        allow="refuted",
    )
    wrapped, optimizer, criterion = made[:3]
    criterion(wrapped(x), y).backward()
    optimizer.step()
    total = torch.cat([p.grad.flatten() for p in model.parameters()]) * 8
    assert total.norm() <= 8 * 0.5 * (1 + 1e-5)
    with pytest.raises(InputError, match="a gradient of its own"):
        criterion(wrapped(x), y) + model[0].weight.sum()


def test_under_ghost_clipping_a_loss_is_of_one_pass_in_training_mode():
    wrapped, optimizer, criterion = ghost(plain(), loader(4, 5, 5))
    x, y = next(iter(loader(4, 5, 5)))
    with pytest.raises(RefusedError, match=r"one forward pass.*of 2"):
        (criterion(wrapped(x), y) + criterion(wrapped(2 * x), y)).backward()
    wrapped.eval()
    with pytest.raises(RefusedError, match="in training mode"):
        criterion(wrapped(x), y).backward()
    wrapped.train()
    criterion(wrapped(x), y).backward()
    optimizer.step()


def test_ghost_norms_of_rows_that_cancel_are_not_too_small():
    """One record's rows have huge products that cancel; its clipped gradient stays in the bound."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64)
    a = torch.randn(3, 1, 64).repeat(1, 6, 1) * 1e3
    g = torch.randn(3, 6, 64) * 1e3
    g = g - g.mean(1, keepdim=True)  # the rows' gradients add up to nothing but rounding
    exact = torch.einsum("bto,bti->boi", g, a).flatten(1).norm(dim=1)
    assert bool((linear_norms(model, a, g)[model.weight] >= exact).all())


def test_a_model_that_is_changed_after_it_was_made_private_is_refused():
    model = plain()
    wrapped, _, _ = private(dpnorm.PrivacyEngine(), model, loader(4, 5, 5))
    model[1] = nn.BatchNorm2d(4)
    with pytest.raises(RefusedError, match="1 is not what was judged"):
        wrapped(torch.randn(3, 4, 5, 5))


def test_steps_without_gradients_are_errors_and_a_copy_of_the_optimizer_too():
    wrapped, optimizer, criterion = private(dpnorm.PrivacyEngine(), plain(), loader(4, 5, 5))
    with pytest.raises(InputError, match="no gradients of records"):
        optimizer.step()
    x, y = next(iter(loader(4, 5, 5)))
    criterion(wrapped(x), y).backward()
    optimizer.step()
    with pytest.raises(InputError, match="stepped by already"):
        optimizer.step()
    with pytest.raises(InputError, match="save a checkpoint"):
        copy.deepcopy(optimizer)


@pytest.mark.parametrize("mode", ["hooks", "lean", "ghost"])
def test_half_precision_is_clipped_in_single(mode):
    model = nn.Sequential(nn.Linear(300, 3)).to(torch.bfloat16)
    data = TensorDataset(torch.randn(4, 300).to(torch.bfloat16) * 100, torch.arange(4) % 3)
    wrapped, optimizer, criterion = private(
        dpnorm.PrivacyEngine(), model, DataLoader(data, batch_size=4), mode=mode
    )
    x, y = data.tensors
    criterion(wrapped(x[:1]), y[:1]).backward()
    optimizer.step()
    summed = torch.cat([p.summed_grad.flatten() for p in model.parameters()])
    assert summed.norm() <= 0.5 * (1 + (1e-5 if mode == "hooks" else 2**-7))
    assert all(p.grad.dtype == torch.bfloat16 for p in model.parameters())


def test_the_optimizer_that_was_made_private_does_not_step_by_itself():
    model = plain()
    original = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped, optimizer, data = dpnorm.PrivacyEngine().make_private(
        module=model,
        optimizer=original,
        data_loader=loader(4, 5, 5),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    x, y = next(iter(data))
    F.cross_entropy(wrapped(x), y).backward()
    with pytest.raises(InputError, match="step the one that make_private returned"):
        original.step()
    optimizer.step()


@pytest.mark.parametrize("mode", ["hooks", "lean", "ghost"])
def test_noise_is_that_of_the_largest_clipping_norm_of_a_logical_batch(mode):
    engine = dpnorm.PrivacyEngine()
    wrapped, optimizer, criterion = private(engine, plain(), loader(4, 5, 5), mode=mode, noise=1.0)
    x, y = next(iter(loader(4, 5, 5)))
    optimizer.signal_skip_step(do_skip=True)
    optimizer.signal_skip_step(do_skip=False)
    for clip in (0.5, 0.01):
        optimizer.max_grad_norm = clip
        optimizer.zero_grad()
        criterion(wrapped(x), y).backward()
        optimizer.step()
    assert engine.ledger.events[0].releases[0].clip == 0.5


def test_a_statement_doubts_a_loss_that_was_not_judged():
    engine, model = dpnorm.PrivacyEngine(), plain()
    engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=loader(4, 5, 5),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    assert "IF its loss couples no records" in str(engine.statement(1e-3))


def test_parameters_that_are_added_later_are_refused():
    wrapped, optimizer, criterion = private(dpnorm.PrivacyEngine(), plain(), loader(4, 5, 5))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    x, y = next(iter(loader(4, 5, 5)))
    criterion(wrapped(x), y).backward()
    with pytest.raises(InputError, match="other trainable parameters"):
        optimizer.step()
