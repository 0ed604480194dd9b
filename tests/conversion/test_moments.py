import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnorm.conversion.moments import group_moments, matched_affine


@given(groups=st.integers(1, 4), width=st.integers(1, 5), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_group_moments_are_those_of_the_pooled_values(groups, width, seed):
    x = torch.randn(
        groups * width, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ) * torch.arange(1, groups * width + 1).view(-1, 1)
    mean, var = group_moments(x.mean(1), x.var(1, correction=0), groups)
    pooled = x.view(groups, -1)
    assert torch.allclose(mean, pooled.mean(1).repeat_interleave(width))
    assert torch.allclose(var, pooled.var(1, correction=0).repeat_interleave(width))


@given(groups=st.sampled_from([1, 2, 3, 6]), seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_a_record_with_the_population_moments_keeps_its_output(groups, seed):
    """Where a record's statistics equal the population's, GroupNorm gives BatchNorm's output."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 6, 40, generator=generator, dtype=torch.float64) * 3 + 1
    mean, var = x[0].mean(1), x[0].var(1, correction=0)
    weight, bias = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    wanted = F.batch_norm(x, mean, var, weight, bias, eps=1e-3)
    new_mean, new_var = group_moments(mean, var, groups)
    new_weight, new_bias = matched_affine(
        weight, bias, mean, var, 1e-3, new_mean=new_mean, new_var=new_var, new_eps=1e-5
    )
    assert torch.allclose(
        F.group_norm(x, groups, new_weight, new_bias, eps=1e-5), wanted, atol=1e-10
    )
