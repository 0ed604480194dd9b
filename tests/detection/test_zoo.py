import pytest
import torch

from dpnorm.detection import Verdict, check
from dpnorm.detection.inputs import first_records
from tests.detection.zoo import (
    coupled_functions,
    coupled_losses,
    coupled_modules,
    coupled_out_of_sight,
    safe_functions,
    safe_modules,
)

COUPLED = {
    **coupled_functions.ZOO,
    **coupled_out_of_sight.ZOO,
    **coupled_modules.ZOO,
    **coupled_losses.ZOO,
}
SAFE = {**safe_functions.ZOO, **safe_modules.ZOO}

# coupled without a doubt, and no probe need move it: the records are kept, only a gradient mixes
# where Opacus recomputes it, a gradient is lost where a view is written, an exchanged record
# chooses the same place, or a coin falls otherwise
FAILS_CLOSED = {
    "keeps every output",
    "mixes gradients below a parameter of its own",
    "a gradient normalized where no record runs",
    "a scale by the last batch's gradient",
    "gradients mixed behind a view that is written",
    "split at a place that a record chooses",
    "mixed when a coin says so",
    "mixed when a coin says so once in a thousand times",
    "mixed when a coin between bounds says so once in a thousand times",
    "mixed when a coin of two sides says so once in a thousand times",
    "mixed when numpy's coin says so",
    *coupled_modules.UNREAD,
}
# coupled only in batches of more than four records, which is another path
LARGE_ONLY = {"two of six records", "gradients mixed in a large batch only"}


def judge(case, records=6):
    torch.manual_seed(0)
    model = case.build()
    inputs = case.inputs()
    targets = None if case.targets is None else case.targets()
    return check(
        model,
        first_records(inputs, records),
        targets=first_records(targets, records),
        criterion=case.criterion,
        loss_reduction=case.reduction,
    )


def test_the_zoos_are_large():
    assert len(COUPLED) >= 50
    assert len(SAFE) >= 50


@pytest.mark.parametrize("name", sorted(FAILS_CLOSED))
def test_what_cannot_be_measured_is_not_proven(name):
    assert judge(COUPLED[name]).verdict != Verdict.PROVEN
    assert judge(COUPLED[name], 3).verdict != Verdict.PROVEN


@pytest.mark.parametrize("name", sorted(set(COUPLED) - FAILS_CLOSED))
def test_coupled_models_are_refuted_with_a_witness(name):
    report = judge(COUPLED[name])
    assert report.verdict == Verdict.REFUTED, report.render("concise")
    assert report.witness > 0


@pytest.mark.parametrize("name", sorted(set(COUPLED) - FAILS_CLOSED - LARGE_ONLY))
def test_three_records_are_enough_to_refute(name):
    report = judge(COUPLED[name], 3)
    assert report.verdict == Verdict.REFUTED, report.render("concise")
    assert report.witness > 0


@pytest.mark.parametrize("records", [2, 3, 6])
@pytest.mark.parametrize("name", SAFE)
def test_isolated_models_are_proven(name, records):
    report = judge(SAFE[name], records)
    assert report.verdict == Verdict.PROVEN, report.render("concise")
    assert report.witness is None
