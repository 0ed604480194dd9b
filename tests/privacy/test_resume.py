"""Going on with a private training from a checkpoint, and what is refused instead."""

import copy
import dataclasses
import math
import os

import pytest
import torch
from opacus.schedulers import ExponentialGradClip, ExponentialNoise, LambdaNoise, StepNoise
from torch import nn

import dpnorm
from dpnorm.errors import DpnormError, InputError, RefusedError
from dpnorm.privacy.checkpoint import read_state, write_state
from tests.privacy.trainings import Training, adam, content, loader, network, sgd

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
DELTA = 1e-3
NOISES = {
    "none": None,
    "exponential": lambda o: ExponentialNoise(o, gamma=0.9),
    "step": lambda o: StepNoise(o, step_size=2, gamma=0.8),
    "lambda": lambda o: LambdaNoise(o, noise_lambda=lambda epoch: 1 / (1 + epoch)),
}
ADAPTIVE = {
    "clipping": "adaptive",
    "target_unclipped_quantile": 0.5,
    "clipbound_learning_rate": 0.5,
    "max_clipbound": 10.0,
    "min_clipbound": 0.01,
    "unclipped_num_std": 2.0,
}


class Scheduled(Training):
    """A training with schedulers, which step once a pass."""

    def __init__(self, build=sgd, *, noise="none", clip=False, **options):
        super().__init__(build, **options)
        make = NOISES[noise]
        self.schedulers = {
            "noise_scheduler": make and make(self.optimizer),
            "grad_clip_scheduler": ExponentialGradClip(self.optimizer, gamma=0.9) if clip else None,
        }

    def run(self, passes=1):
        for _ in range(passes):
            super().run()
            for scheduler in self.schedulers.values():
                if scheduler is not None:
                    scheduler.step()
        return self

    def arguments(self):
        return {"module": self.wrapped, "optimizer": self.optimizer, **self.schedulers}

    def save(self, path, **extra):
        self.engine.save_checkpoint(path=path, checkpoint_dict=extra, **self.arguments())
        return path

    def load(self, path):
        return self.engine.load_checkpoint(path=path, **self.arguments())

    def everything(self):
        """All that a checkpoint may change."""
        return content(
            {
                "model": dict(self.model.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "noise": self.optimizer.noise_multiplier,
                "clip": self.optimizer.max_grad_norm,
                "schedulers": {
                    key: {k: v for k, v in scheduler.state_dict().items() if not callable(v)}
                    for key, scheduler in self.schedulers.items()
                    if scheduler is not None
                },
                "ledger": self.engine.ledger.to_dict(),
                "run": self.engine.run,
                "history": list(self.engine.accountant.history),
                "generators": {k: g.get_state() for k, g in self.engine.generators().items()},
            }
        )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ckpt"


@pytest.mark.parametrize("build", [sgd, adam])
@pytest.mark.parametrize("noise", NOISES)
def test_a_resumed_training_is_the_undisturbed_one(build, noise, path):
    options = {"build": build, "noise": noise, "clip": noise != "none"}
    first = Scheduled(**options).run(2)
    first.save(path, epoch=2)
    spent = first.engine.get_epsilon(DELTA)
    before = first.everything()

    resumed = Scheduled(**options)
    assert resumed.everything() != before
    assert resumed.load(path) == {"epoch": 2}
    assert resumed.everything() == before
    assert resumed.engine.get_epsilon(DELTA) == spent

    # both draw from one seed, so that all that follows is the same too
    assert resumed.run(2).everything() == first.run(2).everything()
    assert resumed.engine.get_epsilon(DELTA) == first.engine.get_epsilon(DELTA) > spent
    whole = Scheduled(**options).run(4)
    assert whole.everything() == resumed.everything()


@pytest.mark.parametrize(
    "options",
    [
        {"accountant": "prv"},
        {"grad_sample_mode": "ghost"},
        {"poisson_sampling": False},
        {"clipping": "per_layer", "max_grad_norm": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
        {"wrap_model": False},
        ADAPTIVE,
    ],
    ids=["prv", "ghost", "fixed", "per_layer", "unwrapped", "adaptive"],
)
def test_every_kind_of_training_resumes(options, path):
    options = dict(options)
    accountant = options.pop("accountant", "rdp")

    def fresh():
        model = network()
        made = Scheduled(engine=dpnorm.PrivacyEngine(accountant=accountant), model=model, **options)
        if options.get("wrap_model") is False:
            made.wrapped = model
        return made

    first = fresh().run(2)
    first.save(path)
    resumed = fresh()
    resumed.load(path)
    assert resumed.everything() == first.everything()
    assert resumed.run().everything() == first.run().everything()


def test_adaptive_clipping_goes_on_with_the_norm_that_it_reached(path):
    first = Scheduled(**ADAPTIVE).run(2)
    assert first.optimizer.max_grad_norm != 0.5
    first.save(path)
    resumed = Scheduled(**ADAPTIVE)
    resumed.load(path)
    assert resumed.optimizer.max_grad_norm == first.optimizer.max_grad_norm


def test_ghost_clipping_clips_to_the_norm_that_was_restored(path):
    first = Scheduled(clip=True, grad_sample_mode="ghost").run(2)
    first.save(path)
    resumed = Scheduled(clip=True, grad_sample_mode="ghost")
    resumed.load(path)
    assert resumed.wrapped.max_grad_norm == first.optimizer.max_grad_norm < 0.5


def test_noise_is_not_repeated_after_a_resume_with_the_same_seed(path):
    quiet = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "poisson_sampling": False}
    first = Scheduled(**quiet)
    drawn = [first.optimizer.generator.get_state()]
    first.run()
    drawn.append(first.optimizer.generator.get_state())
    first.save(path)
    resumed = Scheduled(**quiet)
    resumed.load(path)
    now = resumed.optimizer.generator.get_state()
    assert not torch.equal(now, drawn[0])
    assert torch.equal(now, drawn[1])


def test_the_state_of_generators_that_no_seed_made_is_in_no_checkpoint(path):
    # a Mersenne Twister runs backwards: its state is all noise that it gave
    generator = torch.Generator().manual_seed(5)
    for random in ({"seed": None}, {"seed": None, "noise_generator": generator}):
        Scheduled(**random).run().save(path)
        assert read_state(path)["generators"] == {}


def test_a_training_that_draws_from_the_operating_system_resumes_with_its_account(path):
    first = Scheduled(seed=None).run(2)
    first.save(path)
    resumed = Scheduled(seed=None)
    resumed.load(path)
    assert resumed.everything() == first.everything()
    resumed.run()
    assert resumed.engine.get_epsilon(DELTA) > first.engine.get_epsilon(DELTA)
    undisturbed = Scheduled(seed=None).run(3)
    assert resumed.engine.ledger == undisturbed.engine.ledger
    assert resumed.engine.get_epsilon(DELTA) == undisturbed.engine.get_epsilon(DELTA)


def test_a_target_epsilon_is_kept_over_a_resume(path):
    def fresh():
        training = Scheduled.__new__(Scheduled)
        training.engine, training.model = dpnorm.PrivacyEngine(accountant="rdp"), network()
        training.wrapped, training.optimizer, training.data = (
            training.engine.make_private_with_epsilon(
                module=training.model,
                optimizer=sgd(training.model.parameters()),
                data_loader=loader(),
                target_epsilon=4.0,
                target_delta=DELTA,
                epochs=3,
                max_grad_norm=1.0,
                seed=0,
            )
        )
        training.loss = nn.functional.cross_entropy
        training.schedulers = {}
        return training

    first = fresh().run()
    first.save(path)
    resumed = fresh()
    resumed.load(path)
    resumed.run(2)
    assert 3.9 < resumed.engine.statement().epsilon <= 4.0


def test_without_an_optimizer_the_noise_and_the_account_are_restored_all_the_same(path):
    first = Scheduled(noise="exponential").run(2)
    scheduler = first.schedulers["noise_scheduler"]
    first.engine.save_checkpoint(path=path, module=first.wrapped, noise_scheduler=scheduler)
    resumed = Scheduled(noise="exponential")
    resumed.engine.load_checkpoint(
        path=path, module=resumed.wrapped, noise_scheduler=resumed.schedulers["noise_scheduler"]
    )
    assert resumed.optimizer.noise_multiplier == first.optimizer.noise_multiplier < 1
    assert resumed.engine.ledger == first.engine.ledger
    assert content(dict(resumed.model.state_dict())) == content(dict(first.model.state_dict()))


def test_an_earlier_run_stays_in_the_ledger(path):
    pretrained = Scheduled().run()
    ledger = pretrained.engine.ledger
    earlier = copy.deepcopy(ledger)
    first = Scheduled(engine=dpnorm.PrivacyEngine(accountant="rdp", ledger=ledger)).run()
    first.save(path)
    for given in (earlier, None):
        resumed = Scheduled(engine=dpnorm.PrivacyEngine(accountant="rdp", ledger=given))
        resumed.load(path)
        assert resumed.engine.run == "run 2"
        assert resumed.everything() == first.everything()
    statement, before = resumed.engine.statement(DELTA), first.engine.statement(DELTA)
    (new,) = set(statement.not_covered) - set(before.not_covered)
    assert "after the checkpoint" in new
    assert dataclasses.replace(statement, not_covered=before.not_covered) == before
    assert statement.earlier_runs == ("run 1",)


def test_what_waited_for_a_step_before_loading_is_not_released_after_it(path):
    first = Scheduled().run()
    first.save(path)
    resumed = Scheduled()
    x, y = next(iter(loader()))
    resumed.optimizer.signal_skip_step(do_skip=True)
    resumed.step(x, y)
    resumed.load(path)
    assert resumed.run().everything() == first.run().everything()


def test_extra_content_comes_back(path):
    first = Scheduled()
    extra = {"epoch": 3, "lr": {"last": [0.1, 0.2]}, "ema": torch.ones(2)}
    first.save(path, **extra)
    assert content(Scheduled().load(path)) == content(extra)


# What is refused, with nothing changed


def refuses(training, path, match, kind=InputError, **arguments):
    before = training.everything()
    with pytest.raises(DpnormError, match=match) as caught:
        training.engine.load_checkpoint(path=path, **(training.arguments() | arguments))
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert training.everything() == before


@pytest.fixture
def saved(path):
    return Scheduled(noise="exponential", clip=True).run(2).save(path)


def scheduled(**options):
    return Scheduled(**{"noise": "exponential", "clip": True} | options)


def test_a_checkpoint_of_another_model_is_refused(saved):
    refuses(scheduled(model=network(width=4)), saved, r"other shapes: 0\.bias is \(3,\).*\(4,\)")
    renamed = nn.Sequential()
    for name, module in zip("abcde", network(), strict=True):
        renamed.add_module(name, module)
    refuses(scheduled(model=renamed), saved, r"entries that the file lacks: a\.bias")
    refuses(scheduled(model=network().double(), data=doubles()), saved, "other dtypes")


def doubles():
    data = loader()
    x, y = data.dataset.tensors
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x.double(), y), batch_size=8)


def test_a_checkpoint_of_another_accountant_is_refused(saved):
    other = scheduled(engine=dpnorm.PrivacyEngine(accountant="prv"))
    refuses(other, saved, r"accounted by 'rdp', this engine by 'prv': take PrivacyEngine")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"noise_multiplier": 1.5}, "noise_multiplier was 1.0 .* is 1.5 now"),
        ({"max_grad_norm": 1.0}, "max_grad_norm was 0.5 .* is 1.0 now"),
        ({"data": loader(batch_size=12)}, "sampling_rate was 0.333.* is 0.5 now"),
        ({"poisson_sampling": False}, "poisson_sampling was True .* is False now"),
        ({"statistics_noise_ratio": 2.0}, "statistics_noise_ratio was 4.0 .* is 2.0 now"),
        ({"statistics_clip": 2.0}, "statistics_clip was 1.0 .* is 2.0 now"),
        ({"loss_reduction": "sum"}, "loss_reduction was mean .* is sum now"),
        (ADAPTIVE, "clipping was flat .* is adaptive now"),
        (
            {"clipping": "per_layer", "max_grad_norm": [0.5] * 6},
            r"max_grad_norm was 0.5 .* is \[0.5, ",
        ),
    ],
)
def test_a_training_goes_on_under_its_own_terms_only(changed, match, saved):
    refuses(scheduled(**changed), saved, match, RefusedError)


def test_adaptive_clipping_goes_on_with_its_own_arguments_only(path):
    Scheduled(**ADAPTIVE).run().save(path)
    other = ADAPTIVE | {"unclipped_num_std": 3.0}
    refuses(Scheduled(**other), path, "unclipped_num_std was 2.0 .* is 3.0 now", RefusedError)


def test_an_engine_that_has_stepped_already_is_refused(saved):
    refuses(scheduled().run(), saved, "taken steps already.*load the checkpoint before the first")


def test_an_engine_whose_ledger_holds_other_runs_is_refused(saved):
    other = Scheduled(noise_multiplier=2.0).run()
    engine = dpnorm.PrivacyEngine(accountant="rdp", ledger=other.engine.ledger)
    refuses(scheduled(engine=engine), saved, r"holds runs \(run 1\) that .* does not begin with")


def test_parts_are_to_be_those_that_were_saved(saved, tmp_path):
    refuses(scheduled(), saved, "holds the state of the optimizer: pass optimizer=", optimizer=None)
    for part, words in (("noise_scheduler", "noise"), ("grad_clip_scheduler", "clipping")):
        match = f"holds the state of the {words} scheduler: pass {part}="
        refuses(scheduled(), saved, match, **{part: None})
    bare = tmp_path / "bare.ckpt"
    training = scheduled()
    training.engine.save_checkpoint(path=bare, module=training.wrapped)
    refuses(scheduled(), bare, "does not hold the state of the optimizer")
    refuses(scheduled(), bare, "does not hold the state of the noise scheduler", optimizer=None)
    none = {"optimizer": None, "noise_scheduler": None}
    refuses(scheduled(), bare, "does not hold the state of the clipping scheduler", **none)


def test_another_kind_of_optimizer_or_scheduler_is_refused(saved):
    refuses(scheduled(build=adam), saved, r"another optimizer than this Adam")
    two = Scheduled(build=lambda p: sgd(two_groups(p)), noise="exponential", clip=True)
    refuses(two, saved, r"groups of 6 parameters .* has 2 parameters .* and 4 parameters")
    refuses(scheduled(noise="step"), saved, r"another noise scheduler than this StepNoise")


def two_groups(parameters):
    parameters = list(parameters)
    return [{"params": parameters[:2]}, {"params": parameters[2:]}]


def test_the_plain_optimizer_or_another_model_is_told_from_those_of_the_engine(saved, path):
    training = scheduled()
    plain = training.optimizer.original_optimizer
    refuses(training, saved, "optimizer is a SGD that is not this engine's", optimizer=plain)
    other = scheduled()
    refuses(training, saved, "not this engine's", optimizer=other.optimizer)
    refuses(training, saved, "not the model that this engine made", module=other.wrapped)
    refuses(training, saved, "not the model that this engine made", module=network())
    before = path.read_bytes()
    for wrong in ({"optimizer": plain}, {"module": other.wrapped}):
        with pytest.raises(InputError, match="that make_private returned"):
            training.engine.save_checkpoint(path=path, **(training.arguments() | wrong))
    assert path.read_bytes() == before


def test_nothing_is_loaded_or_saved_before_make_private(saved, path):
    engine, model = dpnorm.PrivacyEngine(), network()
    before = path.read_bytes()
    for call in (engine.load_checkpoint, engine.save_checkpoint):
        with pytest.raises(InputError, match="no model was made private yet: call make_private"):
            call(path=path, module=model)
    assert path.read_bytes() == before


class Dangerous:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_its_code_does_not_run(zipped, path, tmp_path):
    trap = tmp_path / "executed"
    state = {"module_state_dict": Dangerous(trap), "privacy_accountant_state_dict": {}}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    refuses(scheduled(), path, "no pickle is loaded")
    assert not trap.exists()


def test_torn_and_missing_files_are_refused(saved, path, tmp_path):
    whole = path.read_bytes()
    training = scheduled()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refuses(training, path, "is empty|cut off or damaged")
    refuses(training, tmp_path / "none", "no file")
    refuses(training, tmp_path, "is a folder")
    refuses(training, 3, "path is a int: the name of a file is due")
    path.write_bytes(whole)
    training.load(path)


def test_flipped_bits_in_ledger_and_weights_are_refused(saved, path):
    whole = path.read_bytes()
    training = scheduled()
    before = training.everything()
    generator = torch.Generator().manual_seed(0)
    places = set(torch.randint(8 * len(whole), (150,), generator=generator).tolist())
    ledger = whole.index(b"noise_multiplier")
    places |= set(range(8 * ledger, 8 * ledger + 8 * 60, 5))
    places |= {8 * len(whole) - 1 - n for n in range(0, 400, 7)}
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            training.load(path)
    assert training.everything() == before


def damaged(path, change):
    """A checkpoint that was written with other content, and a digest of that."""
    state = read_state(path)
    change(state)
    write_state(path, state)
    return path


def of_event(**entries):
    return lambda state: state["ledger"]["events"][0].update(entries)


@pytest.mark.parametrize(
    "change",
    [
        of_event(noise_multiplier=-1.0),
        of_event(noise_multiplier=math.nan),
        of_event(noise_multiplier=math.inf),
        of_event(noise_multiplier="1.0"),
        of_event(steps=0),
        of_event(steps=-3),
        of_event(steps=1.5),
        of_event(sampling_rate=0.0),
        of_event(sampling_rate=1.5),
        of_event(releases=3),
        of_event(run=None),
        lambda state: state["ledger"].update(events=[3]),
        lambda state: state["ledger"].update(events=None),
        lambda state: state["ledger"].update(format="another"),
        lambda state: state["ledger"].update(version=2),
        lambda state: state["ledger"].pop("version"),
        lambda state: state.pop("ledger"),
        lambda state: state.pop("current"),
        lambda state: state.update(run=3),
        lambda state: state.update(terms=[]),
        lambda state: state.update(module=[]),
        lambda state: state.update(generators={"noise": 3}),
        lambda state: state["current"].update(noise_multiplier=-1.0),
        lambda state: state["current"].update(noise_multiplier=math.nan),
        lambda state: state["current"].update(max_grad_norm=0.0),
        lambda state: state["optimizer"].pop("param_groups"),
        lambda state: state["optimizer"]["state"].update({99: {}}),
        lambda state: state.update(optimizer=3),
        lambda state: state.update(noise_scheduler=3),
        lambda state: state["noise_scheduler"].update(step=3),
    ],
)
def test_a_checkpoint_that_no_training_wrote_is_refused(change, saved):
    refuses(scheduled(), damaged(saved, change), r"run\.ckpt")


def test_a_value_that_cannot_be_kept_leaves_the_old_file(saved, path):
    before = path.read_bytes()
    training = scheduled()
    with pytest.raises(InputError, match=r"cannot save: extra\.model is a Sequential"):
        training.save(path, model=nn.Sequential())
    with pytest.raises(InputError, match="unknown argument 'torch_save_kwargs'"):
        training.engine.save_checkpoint(path=path, module=training.wrapped, torch_save_kwargs={})
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="cannot save"):
        training.save(path.with_name("new"), model=nn.Sequential())
    assert os.listdir(path.parent) == [path.name]
