"""However many views a record has in a batch, it is one record to the clipping."""

import pytest
import torch

from dpnorm.privacy import PrivacyConfig
from dpnorm.training import train
from tests.training.small import PLAIN, flat, images, network, with_settings

CLIP = 0.5
DATA = images(9)


def clipped_sum(records, mode, norm, views):
    """Of the gradients at the first weights: what a step without noise moves them by."""
    config = with_settings(
        PLAIN, batch_size=len(records), lr=1.0, views=views, grad_sample_mode=mode
    )
    privacy = PrivacyConfig(
        accountant="rdp", noise_multiplier=1e-9, clip=CLIP, sampling_rate=1.0, steps=1, seed=0
    )
    model = network(norm)
    after = train(model, records, config, privacy).model
    moved = [a - b for a, b in zip(after.parameters(), model.parameters(), strict=True)]
    return torch.cat([m.detach().flatten() for m in moved]).double() * len(records)


@pytest.mark.parametrize("norm", ["group", "private"])
@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch", "ghost"])
def test_one_record_more_moves_the_clipped_sum_by_the_clipping_norm_at_most(mode, norm):
    """Records whose gradients are longer, so that the bound is reached: one, not one a view."""
    found = {
        (views, count): clipped_sum(DATA.select(slice(0, count)), mode, norm, views)
        for views in (1, 4)
        for count in (8, 9)
    }
    for views in (1, 4):
        step = (found[views, 9] - found[views, 8]).norm().item()
        assert 0.9 * CLIP < step <= CLIP * (1 + 1e-5)
    # without augmentation the views of a record are alike, and their mean is each of them
    torch.testing.assert_close(found[4, 9], found[1, 9], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch", "ghost"])
def test_a_record_of_huge_numbers_moves_it_no_further(mode):
    huge = images(9)
    huge.x[8] *= 1e6
    both = [clipped_sum(huge.select(slice(0, n)), mode, "none", 4) for n in (8, 9)]
    assert (both[1] - both[0]).norm() <= CLIP * (1 + 1e-4)


def test_the_account_does_not_depend_on_the_views():
    privacy = PrivacyConfig(accountant="rdp", noise_multiplier=1.0, seed=1)
    statements = []
    for views in (1, 4):
        config = with_settings(PLAIN, batch_size=3, views=views, augment="shift")
        statements.append(train(network(), DATA, config, privacy).statement)
    assert statements[0] == statements[1]
    assert statements[0].sampling_rate == pytest.approx(1 / 3)


def test_statistics_of_several_views_are_their_mean_clipped_as_one():
    """Private statistics of four equal views are those of one."""
    buffers = []
    for views in (1, 4):
        config = with_settings(PLAIN, batch_size=9, lr=1e-9, views=views)
        privacy = PrivacyConfig(
            accountant="rdp", noise_multiplier=1e-9, sampling_rate=1.0, steps=3, seed=0
        )
        model = train(network("private"), DATA, config, privacy).model
        buffers.append(dict(model.named_buffers()))
    assert (buffers[0]["1.statistics.running_mean"]).abs().max() > 0.01
    for name, buffer in buffers[0].items():
        torch.testing.assert_close(buffers[1][name], buffer, rtol=1e-4, atol=1e-5)


def test_views_of_plain_training_are_one_record_in_the_history():
    model = network()
    one = train(model, DATA, PLAIN)
    many = train(model, DATA, with_settings(PLAIN, views=4))
    torch.testing.assert_close(flat(many.model), flat(one.model), rtol=1e-4, atol=1e-5)
    assert many.history.column("loss") == pytest.approx(one.history.column("loss"), rel=1e-4)
