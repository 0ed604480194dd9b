import torch

from dpnorm.privacy import poisson_batches


def test_each_record_is_in_each_batch_independently_at_the_accounted_rate():
    """2,000 batches of 50 records; five standard errors, a false alarm in 1e-4 runs at most."""
    q, records, steps = 0.13, 50, 2000
    generator = torch.Generator().manual_seed(0)
    counts, sizes = torch.zeros(records), []
    for index in poisson_batches(records, q, steps, generator):
        assert len(index.unique()) == len(index)
        counts[index] += 1
        sizes.append(float(len(index)))
    error = (q * (1 - q) / steps) ** 0.5
    assert (counts / steps - q).abs().max() < 5 * error
    variance = torch.tensor(sizes).var().item()
    expected = records * q * (1 - q)
    assert abs(variance - expected) < 5 * expected * (2 / steps) ** 0.5


def test_batches_may_be_empty():
    batches = poisson_batches(3, 0.01, 50, torch.Generator().manual_seed(0))
    assert min(len(index) for index in batches) == 0
