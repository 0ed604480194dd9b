"""What is no private training is one clear error, and leaves everything as it was."""

import json
import math
import random

import numpy as np
import opacus
import pytest
import torch
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import dpnorm
from dpnorm.errors import DpnormError, InputError
from dpnorm.norms import PrivateBatchNorm1d, PublicBatchNorm2d, public_statistics
from tests.privacy.trainings import Training, content, loader, network, records, sgd

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
NAN, INF = math.nan, math.inf
ADAPTIVE = {
    "clipping": "adaptive",
    "target_unclipped_quantile": 0.5,
    "clipbound_learning_rate": 0.5,
    "max_clipbound": 10.0,
    "min_clipbound": 0.01,
    "unclipped_num_std": 2.0,
}
NORMS = [0.5] * 6


def public_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), PublicBatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 3)
    )


def grouped_network():
    """Without private statistics, which would be enough to tell a record that is not finite."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    )


def public_records(count=8):
    return torch.randn(count, 1, 5, 5, generator=torch.Generator().manual_seed(2))


def hooks_of(model):
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [[list(getattr(m, name)) for name in names] for m in model.modules()]


class Attempt:
    """The objects of a training, and what must not change where it is refused."""

    def __init__(self, model=None, optimizer=None, engine=None):
        self.model = network() if model is None else model
        self.optimizer = sgd(self.model.parameters()) if optimizer is None else optimizer
        self.engine = dpnorm.PrivacyEngine(accountant="rdp") if engine is None else engine

    def everything(self):
        return {
            "buffers": content(dict(self.model.named_buffers())) if not self.meta() else None,
            "parameters": content([p for p in self.model.parameters() if not p.is_meta]),
            "attributes": [sorted(p.__dict__) for p in self.model.parameters()],
            "gradients": [p.grad for p in self.model.parameters()],
            "trainable": [p.requires_grad for p in self.model.parameters()],
            "names": [sorted(m.__dict__) for m in self.model.modules()],
            "modes": [m.training for m in self.model.modules()],
            "hooks": hooks_of(self.model),
            "optimizer": content(self.optimizer.state_dict()),
            "hooked": sorted(self.optimizer.__dict__),
            "terms": self.engine.terms(),
            "ledger": self.engine.ledger.to_dict(),
            "run": self.engine.run,
            "random": (random.getstate(), content(torch.get_rng_state())),
        }

    def meta(self):
        return any(b.is_meta for b in self.model.buffers())

    def make(self, *, target=False, **options):
        given = {
            "module": self.model,
            "optimizer": self.optimizer,
            "data_loader": loader(),
            "max_grad_norm": 0.5,
        }
        if target:
            given |= {"target_epsilon": 5.0, "target_delta": 1e-3, "epochs": 1}
            return self.engine.make_private_with_epsilon(**(given | options))
        return self.engine.make_private(**(given | {"noise_multiplier": 1.0} | options))

    def refused(self, match, kind=InputError, **options):
        before = self.everything()
        with pytest.raises(DpnormError, match=match) as caught:
            self.make(**options)
        assert isinstance(caught.value, kind)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        assert self.everything() == before
        return self

    def works(self, **options):
        """A correct call on the same objects takes a step."""
        wrapped, optimizer, *_, data = self.make(**options)
        x, y = next(iter(data))
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(x), y).backward()
        optimizer.step()
        assert self.engine.statement(1e-3).steps == 1
        assert all(p.isfinite().all() for p in self.model.parameters())


# Numbers


@pytest.mark.parametrize(
    ("options", "match"),
    [
        *(
            ({"noise_multiplier": noise}, r"noise_multiplier is .* a finite number of at least 0")
            for noise in (-1, -1e-9, NAN, INF, "1", True, None, [1.0], torch.tensor(1.0))
        ),
        *(
            ({"max_grad_norm": clip}, r"max_grad_norm is .* a finite number above 0")
            for clip in (0, -1.0, NAN, INF, "1", True, None, [])
        ),
        ({"max_grad_norm": NORMS}, "a list of clipping norms goes with clipping='per_layer'"),
        ({"clipping": "per_layer"}, "a list of clipping norms goes with clipping='per_layer'"),
        (
            {"clipping": "per_layer", "max_grad_norm": NORMS[1:]},
            "lists 5 norms for 6 trainable parameters: give one for each",
        ),
        ({"clipping": "per_layer", "max_grad_norm": [*NORMS[1:], NAN]}, "max_grad_norm is"),
        ({"clipping": "per_layer", "max_grad_norm": [*NORMS[1:], -1]}, "max_grad_norm is"),
        *(
            ({name: value}, f"{name} is .* a finite number above 0")
            for name in ("statistics_noise_ratio", "statistics_clip")
            for value in (0, -1, NAN, INF, "4", None)
        ),
        *(({"seed": seed}, "seed is .* a whole number, or None") for seed in ("1", 1.5, True)),
    ],
)
def test_numbers_out_of_range_are_refused(options, match):
    Attempt().refused(match, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        *(
            ({"target_epsilon": epsilon}, r"target_epsilon is .* a finite number above 0")
            for epsilon in (0, -1.0, NAN, INF, "3", None)
        ),
        *(
            ({"target_delta": delta}, r"target_delta is .* above 0 and below 1")
            for delta in (0, 1, -1e-5, 1.5, NAN, "1e-5", None)
        ),
        *(
            ({"epochs": epochs}, r"epochs is .* a whole number of at least 1")
            for epochs in (0, -1, 0.5, 1.5, NAN, INF, "2", None)
        ),
        (
            {"noise_multiplier": 1.0},
            "noise_multiplier is 1.0 and target_epsilon 5.0: .* give one of them",
        ),
        ({"target_epsilon": 1e-9}, "cannot be reached"),
    ],
)
def test_targets_out_of_range_are_refused(options, match):
    attempt = Attempt()
    attempt.refused(match, target=True, **options)
    with pytest.raises(InputError, match=r"no model was made|delta is not known"):
        attempt.engine.statement()


def test_a_refused_target_leaves_a_training_that_works():
    attempt = Attempt()
    attempt.refused("target_epsilon", target=True, target_epsilon=0)
    attempt.refused("evaluation mode", target=True, module=attempt.model.eval())
    attempt.model.train()
    attempt.works(target=True)


def test_without_noise_a_training_runs_and_its_epsilon_is_infinite():
    training = Training(noise_multiplier=0).run()
    statement = training.engine.statement(1e-5)
    assert statement.epsilon == statement.total_epsilon == training.engine.get_epsilon(1e-5) == INF
    assert statement.substitution == INF
    assert [epsilon for _, epsilon in statement.groups] == [INF, INF]
    assert str(statement).startswith("(inf, 1e-05)-differential privacy")
    assert "**(inf, 1e-05)-differential privacy" in statement.to_markdown()
    found = json.loads(statement.to_json(), parse_constant=pytest.fail)
    assert found["epsilon"] == found["substitution"] == found["total_epsilon"] == "inf"
    assert found["groups"] == [[2, "inf"], [4, "inf"]]
    assert found["noise_multiplier"] == 0


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(1), 1])
def test_numbers_of_other_kinds_are_taken(number):
    Attempt().works(noise_multiplier=number, max_grad_norm=number)


# Names and combinations


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_norm": 1.0}, "unknown argument 'max_norm': .* did you mean 'max_grad_norm'"),
        ({"noise_multiplyer": 1.0}, "did you mean 'noise_multiplier'"),
        ({"target_epsilon": 3.0}, "and no target_epsilon: call make_private_with_epsilon"),
        ({"clipping": "flatt"}, "unknown clipping 'flatt': .* did you mean 'flat'"),
        ({"clipping": None}, "unknown clipping"),
        ({"grad_sample_mode": "ghosts"}, "unknown grad_sample_mode 'ghosts': .* mean 'ghost'"),
        ({"loss_reduction": "avg"}, "unknown loss_reduction 'avg': allowed are mean, sum"),
        ({"weights_origin": "imagenet"}, "unknown origin 'imagenet'"),
        ({"statistics_origin": None}, "unknown origin"),
        ({"allow": "all"}, "unknown allow 'all': allowed are unproven, refuted"),
        ({"allow": True}, "unknown allow True"),
        ({"rand_on_empty": True}, "rand_on_empty puts a random record"),
        ({"batch_first": False}, "batch_first=False is not supported: put the batch first"),
        (
            {"grad_sample_mode": "ghost", "clipping": "per_layer", "max_grad_norm": NORMS},
            "ghost clipping is flat, not 'per_layer': take grad_sample_mode='hooks'",
        ),
        ({"grad_sample_mode": "ghost"} | ADAPTIVE, "ghost clipping is flat, not 'adaptive'"),
        ({"clipping": "adaptive"}, "clipping='adaptive' needs target_unclipped_quantile, "),
        (ADAPTIVE | {"clipping": "flat"}, "these go with clipping='adaptive'"),
        (
            {k: v for k, v in ADAPTIVE.items() if k != "unclipped_num_std"},
            "needs unclipped_num_std",
        ),
        (ADAPTIVE | {"unclipped_num_std": 0.5}, "unclipped_num_std is 0.5: .* above half of"),
        (ADAPTIVE | {"unclipped_num_std": 0}, "unclipped_num_std is 0: .* above half of"),
        (ADAPTIVE | {"unclipped_num_std": NAN}, "unclipped_num_std is nan: .* finite number"),
        (ADAPTIVE | {"clipbound_learning_rate": NAN}, "clipbound_learning_rate is nan"),
        (ADAPTIVE | {"target_unclipped_quantile": 1.5}, "target_unclipped_quantile is 1.5"),
        (ADAPTIVE | {"min_clipbound": 0}, "min_clipbound is 0 and max_clipbound 10.0"),
        (ADAPTIVE | {"max_clipbound": "10"}, "max_clipbound is '10': .* finite number"),
        ({"seed": 1, "noise_generator": torch.Generator()}, "a seed or a noise_generator, not"),
        ({"noise_generator": 3}, r"noise_generator is a int: make it with torch\.Generator"),
        ({"public_inputs": public_records()}, "no layer takes statistics of public records"),
    ],
)
def test_names_and_combinations_that_mean_nothing_are_refused(options, match):
    Attempt().refused(match, **options)


def test_an_unknown_accountant_is_refused_with_what_is_near():
    for name in ("gdp", "prvs", None, 3):
        with pytest.raises(InputError, match=r"unknown accountant .* allowed are prv, rdp, pld"):
            dpnorm.PrivacyEngine(accountant=name)


@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch", "ghost"])
def test_what_fails_late_leaves_no_hooks(mode, monkeypatch):
    attempt = Attempt()

    def fails(self, **options):
        raise KeyboardInterrupt

    before = attempt.everything()
    with monkeypatch.context() as patched:
        patched.setattr(dpnorm.PrivacyEngine, "_prepare_optimizer", fails)
        with pytest.raises(KeyboardInterrupt):
            attempt.make(grad_sample_mode=mode)
    assert attempt.everything() == before
    attempt.works()


def test_after_a_refusal_that_came_late_a_correct_call_works():
    attempt = Attempt()
    attempt.refused("above half of", **ADAPTIVE | {"unclipped_num_std": 0.5})
    attempt.refused("evaluation mode", module=attempt.model.eval())
    attempt.model.train()
    attempt.refused("noise_multiplier", noise_multiplier=-1)
    attempt.works(**ADAPTIVE)


# Models and optimizers


def test_a_model_without_trainable_parameters_is_refused():
    frozen = network().requires_grad_(False)
    Attempt(frozen).refused("no trainable parameter")
    lone = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    Attempt(nn.Sequential(nn.Flatten()), lone).refused("no trainable parameter")


def test_an_optimizer_over_other_parameters_is_refused():
    model = network()
    of_another = sgd(network().parameters())
    Attempt(model, of_another).refused("6 parameters that are not the model's: build it over")
    more = sgd([*model.parameters(), nn.Parameter(torch.ones(1))])
    Attempt(model, more).refused("1 parameters that are not the model's")
    fewer = sgd([*model.parameters()][2:])
    attempt = Attempt(model, fewer)
    attempt.refused(r"leaves out trainable parameters \(0\.weight, 0\.bias\): .* freeze them")
    model[0].requires_grad_(False)
    attempt.works()


def test_a_model_on_several_devices_or_without_numbers_is_refused():
    model = network()
    model[4].bias = nn.Parameter(torch.empty(3, device="meta"))
    Attempt(model).refused(r"several devices \(cpu, meta\): move it to one with model\.to")
    Attempt(network().to("meta")).refused("meta device and holds no numbers: materialize it")


def test_a_model_in_evaluation_mode_is_refused():
    model = network().eval()
    attempt = Attempt(model).refused(r"evaluation mode: call module\.train\(\) first")
    model.train()
    attempt.works()


def test_what_is_no_model_optimizer_or_data_loader_is_refused():
    Attempt().refused("module is a int: pass a", module=3)
    Attempt().refused("optimizer is a list: pass a", optimizer=[])
    Attempt().refused("data_loader is a list: pass a", data_loader=[1])
    Attempt().refused("data_loader is a list: pass a", target=True, data_loader=[1])


def test_a_private_optimizer_or_model_is_not_made_private_again():
    first = Attempt()
    wrapped, optimizer, _ = first.make()
    first.refused("take a new engine for each training")
    again = Attempt(network(), engine=dpnorm.PrivacyEngine(ledger=first.engine.ledger))
    again.refused("optimizer is private already: pass the one", optimizer=optimizer)
    theirs = opacus.optimizers.DPOptimizer(
        sgd(again.model.parameters()), noise_multiplier=1, max_grad_norm=1, expected_batch_size=1
    )
    for p in again.model.parameters():
        del p.summed_grad
    again.refused("optimizer is private already", optimizer=theirs)
    for p in again.model.parameters():
        p.__dict__.pop("summed_grad", None)
    match = r"model is private already .* \.to_standard_module\(\)"
    plain = optimizer.original_optimizer
    for module in (first.model, wrapped):
        again.refused(match, module=module, optimizer=plain)
    model = wrapped.to_standard_module()
    Attempt(model, plain).works()
    again.works()


def test_a_target_is_refused_on_an_engine_that_was_used():
    attempt = Attempt()
    attempt.make()
    attempt.refused("take a new engine for each training", target=True)


# Records


class Texts(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return f"record {index}", index % 3


class Named(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        x, y = records()[index]
        return x, y, f"record {index}"


class Stream(IterableDataset):
    def __iter__(self):
        yield from records()


class Unmeasured(Dataset):
    def __getitem__(self, index):
        return records()[index]


def of(dataset, **options):
    return DataLoader(dataset, **({"batch_size": 8} | options))


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize(
    ("data", "match"),
    [
        (of(Stream()), "no length, so that records cannot be drawn.*take a map-style"),
        (of(Unmeasured(), sampler=[0, 1]), "no length, so that records cannot be drawn"),
        (of(TensorDataset(torch.ones(0, 1, 5, 5), torch.ones(0))), "holds no record"),
        (of(records(4), drop_last=True), "has 0 batches of 4 records: .* another batch_size"),
        (of(records(), batch_sampler=[[0]] * 30, batch_size=1), "has 30 batches of 24 records"),
        (of(records(), batch_size=None), r"does not make batches .* \(batch_size=None\)"),
        (of(Texts()), "a batch of the data loader is a list: pass sample_inputs="),
    ],
)
def test_data_sets_that_no_records_can_be_drawn_from_are_refused(data, match, target):
    Attempt().refused(match, target=target, data_loader=data)


def test_fixed_batches_are_to_hold_a_record_once():
    attempt = Attempt()
    for sampler in (
        RandomSampler(records(), replacement=True),
        WeightedRandomSampler([1.0] * 24, 24),
    ):
        data = of(records(), sampler=sampler)
        match = f"{type(sampler).__name__} draws with replacement.* poisson_sampling=True"
        attempt.refused(match, data_loader=data, poisson_sampling=False)
    attempt.refused("WeightedRandomSampler, which Poisson sampling would put", data_loader=data)
    validation = of(records(), sampler=SubsetRandomSampler(range(6)))
    attempt.refused("SubsetRandomSampler, .*torch.utils.data.Subset", data_loader=validation)
    attempt.works(data_loader=of(records(), sampler=RandomSampler(records(), replacement=True)))


def test_texts_in_a_batch_are_refused_where_an_empty_batch_would_hold_them():
    x = records().tensors[0][:4]
    attempt = Attempt()
    for data in (of(Texts()), of(Named())):
        attempt.refused(
            "a batch holds a str in a list, .* collate_fn give tensors",
            data_loader=data,
            sample_inputs=x,
        )
    *_, data = attempt.make(data_loader=of(Named()), sample_inputs=x, poisson_sampling=False)
    assert next(iter(data))[2][0] == "record 0"


def spoiled(*, where=0, value=NAN):
    x, y = records().tensors
    x = x.clone()
    x[where, 0, 2, 2] = value
    return TensorDataset(x, y)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("mode", ["hooks", "lean", "ghost"])
def test_a_model_is_not_judged_on_records_that_are_not_finite(value, mode):
    attempt = Attempt()
    data, sound = of(spoiled(value=value)), records().tensors[0][:4]
    wrong = data.dataset.tensors[0][:4]
    options = {"grad_sample_mode": mode}
    match = "hold 1 numbers that are NaN or infinite.*pass sample_inputs= of sound records"
    attempt.refused(f"the first records {match}", data_loader=data, **options)
    attempt.refused(f"sample_inputs {match}", sample_inputs=wrong, **options)
    attempt.make(data_loader=data, sample_inputs=sound, **options)


def test_public_records_are_to_be_there_finite_and_at_least_two():
    attempt = Attempt(public_network())
    attempt.refused("1 layers that take statistics of public records: pass public_inputs=")
    attempt.refused("hold 1 record.*at least 2 are needed", public_inputs=public_records(1))
    attempt.refused("at least 2 are needed", public_inputs=public_records(0))
    attempt.refused("200 numbers are NaN or infinite", public_inputs=public_records() * NAN)
    match = "public_inputs are not as needed"
    attempt.refused(f"{match}: the model raises", public_inputs=public_records()[:, :, 0])
    attempt.refused(f"{match}: inputs hold no tensor", public_inputs="records")
    before = public_statistics(attempt.model)[0].running_mean.clone()
    late = ADAPTIVE | {"unclipped_num_std": 0.1}
    attempt.refused("above half of", public_inputs=public_records(), **late)
    assert torch.equal(public_statistics(attempt.model)[0].running_mean, before)
    attempt.works(public_inputs=public_records())
    assert not torch.equal(public_statistics(attempt.model)[0].running_mean, before)


def test_sample_inputs_that_the_model_does_not_take_are_refused():
    for wrong in (torch.ones(4, 2, 5, 5), torch.ones(4), torch.ones(1, 1, 5, 5), 3, "x"):
        Attempt().refused("inputs|the model", sample_inputs=wrong)
    elsewhere = records().tensors[0][:4].to("meta")
    Attempt().refused(r"inputs are on meta, the model on cpu: move", sample_inputs=elsewhere)


# While it trains


def step_of(data, rows, *, model=None, mode="hooks", **options):
    """The training after one step on some rows of its data."""
    training = Training(
        model=network() if model is None else model,
        data=data,
        grad_sample_mode=mode,
        poisson_sampling=False,
        noise_multiplier=0.0,
        criterion=nn.CrossEntropyLoss() if mode == "ghost" else None,
        sample_inputs=records().tensors[0][:4],
        **options,
    )
    x, y = data.dataset.tensors
    training.step(x[rows], y[rows])
    return training


@pytest.mark.parametrize("options", [{}, ADAPTIVE, {"clipping": "per_layer"}])
@pytest.mark.parametrize("mode", ["hooks", "functorch"])
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("build", [network, grouped_network])
def test_a_record_that_is_not_finite_adds_nothing(build, mode, value, options):
    if options.get("clipping") == "per_layer":
        options = options | {"max_grad_norm": NORMS}
    options = options | {"mode": mode}
    data = of(spoiled(where=2, value=value))
    with_it = step_of(data, [0, 1, 2, 3], model=build(), **options)
    without = step_of(data, [0, 1, 3], model=build(), **options)
    assert with_it.optimizer.dropped_records == 1
    assert without.optimizer.dropped_records == 0
    state, expected = with_it.model.state_dict(), without.model.state_dict()
    for name, value in state.items():
        assert value.isfinite().all()
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
    assert with_it.engine.ledger.history() == without.engine.ledger.history()


class Saturated(nn.Module):
    """Takes statistics of what its activation then cuts off: the gradient stays finite."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head = PrivateBatchNorm1d(3), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(x)))


def rows_for_saturated():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 3, generator=generator)
    x[2] = 1e30  # its square is infinite, and the slope of tanh there is 0
    return of(TensorDataset(x, torch.arange(24) % 3))


def saturated(mode, rows):
    data = rows_for_saturated()
    training = Training(
        model=Saturated(),
        data=data,
        grad_sample_mode=mode,
        poisson_sampling=False,
        noise_multiplier=0.0,
        sample_inputs=data.dataset.tensors[0][4:8],
    )
    x, y = data.dataset.tensors
    training.optimizer.zero_grad()
    training.loss(training.wrapped(x[rows]), y[rows]).backward()
    return training


@pytest.mark.parametrize("mode", ["hooks", "functorch"])
def test_a_record_whose_statistics_alone_are_not_finite_adds_nothing(mode):
    with_it, without = saturated(mode, [0, 1, 2, 3]), saturated(mode, [0, 1, 3])
    assert all(p.grad_sample.isfinite().all() for p in with_it.model.parameters())
    for training in (with_it, without):
        training.optimizer.step()
    assert with_it.optimizer.dropped_records == 1
    for a, b in zip(
        with_it.model.state_dict().values(), without.model.state_dict().values(), strict=True
    ):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_ghost_clipping_stops_at_statistics_that_are_not_finite_before_anything_moves():
    training = saturated("ghost", [0, 1, 2, 3])
    before = content(dict(training.model.state_dict()))
    with pytest.raises(InputError, match=r"not finite.*grad_sample_mode='hooks'"):
        training.optimizer.step()
    assert content(dict(training.model.state_dict())) == before
    assert training.engine.ledger.events == []
    x, y = training.data.dataset.tensors
    training.step(x[[0, 1, 3]], y[[0, 1, 3]])
    other = saturated("ghost", [0, 1, 3])
    other.optimizer.step()
    assert content(dict(training.model.state_dict())) == content(dict(other.model.state_dict()))


def test_ghost_clipping_stops_at_a_gradient_that_is_not_finite_before_anything_moves():
    data = of(spoiled(where=2))
    training = step_of(data, [0, 1, 3], mode="ghost")
    before = content(dict(training.model.state_dict()))
    x, y = data.dataset.tensors
    with pytest.raises(InputError, match=r"not finite.*grad_sample_mode='hooks'"):
        training.step(x[:4], y[:4])
    assert content(dict(training.model.state_dict())) == before
    assert len(training.engine.ledger.history()) == 1
    training.step(x[[0, 1, 3]], y[[0, 1, 3]])
    other = step_of(data, [0, 1, 3], mode="ghost")
    other.step(x[[0, 1, 3]], y[[0, 1, 3]])
    assert content(dict(training.model.state_dict())) == content(dict(other.model.state_dict()))


# A pass that is left early


@pytest.mark.parametrize("mode", ["hooks", "lean", "ghost"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("poisson", [True, False])
@pytest.mark.parametrize("cleared", ["before", "after"])
def test_what_was_summed_in_a_pass_that_was_left_is_in_no_release(cleared, poisson, workers, mode):
    def fresh():
        return Training(
            data=loader(num_workers=workers),
            poisson_sampling=poisson,
            noise_multiplier=0.0,
            grad_sample_mode=mode,
            criterion=nn.CrossEntropyLoss(),
        )

    def start(training, sampling):
        generator = training.engine.generators().get("sampling")
        if generator is not None:
            generator.manual_seed(sampling)

    def one_pass(training, stop=None):
        with BatchMemoryManager(
            data_loader=training.data, max_physical_batch_size=3, optimizer=training.optimizer
        ) as data:
            for count, (x, y) in enumerate(data):
                if count == stop:
                    break
                if cleared == "before":
                    training.optimizer.zero_grad()
                training.loss(training.wrapped(x), y).backward()
                training.optimizer.step()
                if cleared == "after":
                    training.optimizer.zero_grad()

    left, undisturbed = fresh(), fresh()
    start(left, 1)
    one_pass(left, stop=2)
    assert left.engine.ledger.events == []  # the third part would have been released
    assert any(p.summed_grad is not None for p in left.model.parameters())
    for training in (left, undisturbed):
        start(training, 2)
        one_pass(training)
    assert left.engine.ledger == undisturbed.engine.ledger
    assert content(dict(left.model.state_dict())) == content(dict(undisturbed.model.state_dict()))


def test_a_batch_between_backward_and_step_is_left_too():
    left, undisturbed = (
        Training(data=loader(), poisson_sampling=False, noise_multiplier=0.0) for _ in range(2)
    )
    for x, y in left.data:
        left.loss(left.wrapped(x * 3), y).backward()
        break
    for training in (left, undisturbed):
        for x, y in training.data:
            training.loss(training.wrapped(x), y).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
    assert content(dict(left.model.state_dict())) == content(dict(undisturbed.model.state_dict()))


def test_workers_that_persist_announce_their_passes_too():
    plain = loader(num_workers=1, persistent_workers=True)
    list(plain)
    training = Training(data=plain, poisson_sampling=False)
    begun = []
    training.optimizer.begin_pass = lambda: begun.append(1)
    for _ in range(2):
        list(training.data)
    assert len(begun) == 2
