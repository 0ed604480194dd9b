"""Topic `silent-acceptance`: what passes a validator by class name and breaks the bound."""

import copy
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dpnorm.data import load
from dpnorm.detection import Sensitivity, Verdict, check, sensitivity
from dpnorm.detection.sensitivity import gaussian_epsilon
from dpnorm.explain.constructs import CLASSES, CONSTRUCTS, small_model
from dpnorm.explain.drawing import BROKEN, KEPT, epsilon_bars
from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.explain.pair import RECORDS, ROUNDING

NOISE, CLIP, DELTA = 2, 3, 1e-5  # C is about as long as a gradient here
_RARE, _WEIGHT = 9, 50  # a class, and the weight that it gets as people weigh rare ones

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Found:
    """What came of one model."""

    errors: int
    epsilon: float
    witness: Sensitivity
    verdict: Verdict


def measure(layer: Callable[[], nn.Module] | None = None) -> Measured:
    """Sends every model through Opacus, `sensitivity` and `check`.

    Args:
        layer: takes the place of every construct that is said to mix records, the loss too.
    """
    data = load("digits")
    rare = data.train.y == _RARE
    x, y = (
        torch.cat([part[rare][:1], part[~rare][: RECORDS - 1]])
        for part in (data.train.x, data.train.y)
    )
    weight = torch.ones(CLASSES)
    weight[_RARE] = _WEIGHT
    found: dict[str, _Found] = {}
    for name, construct in CONSTRUCTS.items():
        weighted = name == "loss" and layer is None
        criterion = nn.CrossEntropyLoss(weight=weight if weighted else None)
        planted = construct.layer if layer is None or name == "control" else layer
        found[name] = _found(small_model(planted()), criterion, x, y)
    numbers: dict[str, float] = {}
    settings: dict[str, Setting] = {
        "control": CONSTRUCTS["control"].words, "records": RECORDS, "opacus": version("opacus"),
        "noise": NOISE, "clip": CLIP, "delta": DELTA, "weight": _WEIGHT,
    }  # fmt: skip
    for name, one in found.items():
        numbers |= {
            f"epsilon_{name}": one.epsilon,
            f"shift_{name}": one.witness.ratio,
        }
        settings |= {
            f"state_{name}": "yes" if one.witness.released_state else "no",
            f"verdict_{name}": str(one.verdict.value),
        }
    numbers["exact_affine_free"] = gaussian_epsilon(numbers["shift_affine_free"] / NOISE, DELTA)
    return Measured(numbers, settings, _claims(found), (_picture(found),))


def _claims(found: dict[str, _Found]) -> tuple[Claim, ...]:
    mixing = {name: one for name, one in found.items() if name != "control"}
    control = found["control"]
    return (
        Claim(
            "Opacus accepts all of them and prints one epsilon for all",
            all(one.errors == 0 and one.epsilon == control.epsilon for one in found.values()),
        ),
        Claim(
            "each of the six moves the sum by more than C, or publishes what moves",
            all(_is_broken(one) for one in mixing.values()),
        ),
        Claim(
            "check proves none of the six",
            all(one.verdict is not Verdict.PROVEN for one in mixing.values()),
        ),
        Claim(
            "the control does neither, and check proves it",
            not _is_broken(control) and control.verdict is Verdict.PROVEN,
        ),
    )


def _picture(found: dict[str, _Found]) -> Picture:
    epsilons, kinds = {}, {}
    for name, one in found.items():
        words = CONSTRUCTS[name].words
        epsilons[words] = one.witness.epsilon(NOISE, DELTA)
        proven = one.verdict is Verdict.PROVEN
        kinds[words] = f"dpnorm check: {one.verdict.value}", KEPT if proven else BROKEN
    return Picture(
        "epsilon",
        "The exact epsilon of a pair of datasets that was found for each of these constructs, over "
        f"the epsilon that Opacus prints for all of them: {'; '.join(epsilons)}.",
        functools.partial(
            epsilon_bars,
            epsilons,
            kinds,
            ("epsilon that Opacus prints for all", found["control"].epsilon),
            DELTA,
        ),
    )


def _is_broken(one: _Found) -> bool:
    return one.witness.ratio > 1 + ROUNDING or one.witness.released_state


def _found(model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor) -> _Found:
    errors, epsilon = _opacus(copy.deepcopy(model), criterion, x, y)
    return _Found(
        errors,
        epsilon,
        sensitivity(model, x, y, criterion, clip=CLIP),
        check(model, x, targets=y, criterion=criterion).verdict,
    )


def _opacus(model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor) -> tuple[int, float]:
    """How many errors Opacus finds, and the epsilon it prints after one step on all records."""
    from opacus import PrivacyEngine
    from opacus.validators import ModuleValidator

    errors = len(ModuleValidator.validate(model, strict=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a generator that is not for secrets, and of hooks
        engine = PrivacyEngine(accountant="prv")
        network, optimizer, batches = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x)),
            noise_multiplier=float(NOISE),
            max_grad_norm=float(CLIP),
        )
        for records, targets in batches:
            optimizer.zero_grad()
            criterion(network(records), targets).backward()
            optimizer.step()
        return errors, float(engine.get_epsilon(DELTA))
