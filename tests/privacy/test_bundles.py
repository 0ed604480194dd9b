"""Parameters that are clipped together are clipped and added up as each alone would be."""

import pytest
import torch
from torch import nn

from dpnorm.gradients.factors import Outer, dense
from dpnorm.privacy.bundles import SMALL, bundled

RECORDS = 3


def parameters():
    shapes = [(4,), (2, 3), (), (SMALL + 1,), (5, 2), (7,)]
    found = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    found[-1] = nn.Parameter(found[-1].detach().double())
    samples = [torch.randn(RECORDS, *p.shape, dtype=p.dtype) for p in found]
    samples[4] = Outer(torch.randn(RECORDS, 5), torch.randn(RECORDS, 2))
    return found, samples


@pytest.mark.parametrize("apart", [False, True])
def test_every_parameter_is_in_one_bundle_and_has_its_own_sum(apart):
    torch.manual_seed(0)
    own, samples = parameters()
    bundles = bundled(own, samples, apart=apart)
    together = [len(bundle.parameters) for bundle in bundles]
    assert sorted(together) == ([1] * 6 if apart else [1, 1, 1, 3])
    weights = torch.rand(RECORDS)
    sums = {}
    for bundle in bundles:
        for p, total in zip(bundle.parameters, bundle.sums(bundle.samples, weights), strict=True):
            assert id(p) not in sums
            sums[id(p)] = total
    for p, rows in zip(own, samples, strict=True):
        each = dense(rows)
        expected = (weights.to(each) @ each.reshape(RECORDS, -1)).view(p.shape)
        torch.testing.assert_close(sums[id(p)], expected)
        assert sums[id(p)].dtype == p.dtype


def test_a_batch_of_no_record_has_sums_of_nothing():
    own, samples = parameters()
    empty = [dense(rows)[:0] for rows in samples]
    for bundle in bundled(own, empty, apart=False):
        for p, total in zip(
            bundle.parameters, bundle.sums(bundle.samples, torch.ones(0)), strict=True
        ):
            assert total.shape == p.shape
            assert not total.any()
