import pytest
import torch

from dpnorm.detection import Verdict, check
from tests.detection import coupled_zoo, safe_zoo


def judge(case):
    torch.manual_seed(0)
    model = case.build()
    inputs = case.inputs()
    targets = None if case.targets is None else case.targets()
    return check(
        model,
        inputs,
        targets=targets,
        criterion=case.criterion,
        loss_reduction=case.reduction,
    )


def test_the_zoos_are_large():
    assert len(coupled_zoo.CASES) >= 50
    assert len(safe_zoo.CASES) >= 50


# coupled without a doubt, and no probe need move it: the records are kept, only a gradient mixes
# where Opacus recomputes it, an exchanged record chooses the same place, or a coin falls otherwise
FAILS_CLOSED = {
    "keeps every output",
    "mixes gradients below a parameter of its own",
    "split at a place that a record chooses",
    "mixed when a coin says so",
    "mixed when numpy's coin says so",
}


@pytest.mark.parametrize("name", sorted(FAILS_CLOSED))
def test_what_cannot_be_measured_is_not_proven(name):
    assert judge(coupled_zoo.CASES[name]).verdict != Verdict.PROVEN


@pytest.mark.parametrize("name", sorted(set(coupled_zoo.CASES) - FAILS_CLOSED))
def test_coupled_models_are_refuted_with_a_witness(name):
    report = judge(coupled_zoo.CASES[name])
    assert report.verdict == Verdict.REFUTED, report.render("concise")
    assert report.witness > 0


@pytest.mark.parametrize("name", safe_zoo.CASES)
def test_isolated_models_are_proven(name):
    report = judge(safe_zoo.CASES[name])
    assert report.verdict == Verdict.PROVEN, report.render("concise")
    assert report.witness is None
